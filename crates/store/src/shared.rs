//! What a backend publishes and everybody reads.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::memory::Memory;

pub(crate) struct Shared {
    memory: RwLock<Memory>,
    /// The latest durable revision; changes wake the watches. The backend holds the other end.
    pub(crate) revision: watch::Receiver<u64>,
    /// Why writes are refused at the moment.
    trouble: Mutex<Option<Arc<str>>>,
}

impl Shared {
    pub(crate) fn new(memory: Memory) -> (Arc<Self>, watch::Sender<u64>) {
        let (published, revision) = watch::channel(memory.rev());
        let shared = Self {
            memory: RwLock::new(memory),
            revision,
            trouble: Mutex::new(None),
        };
        (Arc::new(shared), published)
    }

    /// The lock is held for map operations only and a panic under it cannot leave them half done,
    /// so a poisoned lock still guards consistent data.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the backend alone.
    pub(crate) fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    pub(crate) fn set_trouble(&self, why: Option<Arc<str>>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
