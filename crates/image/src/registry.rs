//! Pulling: an image comes from a registry into the store.
//!
//! Manifest (through an index to this host's platform), configuration, then the layers, a few
//! at a time: each is taken from those that are kept, or downloaded from where an earlier try broke
//! off, checked and unpacked. If any step fails the store has the images that it had before.
//!
//! Mirrors are asked first, in their order; one that does not have the image, or fails, is passed
//! over, and the registry itself has the last word.

mod client;
mod fetch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;
use types::ImageRef;

use crate::convert;
use crate::credentials::{CredentialsError, CredentialsFile};
use crate::digest::Digest;
use crate::error::{ImageError, Limits, StoreError};
use crate::layout::check_diff_ids;
use crate::manifest::{CONFIG_BYTES_MAX, ConfigFile, Document, INDEX_DEPTH_MAX, Manifest, choose};
use crate::spool::Spool;
use crate::store::{Image, ImageStore, Record};
use client::Registry;
use fetch::Fetch;

/// How an image is pulled. The default is HTTPS, anonymous, with the default limits.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Registries, as `host:port`, that are spoken to without TLS because somebody said so.
    pub plain_http_registries: Vec<String>,
    /// For a registry, others to ask first, as `host:port`. Whoever names one trusts it with what
    /// tags mean.
    pub mirrors: BTreeMap<String, Vec<String>>,
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
            .field("mirrors", &self.mirrors)
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

impl PullError {
    /// Whether another registry may do better.
    fn is_about_the_registry(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Credentials(_)
            | Self::Unreachable { .. }
            | Self::Registry { .. }
            | Self::Image(
                ImageError::DigestMismatch { .. }
                | ImageError::SizeMismatch { .. }
                | ImageError::Malformed { .. },
            ) => true,
            Self::NotImported { .. } | Self::Image(_) => false,
        }
    }
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
        let mirrors = options.mirrors.get(&reference.registry);
        for mirror in mirrors.into_iter().flatten() {
            match self.pull_from(mirror, reference, options).await {
                Err(error) if error.is_about_the_registry() => {
                    warn!(mirror, image = %reference, error = types::chain(&error),
                        "mirror passed over");
                }
                done => return done,
            }
        }
        self.pull_from(&reference.registry, reference, options)
            .await
    }

    async fn pull_from(
        &self,
        endpoint: &str,
        reference: &ImageRef,
        options: &PullOptions,
    ) -> Result<Image, PullError> {
        let registry = Registry::connect(endpoint, reference, options).await?;
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
        let fetch = Fetch {
            store: self,
            registry: &registry,
            options,
            work: &work,
        };
        let spools = fetch.layers(&manifest.layers).await?;
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
async fn find_manifest(registry: &Registry) -> Result<(Digest, Manifest), PullError> {
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
