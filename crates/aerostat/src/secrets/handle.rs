//! How others set and get secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::RwLock;
use types::AppName;

use super::keys::{KeyError, KeySource, Keyring};
use super::seal::{self, InvalidSecret, OpenError, Owner};
use super::serve::{OF_APP, OfApp, OfAppAnswer};
use super::value::{AppSecrets, Secret};
use crate::directory::{self, Refused, SealedSecrets};
use crate::rpc::{Rpc, Unreachable};

/// For so long a boot, or a question with `min_version`, waits for a version that is on its way.
/// Copies of the directory are late by milliseconds, or their authority is away.
const VERSION_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// The directory's host waits for its catalog to show the machine that asks.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Why secrets could not be set or had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] InvalidSecret),
    #[error(
        "app `{app}` has version {known} of its secrets here, and version {wanted} did not come in time"
    )]
    Late {
        app: AppName,
        wanted: u64,
        known: u64,
    },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error("the host that can open secrets cannot be asked")]
    Unreachable { source: Unreachable },
    #[error("the host that can open secrets did not: {reason}")]
    Refused { reason: String },
    /// Another host has the keys.
    #[error("only the directory's host can do this with secrets")]
    Elsewhere,
}

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that seals from now on.
    pub key: String,
    /// Secrets that were sealed anew.
    pub resealed: usize,
}

/// Clones share the keys.
#[derive(Debug, Clone)]
pub struct Handle {
    directory: directory::Handle,
    side: Arc<Side>,
}

#[derive(Debug)]
enum Side {
    Authority {
        /// Held for reading while a secret is sealed and written, so that none is sealed with a key
        /// that is about to be forgotten.
        keys: Arc<RwLock<Arc<Keyring>>>,
        source: KeySource,
        /// One rotation at a time.
        turn: tokio::sync::Mutex<()>,
    },
    Elsewhere {
        rpc: Rpc,
    },
}

impl Handle {
    /// On the directory's host, with the keys of `source`.
    pub fn authority(directory: directory::Handle, keys: Keyring, source: KeySource) -> Self {
        let side = Arc::new(Side::Authority {
            keys: Arc::new(RwLock::new(Arc::new(keys))),
            source,
            turn: tokio::sync::Mutex::default(),
        });
        Self { directory, side }
    }

    /// On another host, which asks the directory's.
    pub fn elsewhere(directory: directory::Handle, rpc: Rpc) -> Self {
        let side = Arc::new(Side::Elsewhere { rpc });
        Self { directory, side }
    }

    async fn keys(&self) -> Result<Arc<Keyring>, Error> {
        match &*self.side {
            Side::Authority { keys, .. } => Ok(Arc::clone(&*keys.read().await)),
            Side::Elsewhere { .. } => Err(Error::Elsewhere),
        }
    }

    /// Names, digests and version of an app's secrets, of at least this version.
    ///
    /// # Errors
    /// [`Error::Late`].
    pub async fn sealed(
        &self,
        app: &AppName,
        min_version: Option<u64>,
    ) -> Result<SealedSecrets, Error> {
        let mut changes = self.directory.secrets_changed();
        let wanted = min_version.unwrap_or(0);
        let has = async {
            loop {
                changes.borrow_and_update();
                let row = self.directory.sealed_secrets(app);
                if row.version >= wanted || changes.changed().await.is_err() {
                    return row;
                }
            }
        };
        match tokio::time::timeout(VERSION_TIMEOUT, has).await {
            Ok(row) if row.version >= wanted => Ok(row),
            Ok(_) | Err(_) => Err(Error::Late {
                app: app.clone(),
                wanted,
                known: self.directory.sealed_secrets(app).version,
            }),
        }
    }

    /// Sets and (with `None`) removes secrets, as one change.
    ///
    /// # Errors
    /// If a name or value cannot be one, or one that is to go is not there; then none is changed.
    pub async fn set(
        &self,
        app: &directory::App,
        changes: BTreeMap<String, Option<Secret>>,
        now: Timestamp,
    ) -> Result<SealedSecrets, Error> {
        for (name, value) in &changes {
            seal::check(name, value.as_ref().map(Secret::expose))?;
        }
        let Side::Authority { keys, .. } = &*self.side else {
            return Err(Error::Elsewhere);
        };
        let (keys, directory, app) = (Arc::clone(keys), self.directory.clone(), app.clone());
        // A task of its own: the lock must be held until the row is written, whoever goes away.
        let setting = tokio::spawn(async move {
            let keys = keys.read().await;
            let owner = Owner {
                app_id: &app.id,
                app: &app.name,
            };
            let seal = |(name, value): (String, Option<Secret>)| {
                let value = value.map(|value| seal::seal(&keys, owner, &name, &value));
                (name, value)
            };
            let sealed = changes.into_iter().map(seal).collect();
            directory.change_secrets(&app.name, sealed, now).await
        });
        let set = setting.await.map_err(|error| Error::Refused {
            reason: error.to_string(),
        })?;
        Ok(set?)
    }

    /// The values of an app's secrets, of at least this version. On another host than the
    /// directory's, an app that has none is known without asking.
    ///
    /// # Errors
    /// If they are not here in time, or cannot be opened; the text says why.
    pub async fn values(
        &self,
        app: &AppName,
        min_version: Option<u64>,
    ) -> Result<AppSecrets, Error> {
        let row = self.sealed(app, min_version).await?;
        if row.secrets.is_empty() {
            return Ok(AppSecrets {
                version: row.version,
                values: BTreeMap::new(),
            });
        }
        match &*self.side {
            Side::Authority { .. } => match self.open(app, &row).await {
                // A rotation has come between the row and the keys.
                Err(Error::Open(OpenError::KeyMissing { .. })) => {
                    self.open(app, &self.directory.sealed_secrets(app)).await
                }
                opened => opened,
            },
            Side::Elsewhere { rpc } => self.ask(rpc, app, row.version).await,
        }
    }

    async fn open(&self, app: &AppName, row: &SealedSecrets) -> Result<AppSecrets, Error> {
        let keys = self.keys().await?;
        let owner = Owner {
            app_id: &row.app_id,
            app,
        };
        let opened = row.secrets.iter().map(|(name, secret)| {
            let value = seal::open(&keys, owner, name, &secret.sealed)?;
            Ok::<_, OpenError>((name.clone(), value))
        });
        Ok(AppSecrets {
            version: row.version,
            values: opened.collect::<Result<_, _>>()?,
        })
    }

    async fn ask(&self, rpc: &Rpc, app: &AppName, version: u64) -> Result<AppSecrets, Error> {
        let authority = self.directory.authority().ok_or(Error::Elsewhere)?;
        let question = OfApp {
            app: app.clone(),
            min_version: version,
        };
        let asked = rpc.call(authority, OF_APP, &question, ASK_TIMEOUT).await;
        let answer: Result<OfAppAnswer, String> =
            asked.map_err(|source| Error::Unreachable { source })?;
        let answer = answer.map_err(|reason| Error::Refused { reason })?;
        let values = answer.values.into_iter();
        Ok(AppSecrets {
            version: answer.version,
            values: values
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
        })
    }

    /// Makes (or, where keys come from outside, reads) a new key, seals every secret with it, and
    /// forgets the old ones. New secrets are sealed with it from its first moment.
    ///
    /// # Errors
    /// If a key cannot be had or kept, or a secret cannot be opened; the old keys stay then.
    pub async fn rotate_key(&self) -> Result<Rotated, Error> {
        let Side::Authority { keys, source, turn } = &*self.side else {
            return Err(Error::Elsewhere);
        };
        let _turn = turn.lock().await;
        let before = self.keys().await?;
        let next = self.blocking(&before, source, Keyring::rotated).await?;
        *keys.write().await = Arc::clone(&next);
        let mut resealed = 0;
        for row in self.directory.all_sealed_secrets() {
            resealed += self.reseal(&next, &row).await?;
        }
        // What was sealed while this went on is sealed with a key that stays.
        *keys.write().await = self.blocking(&next, source, Keyring::forget_old).await?;
        let key = next.active().id.clone();
        tracing::info!(key, resealed, "secrets have a new key");
        Ok(Rotated { key, resealed })
    }

    async fn reseal(&self, keys: &Keyring, row: &SealedSecrets) -> Result<usize, Error> {
        let Some(app) = &row.app else { return Ok(0) };
        let owner = Owner {
            app_id: &row.app_id,
            app,
        };
        let mut sealed = BTreeMap::new();
        for (name, secret) in &row.secrets {
            if secret.sealed.key != keys.active().id {
                let value = seal::open(keys, owner, name, &secret.sealed)?;
                let after = seal::seal(keys, owner, name, &value);
                sealed.insert(name.clone(), (secret.sealed.clone(), after));
            }
        }
        let count = sealed.len();
        if count > 0 {
            match self.directory.reseal_secrets(app, sealed).await {
                Ok(_) | Err(directory::Error::Refused(Refused::AppNotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    async fn blocking(
        &self,
        keys: &Arc<Keyring>,
        source: &KeySource,
        change: fn(&Keyring, &KeySource) -> Result<Keyring, KeyError>,
    ) -> Result<Arc<Keyring>, Error> {
        let (keys, source) = (Arc::clone(keys), source.clone());
        let changed = tokio::task::spawn_blocking(move || change(&keys, &source)).await;
        let changed = changed.map_err(|error| Error::Refused {
            reason: error.to_string(),
        })?;
        Ok(Arc::new(changed?))
    }
}
