//! What is written down of a cluster.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::cluster::{ClusterName, ClusterSettings};

use super::{ClusterError, disk};
use crate::files::{private_folder, write_whole};

const FILE: &str = "cluster.json";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: ClusterName,
    /// Chosen once, since every kubeconfig has it.
    pub(super) listen: SocketAddr,
    pub(super) created_at: Timestamp,
    /// Set before anything of it is taken away.
    #[serde(default)]
    pub(super) is_deleting: bool,
    /// Those of `default` are in the host's configuration, and here as they were last used.
    #[serde(default, skip_serializing_if = "ClusterSettings::is_default")]
    pub(super) settings: ClusterSettings,
}

impl Record {
    /// That of the cluster which comes with the host. Where it listens is configured, as are its
    /// settings.
    pub(super) fn of_default(
        dir: &Path,
        listen: SocketAddr,
        settings: ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let known = read(dir)?;
        let record = Self {
            name: ClusterName::default_cluster(),
            listen,
            created_at: known.map_or_else(Timestamp::now, |known| known.created_at),
            is_deleting: false,
            settings,
        };
        record.write(dir)?;
        Ok(record)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), ClusterError> {
        private_folder(dir).map_err(disk(dir))?;
        let path = dir.join(FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(std::io::Error::other)
            .map_err(disk(&path))?;
        write_whole(&path, 0o600, &bytes).map_err(disk(&path))?;
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(disk(dir))
    }
}

/// The clusters that have a directory in `folder`, by name. One without a record was not yet made,
/// and goes.
pub(super) fn all(folder: &Path) -> Result<Vec<Record>, ClusterError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(disk(folder)(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        let dir = entry.map_err(disk(folder))?.path();
        match read(&dir)? {
            Some(record) => records.push(record),
            None => forget(&dir)?,
        }
    }
    records.sort_by(|a: &Record, b| a.name.cmp(&b.name));
    Ok(records)
}

pub(super) fn read(dir: &Path) -> Result<Option<Record>, ClusterError> {
    let path = dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let record = serde_json::from_slice(&bytes).map_err(std::io::Error::other);
            record.map(Some).map_err(disk(&path))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk(&path)(error)),
    }
}

/// Removes a cluster's data, its record last.
pub(super) fn forget(dir: &Path) -> Result<(), ClusterError> {
    let remove = || -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name() == FILE {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir_all(dir)
    };
    match remove() {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(disk(dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record {
            name: name.parse().unwrap(),
            listen: "127.0.0.1:7".parse().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            is_deleting: false,
            settings: ClusterSettings::default(),
        }
    }

    #[test]
    fn clusters_are_found_again_and_what_was_not_finished_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(all(&dir.path().join("none")).unwrap().is_empty());
        for name in ["b", "a"] {
            record(name).write(&dir.path().join(name)).unwrap();
        }
        fs::create_dir_all(dir.path().join("half/pki")).unwrap();
        let found = all(dir.path()).unwrap();
        assert_eq!(found, [record("a"), record("b")]);
        assert!(!dir.path().join("half").exists());
        forget(&dir.path().join("a")).unwrap();
        forget(&dir.path().join("a")).unwrap();
        assert_eq!(all(dir.path()).unwrap(), [record("b")]);
    }
}
