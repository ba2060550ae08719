//! `aerostat image …`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use types::ImageRef;
use types::api::{Image, ImportImage, PruneImages, PullImage};

use super::output::{self, Table};
use super::progress::{Progress, pull};
use super::{Context, complete};

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
    Remove {
        #[arg(add = complete::images())]
        image: ImageRef,
    },
}

impl Images {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        match self {
            Self::List => {
                let images = client.images().await?;
                let first =
                    "there are no images on this host; the first: aerostat image pull nginx";
                let table = || rows(context, &images);
                output::print_list(context.format, &images, table, || names(&images), first)
            }
            Self::Pull { image, plain_http } => {
                let body = PullImage {
                    reference: image.to_string(),
                    plain_http,
                };
                print(context, &pull(&client, &body, &mut Progress::new()).await?)
            }
            Self::Import { path, name } => {
                let path = path
                    .canonicalize()
                    .with_context(|| format!("cannot find image {}", path.display()))?;
                let body = ImportImage {
                    path: path.to_string_lossy().into_owned(),
                    name: name.map(|name| name.to_string()).unwrap_or_default(),
                };
                print(context, &client.import_image(&body).await?)
            }
            Self::Prune { all } => {
                let pruned = client.prune_images(&PruneImages { all }).await?;
                let table = || rows(context, &pruned.images);
                let names = || names(&pruned.images);
                output::print(context.format, &pruned, table, names)?;
                eprintln!(
                    "{} images removed, {} freed",
                    pruned.images.len(),
                    output::size(pruned.freed_bytes)
                );
                Ok(())
            }
            Self::Remove { image } => {
                let name = image.to_string();
                client.remove_image(&name).await?;
                let removed = serde_json::json!({"reference": name, "removed": true});
                output::changed(context.format, &removed, &name, &format!("{name} removed"))
            }
        }
    }
}

fn print(context: &Context, image: &Image) -> anyhow::Result<()> {
    let list = std::slice::from_ref(image);
    output::print(
        context.format,
        image,
        || rows(context, list),
        || names(list),
    )
}

fn rows(context: &Context, images: &[Image]) -> Table {
    let mut table = Table::new(&["IMAGE", "DIGEST", "SIZE", "AGE"]).wide(&["WHOLE DIGEST"]);
    for image in images {
        let digest = image.digest.chars().take(19).collect();
        let created = image.created_at.map(|time| context.time(time));
        table.row([
            image.reference.clone(),
            digest,
            output::size(image.size_bytes),
            created.unwrap_or_else(|| "-".to_owned()),
            image.digest.clone(),
        ]);
    }
    table
}

fn names(images: &[Image]) -> Vec<String> {
    images.iter().map(|image| image.reference.clone()).collect()
}
