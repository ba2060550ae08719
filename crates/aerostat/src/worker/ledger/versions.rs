//! Earlier configurations of machines, each under the version that it made.

use rusqlite::{Transaction, params};
use types::machine::MachineConfig;
use types::{MachineId, VersionId};

use super::super::check::CheckedConfig;
use super::LedgerError;
use super::tables::{Tables, json};

/// Configurations kept of one machine beside the one that it has.
pub(crate) const VERSIONS_MAX: usize = 49;

/// A configuration that a machine had until now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retired {
    pub(crate) version: VersionId,
    pub(crate) config: std::sync::Arc<CheckedConfig>,
}

pub(super) fn retire(
    transaction: &Transaction<'_>,
    machine: &MachineId,
    retired: &Retired,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO versions (machine, version, body) VALUES (?, ?, ?)",
        params![
            machine.as_str(),
            retired.version.as_str(),
            json(&*retired.config)
        ],
    )?;
    transaction.execute(
        "DELETE FROM versions WHERE machine = ?1 AND version <= (SELECT version FROM versions \
         WHERE machine = ?1 ORDER BY version DESC LIMIT 1 OFFSET ?2)",
        params![
            machine.as_str(),
            u64::try_from(VERSIONS_MAX).unwrap_or(u64::MAX)
        ],
    )?;
    Ok(())
}

impl Tables {
    /// The configurations that a machine had, newest first.
    pub(super) fn versions(
        &self,
        id: &MachineId,
    ) -> Result<Vec<(VersionId, MachineConfig)>, LedgerError> {
        let failed = self.failed("read");
        let mut query = self
            .connection
            .prepare("SELECT version, body FROM versions WHERE machine = ? ORDER BY version DESC")
            .map_err(&failed)?;
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let rows = query.query_map([id.as_str()], read).map_err(&failed)?;
        let mut versions = Vec::new();
        for row in rows {
            let (version, body) = row.map_err(&failed)?;
            let config = serde_json::from_str(&body).map_err(|source| LedgerError::Row {
                machine: id.to_string(),
                source,
            })?;
            // Only versions are written there.
            if let Ok(version) = version.parse() {
                versions.push((version, config));
            }
        }
        Ok(versions)
    }
}
