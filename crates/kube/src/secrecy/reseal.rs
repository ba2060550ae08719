//! Writes again what is plain, or sealed with a key that is on its way out.

use std::time::Duration;

use store::{Store, WriteError};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{PREFIX, Secrecy, open};
use crate::api::Api;

/// How often the key file is looked at; upstream looks once a minute.
const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// Secrets read in one go.
const PAGE: usize = 100;

/// Reseals at the start and whenever the key file has changed, until the token is cancelled.
pub async fn run(api: Api, shutdown: CancellationToken) {
    let Some(secrecy) = api.secrecy().cloned() else {
        return;
    };
    let work = async {
        let mut due = true;
        loop {
            if due {
                due = !settled(reseal(api.store(), &secrecy).await);
            }
            tokio::time::sleep(RELOAD_EVERY).await;
            match secrecy.reload() {
                Ok(changed) => due |= changed,
                Err(error) => warn!(%error, "keys of Secrets not read again; the old ones stay"),
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Whether there is nothing left to do.
fn settled(outcome: Result<Outcome, store::RangeError>) -> bool {
    match outcome {
        Ok(outcome) => {
            if outcome.resealed > 0 {
                info!(
                    secrets = outcome.resealed,
                    "secrets encrypted with the present key"
                );
            }
            outcome.failed == 0
        }
        Err(error) => {
            warn!(%error, "secrets not read for encryption; tried again");
            false
        }
    }
}

/// What a pass over all Secrets did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub resealed: usize,
    /// Those that cannot be opened, or were not written.
    pub failed: usize,
}

/// Goes over all Secrets once. A Secret that somebody writes in the meantime is sealed by that.
pub async fn reseal(store: &Store, secrecy: &Secrecy) -> Result<Outcome, store::RangeError> {
    let (mut from, mut outcome) = (None::<String>, Outcome::default());
    loop {
        let page = store.range(PREFIX, from.as_deref(), PAGE, None)?;
        for (key, entry) in &page.entries {
            if secrecy.is_current(&entry.value) {
                continue;
            }
            let plain = match open(Some(secrecy), key, &entry.value) {
                Ok(plain) => plain,
                Err(error) => {
                    error!(%key, %error, "a Secret cannot be read; restore the key file");
                    outcome.failed += 1;
                    continue;
                }
            };
            let sealed = secrecy.seal(key, plain.to_vec());
            let expires = entry.expires_unix_s;
            match store.update(key, entry.rev, sealed, expires).await {
                Ok(_) => outcome.resealed += 1,
                Err(WriteError::Conflict { .. } | WriteError::NotFound { .. }) => {}
                Err(error) => {
                    warn!(%key, %error, "a Secret was not encrypted; tried again");
                    outcome.failed += 1;
                }
            }
        }
        match page.entries.last() {
            Some((last, _)) if page.remaining > 0 => from = Some(format!("{last}\0")),
            _ => return Ok(outcome),
        }
    }
}
