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
    #[error("the database {path} is locked by another process; stop that one first")]
    Locked { path: PathBuf },
    #[error("cannot open the database {path}")]
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot read the database {path}")]
    Load {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(
        "the database {path} is damaged ({found}); move it and its -wal file aside and restore a \
         backup"
    )]
    Damaged { path: PathBuf, found: String },
    #[error("database {path} has format {found}, this program knows format {known}")]
    Format {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("cannot start the writer thread of the store")]
    Thread { source: std::io::Error },
    #[error("no endpoint of etcd is configured")]
    NoEndpoint,
    #[error("cannot use {endpoint} as an endpoint of etcd")]
    Endpoint {
        endpoint: String,
        source: tonic::transport::Error,
    },
    #[error("cannot read {path}, which is to secure the connection to etcd")]
    TlsFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("a copy to {prefix} in etcd was interrupted; make it again")]
    Incomplete { prefix: String },
    #[error("cannot read the state from etcd at {endpoints}")]
    Etcd {
        endpoints: String,
        source: EtcdError,
    },
}

/// Why a write was not done, or not known to be.
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
    /// The disk is full or broken, the size limit is reached, or etcd refuses. Nobody sees anything
    /// of the write; if the process dies before the next write succeeds, it may turn up after the
    /// restart. One failure refuses a whole batch, hence the shared source.
    #[error("cannot write to the database")]
    Disk { source: Arc<Cause> },
    /// The connection failed after the write was sent. Reading tells which it was.
    #[error("it is not known whether the write was done")]
    Unknown { source: Arc<Cause> },
    #[error("a transaction of {writes} writes; etcd takes {max}")]
    TooMany { writes: usize, max: usize },
    #[error("the store is closed")]
    Closed,
}

/// What a backend says about a failed write.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("no space is left where {path} is; free some, and writing goes on by itself")]
    NoSpace {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("the database has reached its limit of {mib} MiB; remove something or raise the limit")]
    Limit { mib: u32 },
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Why a call to etcd failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    #[error("etcd cannot be reached: {message}")]
    Unreachable { message: String },
    #[error("etcd did not answer within {after_ms} ms")]
    Timeout { after_ms: u128 },
    #[error("etcd refused: {message} ({code:?})")]
    Answer { code: tonic::Code, message: String },
}

impl EtcdError {
    /// Whether the same call can be expected to succeed later or elsewhere.
    pub(crate) fn may_pass(&self) -> bool {
        use tonic::Code;
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Answer { code, .. } => matches!(
                code,
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded
            ),
        }
    }

    /// Whether a write that ended like this was certainly not done.
    pub(crate) fn is_definite(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Timeout { .. } => false,
            Self::Answer { .. } => !self.may_pass(),
        }
    }
}

/// Why a backup, a restore or a migration was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{path} is there already and is not written over")]
    Exists { path: PathBuf },
    #[error("there are keys under {prefix} in etcd already")]
    NotEmpty { prefix: String },
    #[error("cannot write {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write to etcd")]
    Etcd {
        #[from]
        source: EtcdError,
    },
    #[error("copying was interrupted")]
    Interrupted { source: tokio::task::JoinError },
}

/// Why the latest state cannot be told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    #[error("cannot ask etcd for its latest revision")]
    Etcd { source: EtcdError },
    #[error("revision {rev} did not arrive within {after_ms} ms; the store is at {current}")]
    Late {
        rev: u64,
        current: u64,
        after_ms: u128,
    },
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
