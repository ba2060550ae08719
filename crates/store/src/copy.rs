//! Taking the state elsewhere: backups, and from one backend to the other.
//!
//! A backup is a database like any other, without history. What comes out of a backup, and what
//! arrives at another backend, goes on at a revision above all that its clients can have seen, so
//! that they are told to list again instead of being shown a past that they know better.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Location};
use crate::error::{CopyError, OpenError};
use crate::memory::{Entry, Memory};
use crate::sqlite::Disk;
use crate::{Store, etcd};

/// How many revisions a backup may be behind what its clients have seen.
const RESTORE_REVISIONS: u64 = 1_000_000_000;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The revision that the copy is of, or goes on from.
    pub rev: u64,
    pub keys: usize,
}

/// A state without its history.
pub(crate) struct Snapshot {
    pub(crate) rev: u64,
    pub(crate) entries: Vec<(Arc<str>, Entry)>,
}

impl From<&Memory> for Snapshot {
    fn from(memory: &Memory) -> Self {
        Self {
            rev: memory.rev(),
            entries: memory.all(),
        }
    }
}

impl Store {
    /// Writes the present state to one file, which must not be there yet, while the store goes on.
    /// The file appears whole or not at all.
    pub async fn backup(&self, path: &Path) -> Result<Copied, CopyError> {
        let shared = self.shared.clone();
        let path = path.to_owned();
        blocking(move || {
            let snapshot = Snapshot::from(&*shared.memory());
            write_file(&path, &snapshot)
        })
        .await
    }
}

/// Makes the state of a backup the state at `to`. A database file that is there is kept under
/// another name, which is returned; an etcd must have nothing under the prefix.
pub async fn restore(backup: &Path, to: &Location) -> Result<(Copied, Option<PathBuf>), CopyError> {
    let from = backup.to_owned();
    let mut snapshot = blocking(move || Ok(Snapshot::from(&Disk::read(&from)?))).await?;
    match to {
        Location::Sqlite(config) => {
            let config = config.clone();
            blocking(move || replace_file(&config, snapshot)).await
        }
        Location::Etcd(config) => {
            snapshot.rev += RESTORE_REVISIONS;
            Ok((etcd::fill(config, snapshot).await?, None))
        }
    }
}

/// Copies the state at `from`, which nobody may be writing to, to `to`, where there must be none.
pub async fn migrate(from: &Location, to: &Location) -> Result<Copied, CopyError> {
    let store = Store::open_at(from).await?;
    let snapshot = Snapshot::from(&*store.shared.memory());
    let copied = match to {
        Location::Sqlite(config) => {
            let path = config.path.clone();
            blocking(move || write_file(&path, &snapshot)).await
        }
        Location::Etcd(config) => etcd::fill(config, snapshot).await,
    };
    store.close().await;
    copied
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| CopyError::Interrupted { source })?
}

fn write_file(path: &Path, snapshot: &Snapshot) -> Result<Copied, CopyError> {
    if path.exists() {
        return Err(CopyError::Exists {
            path: path.to_owned(),
        });
    }
    let partial = beside(path, "partial");
    let failed = |source| CopyError::File {
        path: path.to_owned(),
        source,
    };
    // Left by one that was interrupted.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let written = Disk::write(&partial, snapshot.rev, &snapshot.entries)
        .map_err(CopyError::from)
        .and_then(|()| fs::rename(&partial, path).map_err(failed))
        .and_then(|()| sync_directory(path).map_err(failed));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.map(|()| Copied {
        rev: snapshot.rev,
        keys: snapshot.entries.len(),
    })
}

fn replace_file(
    config: &Config,
    mut snapshot: Snapshot,
) -> Result<(Copied, Option<PathBuf>), CopyError> {
    let path = &config.path;
    let aside = if path.exists() {
        let present = match Disk::open(config) {
            Ok((_, loaded)) => loaded.memory.rev(),
            // It may be the reason for the restore.
            Err(OpenError::Damaged { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        snapshot.rev = snapshot.rev.max(present);
        Some(set_aside(path)?)
    } else {
        None
    };
    snapshot.rev += RESTORE_REVISIONS;
    Ok((write_file(path, &snapshot)?, aside))
}

/// Renames a database and its log under a name that is free.
fn set_aside(path: &Path) -> Result<PathBuf, CopyError> {
    let names = (1..).map(|number| beside(path, &format!("replaced-{number}")));
    let aside = names
        .into_iter()
        .find(|name| !name.exists())
        .unwrap_or_else(|| beside(path, "replaced"));
    let rename = |from: PathBuf, to: PathBuf| match fs::rename(&from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| CopyError::File { path: from, source }),
    };
    // The log first: a database without its log is older, a log with another database is damage.
    rename(with_suffix(path, "-wal"), with_suffix(&aside, "-wal"))?;
    rename(path.to_owned(), aside.clone())?;
    Ok(aside)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    with_suffix(path, &format!(".{what}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}
