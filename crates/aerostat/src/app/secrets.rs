//! The keys of secrets, where this host has them.

use super::blocking;
use super::fleet::Fleet;
use crate::config::{Config, Paths};
use crate::secrets::{Handle, KeySource, Keyring};

/// Holds keys instead of the file.
const VARIABLE: &str = "AEROSTAT_SECRETS_KEY";

/// Opens the keys on the directory's host; another asks that one.
pub(super) async fn open(config: &Config, paths: &Paths, fleet: &Fleet) -> anyhow::Result<Handle> {
    let directory = fleet.directory.clone();
    if !fleet.identity.is_authority() {
        return Ok(Handle::elsewhere(directory, fleet.rpc.clone()));
    }
    let source = match config.secrets_key_command.as_slice() {
        [] if std::env::var_os(VARIABLE).is_some() => KeySource::Variable(VARIABLE),
        [] => KeySource::File(paths.secrets_keys()),
        words => KeySource::Command(words.to_vec()),
    };
    let from = source.clone();
    let keys = blocking(move || Keyring::load(&from)).await?;
    tracing::info!(?keys, "keys of secrets");
    Ok(Handle::authority(directory, keys, source))
}
