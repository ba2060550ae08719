//! What can go wrong, one type per operation.

use std::path::PathBuf;
use std::sync::Arc;

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the database {path}")]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot open the database {path}; is another process using it?")]
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot read the database {path}")]
    Load {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("database {path} has format {found}, this program knows format {known}")]
    Format {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("cannot start the writer thread of the store")]
    Thread { source: std::io::Error },
}

/// Why a write was not done. Nothing of it is visible or durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    #[error("key {key} exists already")]
    Exists { key: Arc<str> },
    #[error("key {key} does not exist")]
    NotFound { key: Arc<str> },
    #[error("key {key} is at revision {actual_rev}, not at {expect_rev}")]
    Conflict {
        key: Arc<str>,
        expect_rev: u64,
        actual_rev: u64,
    },
    /// The disk is full or broken, or the size limit is reached. One failure refuses a whole
    /// batch, hence the shared source.
    #[error("cannot write to the database")]
    Disk { source: Arc<rusqlite::Error> },
    #[error("the store is closed")]
    Closed,
}

/// Why a list of an earlier revision cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("revision {rev} is older than the kept history, which begins at {floor}")]
    Compacted { rev: u64, floor: u64 },
    #[error("revision {rev} is in the future; the store is at {current}")]
    Future { rev: u64, current: u64 },
}

/// Why a watch did not start, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Also what a watcher gets that reads too slowly to keep up with the ring.
    #[error("revision {rev} is older than the kept history, which begins at {floor}")]
    Compacted { rev: u64, floor: u64 },
    #[error("revision {rev} is in the future; the store is at {current}")]
    Future { rev: u64, current: u64 },
    #[error("the store is closed")]
    Closed,
}
