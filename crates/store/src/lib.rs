//! A revisioned key-value store with watch: what a Kubernetes API server needs from etcd.
//!
//! ```text
//!  create/update/delete ──> backend (SQLite or etcd): compare, make durable
//!                              │ durable
//!                              v
//!  get/range <───────────── Memory: ordered map + ring of recent events
//!  watch     <── woken, reads the ring ─┘
//! ```
//!
//! Every write gets a revision above all earlier ones. Nothing is visible, to a reader or to a
//! watcher, before it is durable, and reads never wait: both backends keep the state in memory.
//! With SQLite this process is the only one and memory is always current. With etcd others write
//! too, and a reader who must see what they were told calls [`Store::sync`] first.

mod config;
mod copy;
mod error;
mod etcd;
mod memory;
mod shared;
mod sqlite;
mod topics;
mod watch;
mod write;

use std::sync::Arc;

use bytes::Bytes;

pub use config::{Config, EtcdConfig, EtcdTls, Location};
pub use copy::{Copied, migrate, restore};
pub use error::{
    Cause, CopyError, EtcdError, OpenError, RangeError, SyncError, WatchError, WriteError,
};
pub use memory::{Entry, Event, History, Range};
pub use watch::Watch;
pub use write::Set;

use etcd::Etcd;
use shared::Shared;
use sqlite::Sqlite;
use write::Op;

/// A handle to the store; clones share it. Its background work ends when the last clone is gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Sqlite(Sqlite),
    Etcd(Box<Etcd>),
}

/// Whether writes can be expected to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// The backend refused the latest write; the next one may be taken. [`Store::trouble`] says
    /// why.
    Refusing,
    Closed,
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
        let (sqlite, shared) = Sqlite::open(config)?;
        let backend = Backend::Sqlite(sqlite);
        Ok(Self { shared, backend })
    }

    /// Reads the state from an etcd and follows it. The present runtime must live as long as the
    /// store.
    pub async fn open_etcd(config: &EtcdConfig) -> Result<Self, OpenError> {
        let (etcd, shared) = Etcd::open(config).await?;
        let backend = Backend::Etcd(Box::new(etcd));
        Ok(Self { shared, backend })
    }

    /// Opens the store wherever it is. Blocks for a database file.
    pub async fn open_at(location: &Location) -> Result<Self, OpenError> {
        match location {
            Location::Sqlite(config) => Self::open(config),
            Location::Etcd(config) => Self::open_etcd(config).await,
        }
    }

    /// Writes a key that must not exist. Returns its revision once it is durable.
    ///
    /// `expires_unix_s`: when it may be removed (etcd: up to a minute later).
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
        self.write(key, op).await
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
        self.write(key, op).await
    }

    /// Removes a key whose revision is `expect_rev`. Returns the revision of the removal.
    pub async fn delete(&self, key: &str, expect_rev: u64) -> Result<u64, WriteError> {
        self.write(key, Op::Delete { expect_rev }).await
    }

    async fn write(&self, key: &str, op: Op) -> Result<u64, WriteError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.write(key, op).await,
            Backend::Etcd(etcd) => etcd.write(key, op).await,
        }
    }

    /// Does all of `writes`, in their order and whatever the keys held before, in one transaction:
    /// durable, and seen by readers, all together or not at all. Removing what is not there is
    /// nothing. Returns the revision of the last one (etcd gives all of them the same).
    ///
    /// Who decides by what it read must be the only writer of these keys.
    pub async fn transact(&self, writes: Vec<Set>) -> Result<u64, WriteError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.transact(writes).await,
            Backend::Etcd(etcd) => etcd.transact(writes).await,
        }
    }

    /// Waits until reads show every write that anybody was told is done. Returns a revision that
    /// they show at least. A store that nobody else writes to is always there.
    pub async fn sync(&self) -> Result<u64, SyncError> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(self.current_rev()),
            Backend::Etcd(etcd) => etcd.sync().await,
        }
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

    /// The latest revision that reads show.
    pub fn current_rev(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Whether the backend runs and took the latest write.
    pub fn health(&self) -> Health {
        let is_closed = match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.is_closed(),
            Backend::Etcd(etcd) => etcd.is_closed(),
        };
        match self.trouble() {
            _ if is_closed => Health::Closed,
            Some(_) => Health::Refusing,
            None => Health::Ok,
        }
    }

    /// Why writes are refused at the moment, for a person to read.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.shared.trouble()
    }

    /// Forgets history up to and including `rev`: watches and lists from before it fail.
    pub async fn compact(&self, rev: u64) -> Result<(), WriteError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.compact(rev).await,
            Backend::Etcd(etcd) => etcd.compact(rev).await,
        }
    }

    /// Removes every key whose expiry is at or before `now_unix_s`; returns how many. etcd does it
    /// by itself.
    pub async fn expire(&self, now_unix_s: u64) -> Result<usize, WriteError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.expire(now_unix_s).await,
            Backend::Etcd(_) => Ok(0),
        }
    }

    /// Finishes the queued writes and closes the database. Later writes, through any clone, get
    /// [`WriteError::Closed`]; watches end.
    pub async fn close(self) {
        match self.backend {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Etcd(etcd) => etcd.close().await,
        }
    }
}
