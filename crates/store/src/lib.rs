//! A revisioned key-value store with watch: what a Kubernetes API server needs from etcd.
//!
//! ```text
//!  create/update/delete ──> queue ──> writer thread: check, one transaction per batch, fsync
//!                                         │ durable
//!                                         v
//!  get/range <───────────────────────  Memory: ordered map + ring of recent events
//!  watch     <── woken, reads the ring ───┘
//! ```
//!
//! Every write gets the next revision. Compare-and-swap is decided by the one writer thread, so
//! two writers can never both win. Nothing is visible, to a reader or to a watcher, before it is
//! on disk; when the disk refuses a batch, everybody in that batch gets the error and the state is
//! as if they had never asked.
//!
//! An etcd backend will offer the same verbs; until there is one, there is no trait.

mod disk;
mod error;
mod memory;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use error::{OpenError, RangeError, WatchError, WriteError};
pub use memory::{Entry, Event, Range};
pub use watch::Watch;
pub use writer::Set;

use memory::Memory;
use writer::{Command, Op, Written};

/// Writes waiting for the disk. Far above what one batch takes; full means that the disk is slower
/// than the callers, and they wait in line.
const QUEUE_MAX: usize = 1024;

/// Where the store lives and how large it may grow.
#[derive(Debug, Clone)]
pub struct Config {
    /// The database file; its directory must exist.
    pub path: PathBuf,
    /// Upper bound of the database file. Reaching it fails writes with [`WriteError::Disk`].
    pub size_mib_max: u32,
    /// How many past revisions watches and paged lists can go back to.
    pub history_events_max: usize,
}

impl Config {
    /// The limits that fit one server: 4 GiB on disk, 4096 revisions of history.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size_mib_max: 4096,
            history_events_max: 4096,
        }
    }
}

/// A handle to the store; clones share it. The writer thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
}

/// Whether writes can be expected to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// The disk refused the latest batch; the next one may be taken.
    Refusing,
    Closed,
}

/// What the writer thread publishes to readers.
pub(crate) struct Shared {
    /// Whether the disk refused the latest batch.
    refused: AtomicBool,
    memory: RwLock<Memory>,
    /// The latest durable revision; changes wake the watches. The writer holds the other end.
    revision: tokio::sync::watch::Receiver<u64>,
}

impl Shared {
    /// The lock is held for map operations only and no code panics under it, so a poisoned lock
    /// still guards consistent data.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("rev", &self.current_rev())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the database and starts its writer thread. Blocks while it reads the
    /// state into memory.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let (disk, memory) = disk::Disk::open(config)?;
        let (published, revision) = tokio::sync::watch::channel(memory.rev());
        let shared = Arc::new(Shared {
            refused: AtomicBool::new(false),
            memory: RwLock::new(memory),
            revision,
        });
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let writer = writer::Writer::new(disk, shared.clone(), published);
        std::thread::Builder::new()
            .name("store writer".into())
            .spawn(move || writer.run(commands))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self { shared, queue })
    }

    /// Writes a key that must not exist. Returns its revision once it is durable.
    ///
    /// `expires_unix_s`: when [`Store::expire`] may remove it.
    pub async fn create(
        &self,
        key: &str,
        value: Bytes,
        expires_unix_s: Option<u64>,
    ) -> Result<u64, WriteError> {
        let op = Op::Create {
            value,
            expires_unix_s,
        };
        self.write(key, op).await.map(|written| written.rev)
    }

    /// Replaces the value of a key whose revision is `expect_rev`.
    pub async fn update(
        &self,
        key: &str,
        expect_rev: u64,
        value: Bytes,
        expires_unix_s: Option<u64>,
    ) -> Result<u64, WriteError> {
        let op = Op::Update {
            expect_rev,
            value,
            expires_unix_s,
        };
        self.write(key, op).await.map(|written| written.rev)
    }

    /// Removes a key whose revision is `expect_rev`. Returns the revision of the removal.
    pub async fn delete(&self, key: &str, expect_rev: u64) -> Result<u64, WriteError> {
        self.write(key, Op::Delete { expect_rev })
            .await
            .map(|written| written.rev)
    }

    /// Does all of `writes`, in their order and whatever the keys held before, in one transaction:
    /// on disk, and seen by readers, all together or not at all. Removing what is not there is
    /// nothing. Returns the revision of the last one (each has its own).
    ///
    /// Who decides by what it read must be the only writer of these keys.
    pub async fn transact(&self, writes: Vec<Set>) -> Result<u64, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Command::Transact { writes, reply })
            .await
            .map_err(|_| WriteError::Closed)?;
        let written = answer.await.map_err(|_| WriteError::Closed)?;
        written.map(|written| written.rev)
    }

    async fn write(&self, key: &str, op: Op) -> Result<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Write {
            key: key.into(),
            op,
            reply,
        };
        self.queue
            .send(command)
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// The durable value of a key.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.shared.memory().get(key)
    }

    /// Up to `limit` keys that begin with `prefix`, at or after `from`, in key order, as they were
    /// at revision `at_rev` (now, if `None`).
    pub fn range(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at_rev: Option<u64>,
    ) -> Result<Range, RangeError> {
        self.shared.memory().range(prefix, from, limit, at_rev)
    }

    /// Everything that happens to keys under `prefix` after revision `from_rev`.
    pub fn watch(&self, prefix: &str, from_rev: u64) -> Result<Watch, WatchError> {
        Watch::start(self.shared.clone(), prefix, from_rev)
    }

    /// The revision of the latest durable write.
    pub fn current_rev(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Whether the writer runs and the disk took the latest batch.
    pub fn health(&self) -> Health {
        if self.queue.is_closed() {
            Health::Closed
        } else if self.shared.refused.load(Ordering::Relaxed) {
            Health::Refusing
        } else {
            Health::Ok
        }
    }

    /// Forgets history up to and including `rev`: watches and lists from before it fail.
    pub async fn compact(&self, rev: u64) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Command::Compact { rev, reply })
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Removes every key whose expiry is at or before `now_unix_s`; returns how many.
    pub async fn expire(&self, now_unix_s: u64) -> Result<usize, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Command::Expire { now_unix_s, reply })
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Finishes the queued writes and closes the database. Later writes, through any clone, get
    /// [`WriteError::Closed`]; watches end.
    pub async fn close(self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Command::Close { reply }).await.is_ok() {
            // An error means that the writer has already gone.
            let _ = answer.await;
        }
    }
}
