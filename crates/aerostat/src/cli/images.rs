//! `aerostat image …`

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use types::ImageRef;
use types::api::{Image, ImportImage, PruneImages, PullEvent, PullImage, PullProgress};

use super::output::{self, Table};
use super::{Context, Refused};

#[derive(Debug, Subcommand)]
pub(super) enum Images {
    /// List the images on this host
    #[command(visible_alias = "ls")]
    List,
    /// Fetch an image from its registry
    Pull {
        image: ImageRef,
        /// Speak HTTP without TLS to the registry
        #[arg(long)]
        plain_http: bool,
    },
    /// Take in an OCI layout (a directory, or a tar file of one) or a `docker save` archive
    Import {
        path: PathBuf,
        /// Name to keep it under [default: its own]
        name: Option<ImageRef>,
    },
    /// Remove the images that no machine, running or stopped, uses
    Prune {
        /// Also those that were imported, and no registry can give back
        #[arg(long)]
        all: bool,
    },
    /// Remove an image from this host
    #[command(visible_alias = "rm")]
    Remove { image: ImageRef },
}

impl Images {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List => print(context, &client.images().await?),
            Self::Pull { image, plain_http } => {
                let body = PullImage {
                    reference: image.to_string(),
                    plain_http,
                };
                print(context, &[follow(client.pull_image(&body).await?).await?])
            }
            Self::Import { path, name } => {
                let path = path
                    .canonicalize()
                    .with_context(|| format!("cannot find image {}", path.display()))?;
                let body = ImportImage {
                    path: path.to_string_lossy().into_owned(),
                    name: name.map(|name| name.to_string()).unwrap_or_default(),
                };
                print(context, &[client.import_image(&body).await?])
            }
            Self::Prune { all } => {
                let pruned = client.prune_images(&PruneImages { all }).await?;
                let table = || rows(&pruned.images);
                let names = || names(&pruned.images);
                output::print(context.format, &pruned, table, names)?;
                eprintln!(
                    "{} images removed, {} freed",
                    pruned.images.len(),
                    output::size(pruned.freed_bytes)
                );
                Ok(())
            }
            Self::Remove { image } => Ok(client.remove_image(&image.to_string()).await?),
        }
    }
}

/// Shows how far a pull is until it ends.
async fn follow(mut pull: client::Pull) -> anyhow::Result<Image> {
    let terminal = std::io::stderr().is_terminal();
    while let Some(event) = pull.next().await {
        match event? {
            PullEvent::Progress(progress) if terminal => {
                eprint!("\r\x1b[K{}", how_far(&progress));
            }
            PullEvent::Progress(_) => {}
            PullEvent::Image { image } => {
                if terminal {
                    eprint!("\r\x1b[K");
                }
                return Ok(image);
            }
            PullEvent::Failed { body } => {
                let hint = body.details.hint;
                let hint = if hint.is_empty() {
                    hint
                } else {
                    format!("; {hint}")
                };
                return Err(Refused(format!("{}{hint}", body.error)).into());
            }
        }
    }
    anyhow::bail!("the pull ended without a result; try again")
}

fn how_far(progress: &PullProgress) -> String {
    match *progress {
        PullProgress::Downloading {
            layer,
            layers,
            done_bytes,
            total_bytes,
        } => {
            let (done, total) = (output::size(done_bytes), output::size(total_bytes));
            format!("layer {} of {layers}: {done} of {total}", layer + 1)
        }
        PullProgress::Unpacking { layer, layers } => {
            format!("layer {} of {layers}: unpacking", layer + 1)
        }
        PullProgress::Writing { layers } => format!("{layers} layers: writing the image"),
    }
}

fn print(context: &Context, images: &[Image]) -> anyhow::Result<()> {
    output::print(context.format, &images, || rows(images), || names(images))
}

fn rows(images: &[Image]) -> Table {
    let mut table = Table::new(&["IMAGE", "DIGEST", "SIZE"]);
    for image in images {
        let digest = image.digest.chars().take(19).collect();
        table.row([
            image.reference.clone(),
            digest,
            output::size(image.size_bytes),
        ]);
    }
    table
}

fn names(images: &[Image]) -> Vec<String> {
    images.iter().map(|image| image.reference.clone()).collect()
}
