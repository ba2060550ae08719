//! The store as the API sees it: Secrets are in the clear above it, and sealed below.

use bytes::Bytes;
use store::{Entry, Event, Range, RangeError, Store, WatchError, WriteError};
use tracing::error;

use super::{PREFIX, Secrecy, open};
use crate::metrics::Writes;

/// A store, and the keys of what it holds; clones share both. The verbs are those of [`Store`]. A
/// value that cannot be opened stays sealed, which [`super::is_sealed`] tells.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    store: Store,
    writes: Writes,
    secrecy: Option<Secrecy>,
}

/// [`store::Watch`], with its values in the clear.
#[derive(Debug)]
pub(crate) struct Watch {
    watch: store::Watch,
    secrecy: Option<Secrecy>,
}

impl Vault {
    pub(crate) fn new(store: Store, writes: Writes) -> Self {
        Self {
            store,
            writes,
            secrecy: None,
        }
    }

    pub(crate) fn with(mut self, secrecy: Secrecy) -> Self {
        self.secrecy = Some(secrecy);
        self
    }

    pub(crate) fn secrecy(&self) -> Option<&Secrecy> {
        self.secrecy.as_ref()
    }

    /// The store itself, with sealed values.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) async fn create(
        &self,
        key: &str,
        value: Bytes,
        expires_unix_s: Option<u64>,
    ) -> Result<u64, WriteError> {
        let value = self.sealed(key, value);
        let _timer = self.writes.create.start_timer();
        self.store.create(key, value, expires_unix_s).await
    }

    pub(crate) async fn update(
        &self,
        key: &str,
        expect_rev: u64,
        value: Bytes,
        expires_unix_s: Option<u64>,
    ) -> Result<u64, WriteError> {
        let value = self.sealed(key, value);
        let _timer = self.writes.update.start_timer();
        let store = &self.store;
        store.update(key, expect_rev, value, expires_unix_s).await
    }

    pub(crate) async fn delete(&self, key: &str, expect_rev: u64) -> Result<u64, WriteError> {
        let _timer = self.writes.delete.start_timer();
        self.store.delete(key, expect_rev).await
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        let mut entry = self.store.get(key)?;
        clear(self.secrecy.as_ref(), key, &mut entry);
        Some(entry)
    }

    pub(crate) fn range(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at_rev: Option<u64>,
    ) -> Result<Range, RangeError> {
        let mut range = self.store.range(prefix, from, limit, at_rev)?;
        if prefix.starts_with(PREFIX) || PREFIX.starts_with(prefix) {
            for (key, entry) in &mut range.entries {
                clear(self.secrecy.as_ref(), key, entry);
            }
        }
        Ok(range)
    }

    pub(crate) fn watch(&self, prefix: &str, from_rev: u64) -> Result<Watch, WatchError> {
        Ok(Watch {
            watch: self.store.watch(prefix, from_rev)?,
            secrecy: self.secrecy.clone(),
        })
    }

    pub(crate) fn current_rev(&self) -> u64 {
        self.store.current_rev()
    }

    /// Waits until reads here show everything that anybody was told is done.
    pub(crate) async fn sync(&self) -> Result<u64, store::SyncError> {
        self.store.sync().await
    }

    pub(crate) fn health(&self) -> store::Health {
        self.store.health()
    }

    pub(crate) async fn expire(&self, now_unix_s: u64) -> Result<usize, WriteError> {
        self.store.expire(now_unix_s).await
    }

    fn sealed(&self, key: &str, value: Bytes) -> Bytes {
        match &self.secrecy {
            Some(secrecy) if key.starts_with(PREFIX) => secrecy.seal(key, value.into()),
            Some(_) | None => value,
        }
    }
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        let mut events = self.watch.next().await?;
        for event in &mut events {
            for entry in [&mut event.before, &mut event.after].into_iter().flatten() {
                clear(self.secrecy.as_ref(), &event.key, entry);
            }
        }
        Ok(events)
    }

    pub(crate) fn position(&self) -> u64 {
        self.watch.position()
    }
}

fn clear(secrecy: Option<&Secrecy>, key: &str, entry: &mut Entry) {
    if !key.starts_with(PREFIX) {
        return;
    }
    match open(secrecy, key, &entry.value) {
        Ok(plain) => entry.value = plain,
        Err(error) => error!(key, %error, "a Secret cannot be read; restore the key file"),
    }
}
