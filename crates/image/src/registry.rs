//! Pulling: an image comes from a registry into the store.
//!
//! Manifest (through an index to this host's platform), configuration, then the layers, a few
//! at a time: each is downloaded into an unnamed file, checked, unpacked, and its compressed
//! form forgotten. If any step fails the store is as before.

mod client;

use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tracing::warn;
use types::ImageRef;

use crate::convert::{self, layer_name};
use crate::credentials::{CredentialsError, CredentialsFile};
use crate::digest::Digest;
use crate::error::{ImageError, Limits, StoreError};
use crate::layout::check_diff_ids;
use crate::manifest::{
    CONFIG_BYTES_MAX, ConfigFile, Descriptor, Document, INDEX_DEPTH_MAX, Manifest, choose,
};
use crate::spool::{Blob, Budget, Spool, spool};
use crate::store::{Image, ImageStore, Record, Work};
use client::Registry;

/// Layers in work at a time; registries start to throttle above this, and so do disks.
const LAYERS_AT_A_TIME: usize = 3;

/// How an image is pulled. The default is HTTPS, anonymous, with the default limits.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Registries, as `host:port`, that are spoken to without TLS because somebody said so.
    pub plain_http_registries: Vec<String>,
    /// Shown to the registry before what the file has.
    pub credentials: Option<Credentials>,
    /// Where the registry's credentials are looked up.
    pub credentials_file: Option<CredentialsFile>,
    pub limits: Limits,
    /// Called often and from several threads; must not block.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("plain_http_registries", &self.plain_http_registries)
            .field("credentials", &self.credentials)
            .field("credentials_file", &self.credentials_file)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl PullOptions {
    fn report(&self, progress: Progress) {
        if let Some(report) = &self.progress {
            report(progress);
        }
    }
}

/// Who pulls. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// A bearer token that the registry takes as it is.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username}, …)"),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// Who a registry was told that we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nobody; none are in the file, if there is one.
    Nothing {
        file: Option<PathBuf>,
    },
    User {
        name: String,
        file: Option<PathBuf>,
    },
    Token {
        file: Option<PathBuf>,
    },
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = |file: &Option<PathBuf>| match file {
            Some(file) => format!(" from {}", file.display()),
            None => String::new(),
        };
        match self {
            Self::Nothing { file: None } => f.write_str("a request without credentials"),
            Self::Nothing { file: Some(file) } => {
                let file = file.display();
                write!(
                    f,
                    "a request without credentials, as {file} has none for it"
                )
            }
            Self::User { name, file } => {
                write!(f, "the credentials of user `{name}`{}", from(file))
            }
            Self::Token { file } => write!(f, "a token{}", from(file)),
        }
    }
}

impl Shown {
    fn advice(&self) -> &'static str {
        match self {
            Self::Nothing { .. } => {
                "log in (`docker login`), or name a file of credentials with \
                 `registry_credentials`; if the image is public, check its name"
            }
            Self::User { .. } | Self::Token { .. } => {
                "log in again (`docker login`), check the image's name, and whether this user may \
                 pull it"
            }
        }
    }
}

/// How far a pull has come. Layers are counted from 0, the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Downloading {
        layer: usize,
        layers: usize,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// Downloaded and checked.
    Unpacking { layer: usize, layers: usize },
    /// All layers are there; the root file system is being written.
    Writing { layers: usize },
}

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("no such image {reference}: `localhost/…` is in no registry, it must be imported")]
    NotImported { reference: ImageRef },
    #[error("no such image {reference}: registry {registry} answered {status}")]
    NotFound {
        reference: Box<ImageRef>,
        registry: String,
        status: u16,
    },
    #[error(
        "not allowed to pull {reference}: registry {registry} {answer} to {shown}; {}",
        shown.advice()
    )]
    Unauthorized {
        reference: Box<ImageRef>,
        registry: String,
        answer: String,
        shown: Shown,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot reach registry {registry} for image {reference}")]
    Unreachable {
        reference: Box<ImageRef>,
        registry: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("registry {registry} failed to deliver {what}: it answered {answer}")]
    Registry {
        registry: String,
        what: String,
        answer: String,
    },
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Image(error.into())
    }
}

impl ImageStore {
    /// Pulls an image and stores it under `reference`. Layers that made a root file system of
    /// this store before are not downloaded again.
    ///
    /// May be dropped at any point; what it had downloaded is removed as soon as the threads
    /// that were unpacking it are done with their layer.
    ///
    /// # Errors
    /// [`PullError`] says what was looked for, where, and what came back; then the store is as
    /// before.
    pub async fn pull(
        &self,
        reference: &ImageRef,
        options: &PullOptions,
    ) -> Result<Image, PullError> {
        if reference.is_local() {
            return Err(PullError::NotImported {
                reference: reference.clone(),
            });
        }
        let registry = Registry::connect(reference, options).await?;
        let (digest, manifest) = find_manifest(&registry).await?;
        let config = registry
            .document(&manifest.config, "configuration", CONFIG_BYTES_MAX)
            .await?;
        let config = ConfigFile::parse(&config)?;
        let rootfs = convert::rootfs_id(manifest.layers.iter().map(|layer| layer.digest));
        let record = Record::new(
            reference.clone(),
            digest,
            config.config,
            rootfs,
            config.created,
        );
        let store = self.clone();
        let work = blocking("begin", move || Ok(store.begin()?)).await?;
        let work = Arc::new(work);
        if self.has_rootfs(&rootfs) {
            let (store, record, work) = (self.clone(), record.clone(), Arc::clone(&work));
            let commit = move || Ok(store.commit(&record, None, &work)?);
            if let Some(image) = blocking("commit", commit).await? {
                return Ok(image);
            }
        }
        let spools = fetch_layers(&registry, &manifest.layers, options, &work).await?;
        options.report(Progress::Writing {
            layers: spools.len(),
        });
        let (store, limits, diff_ids) = (self.clone(), options.limits, config.diff_ids);
        blocking("write", move || {
            let (spools, names): (Vec<Spool>, Vec<String>) = spools.into_iter().unzip();
            check_diff_ids(&diff_ids, spools.iter().map(|spool| spool.diff_id), &names)?;
            let tree = convert::merge(&spools, &names, &limits)?;
            let (path, file) = work.file("rootfs.erofs")?;
            convert::write(&tree, &spools, &rootfs, file)?;
            let image = store.commit(&record, Some(&path), &work)?;
            Ok(image.expect("the root file system was put there under the same lock"))
        })
        .await
    }
}

/// Follows the reference, through indexes, to the manifest for this host.
async fn find_manifest(registry: &Registry<'_>) -> Result<(Digest, Manifest), PullError> {
    let (mut digest, mut bytes) = registry.manifest(None).await?;
    for _ in 0..=INDEX_DEPTH_MAX {
        match Document::parse(&bytes)? {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(entries) => {
                let next = choose(&entries)?;
                (digest, bytes) = registry.manifest(Some(&next.digest)).await?;
            }
        }
    }
    let why = format!("indexes are nested more than {INDEX_DEPTH_MAX} deep");
    Err(ImageError::Unsupported {
        what: "the manifest",
        why,
    }
    .into())
}

/// Downloads and unpacks the layers; each with what it is called in messages.
async fn fetch_layers(
    registry: &Registry<'_>,
    layers: &[Descriptor],
    options: &PullOptions,
    work: &Arc<Work>,
) -> Result<Vec<(Spool, String)>, PullError> {
    let packed_bytes = layers
        .iter()
        .fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    let bytes_max = options.limits.unpacked_bytes_max;
    if packed_bytes > bytes_max {
        let what = "the image, still packed,".to_owned();
        return Err(ImageError::TooLarge {
            what,
            bytes: packed_bytes,
            bytes_max,
        }
        .into());
    }
    let budget = Arc::new(Budget::new(bytes_max));
    let count = layers.len();
    let fetched = layers.iter().enumerate().map(|(index, layer)| {
        let (budget, work) = (Arc::clone(&budget), Arc::clone(work));
        async move {
            let name = layer_name(index, count, &layer.digest);
            let report = |done_bytes| {
                let total_bytes = layer.size;
                let layers = count;
                options.report(Progress::Downloading {
                    layer: index,
                    layers,
                    done_bytes,
                    total_bytes,
                });
            };
            let packed = download(registry, layer, &name, &work, &report).await?;
            options.report(Progress::Unpacking {
                layer: index,
                layers: count,
            });
            let (digest, bytes) = (Some(layer.digest), layer.size);
            blocking("unpack", move || {
                let reader = rewound(packed).map_err(ImageError::io("read a downloaded layer"))?;
                let blob = Blob {
                    reader,
                    digest,
                    bytes,
                    name: name.clone(),
                };
                Ok((spool(blob, work.unnamed_file()?, &budget)?, name))
            })
            .await
        }
    });
    // The vector is needed: a lazy iterator of borrowing futures is not `Send` enough.
    let fetched: Vec<_> = fetched.collect();
    futures::stream::iter(fetched)
        .buffered(LAYERS_AT_A_TIME)
        .try_collect()
        .await
}

/// Downloads a layer; one whose connection breaks is begun again a few times.
async fn download(
    registry: &Registry<'_>,
    layer: &Descriptor,
    name: &str,
    work: &Work,
    report: &(impl Fn(u64) + Sync),
) -> Result<File, PullError> {
    const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
    for pause in PAUSES {
        match registry
            .download(layer, name, work.unnamed_file()?, report)
            .await
        {
            Err(PullError::Unreachable {
                registry, source, ..
            }) => {
                warn!(
                    registry,
                    source,
                    layer = name,
                    "download broke off, trying again"
                );
                tokio::time::sleep(pause).await;
            }
            other => return other,
        }
    }
    registry
        .download(layer, name, work.unnamed_file()?, report)
        .await
}

fn rewound(mut file: File) -> std::io::Result<File> {
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Runs file work on a thread that may wait.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(PullError::Image(ImageError::Io {
                doing: format!("{doing} the image: the process is shutting down"),
                source: std::io::Error::other(error),
            })),
        },
    }
}
