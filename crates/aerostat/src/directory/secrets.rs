//! Secrets of apps, as ciphertext: what each is called, when it changed, and what only the
//! authority can open. One row for each app, so that a change of several is one change, with one
//! version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::Set;
use tokio::sync::watch;
use types::AppName;

use super::command::{Decision, Reply};
use super::error::{Error, Refused};
use super::rows::{self, App, Rows, SECRETS, put};
use super::{Command, Handle};

/// Secrets of one app.
const SECRETS_MAX: usize = 300;
/// Ciphertexts of one app together. They have to fit one row, and one boot's specification.
const SEALED_BYTES_MAX: usize = 256 << 10;

/// A value that only its key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key it is sealed with.
    pub key: String,
    /// Nonce, ciphertext and tag, in base64.
    pub text: String,
    /// Equal for equal values of one app, and useless without the key.
    pub digest: String,
}

/// One secret of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    #[serde(flatten)]
    pub sealed: Sealed,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// All secrets of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecrets {
    pub app: Option<AppName>,
    /// The app's id: one that is made anew under the same name has none of these.
    pub app_id: String,
    /// Grows with each change.
    pub version: u64,
    pub secrets: BTreeMap<String, SealedSecret>,
}

/// Sets and (with `None`) removes secrets.
pub(super) fn change(
    rows: &Rows,
    app: &AppName,
    changes: BTreeMap<String, Option<Sealed>>,
    now: Timestamp,
) -> Result<Decision, Refused> {
    let (key, mut row) = of_app(rows, app)?;
    for (name, sealed) in changes {
        match sealed {
            Some(sealed) => {
                let known = row.secrets.get(&name);
                let created_at = known.map_or(now, |known| known.created_at);
                let secret = SealedSecret {
                    sealed,
                    created_at,
                    updated_at: now,
                };
                row.secrets.insert(name, secret);
            }
            None => {
                let missing = || Refused::SecretNotFound {
                    app: app.clone(),
                    name: name.clone(),
                };
                row.secrets.remove(&name).ok_or_else(missing)?;
            }
        }
    }
    let bytes = row.secrets.values().map(|secret| secret.sealed.text.len());
    if row.secrets.len() > SECRETS_MAX || bytes.sum::<usize>() > SEALED_BYTES_MAX {
        return Err(Refused::TooManySecrets { app: app.clone() });
    }
    row.version += 1;
    let reply = Reply::Secrets(Box::new(row.clone()));
    Ok(Decision::new(reply, [put(key, &row)]))
}

/// Puts the same values under another key. What has changed meanwhile stays as it is.
pub(super) fn reseal(
    rows: &Rows,
    app: &AppName,
    sealed: BTreeMap<String, (Sealed, Sealed)>,
) -> Result<Decision, Refused> {
    let (key, mut row) = of_app(rows, app)?;
    for (name, (before, after)) in sealed {
        if let Some(secret) = row.secrets.get_mut(&name)
            && secret.sealed == before
        {
            secret.sealed = after;
        }
    }
    let reply = Reply::Secrets(Box::new(row.clone()));
    Ok(Decision::new(reply, [put(key, &row)]))
}

fn of_app(rows: &Rows, name: &AppName) -> Result<(String, SealedSecrets), Refused> {
    let missing = || Refused::AppNotFound { name: name.clone() };
    let app: App = rows.app(name).ok_or_else(missing)?;
    let key = rows::secrets_key(name);
    let row: Option<SealedSecrets> = rows.read(&key);
    let row = row.filter(|row| row.app_id == app.id);
    let row = row.unwrap_or_else(|| SealedSecrets {
        app: Some(app.name),
        app_id: app.id,
        ..SealedSecrets::default()
    });
    Ok((key, row))
}

/// An app takes its secrets with it.
pub(super) fn remove(app: &AppName) -> Set {
    Set::remove(rows::secrets_key(app))
}

impl Handle {
    /// The secrets of an app as they are known here; none is version 0.
    pub fn sealed_secrets(&self, app: &AppName) -> SealedSecrets {
        let row: Option<SealedSecrets> = self.inner.rows.read(&rows::secrets_key(app));
        row.unwrap_or_default()
    }

    /// Of every app that has any.
    pub fn all_sealed_secrets(&self) -> Vec<SealedSecrets> {
        self.inner.rows.list(SECRETS)
    }

    /// Told whenever secrets of some app have changed here.
    pub fn secrets_changed(&self) -> watch::Receiver<u64> {
        self.inner.secrets.subscribe()
    }

    /// Sets and removes secrets of an app.
    ///
    /// # Errors
    /// If this is not the authority, or the app or a secret that is to go is not there.
    pub async fn change_secrets(
        &self,
        app: &AppName,
        changes: BTreeMap<String, Option<Sealed>>,
        now: Timestamp,
    ) -> Result<SealedSecrets, Error> {
        let app = app.clone();
        let command = Command::ChangeSecrets { app, changes, now };
        self.secrets_of(command).await
    }

    /// Replaces ciphertexts by others of the same values: before and after, by name.
    ///
    /// # Errors
    /// If this is not the authority, or there is no such app.
    pub async fn reseal_secrets(
        &self,
        app: &AppName,
        sealed: BTreeMap<String, (Sealed, Sealed)>,
    ) -> Result<SealedSecrets, Error> {
        let app = app.clone();
        self.secrets_of(Command::ResealSecrets { app, sealed })
            .await
    }

    async fn secrets_of(&self, command: Command) -> Result<SealedSecrets, Error> {
        match self.perform(command).await? {
            Reply::Secrets(row) => Ok(*row),
            _ => Err(self.mismatch()),
        }
    }
}
