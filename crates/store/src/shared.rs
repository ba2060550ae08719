//! What a backend publishes and everybody reads.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::memory::Memory;

pub(crate) struct Shared {
    memory: RwLock<Memory>,
    /// The latest durable revision.
    pub(crate) revision: watch::Receiver<u64>,
    /// Why writes are refused at the moment.
    trouble: Mutex<Option<Arc<str>>>,
}

/// The backend's end: who changes the state. Dropping it ends all watches.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    revision: watch::Sender<u64>,
}

impl Publisher {
    /// Changes the state, and tells those who follow what has changed.
    pub(crate) fn publish<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        let (outcome, rev, touched) = {
            let mut memory = self.shared.memory_mut();
            let outcome = change(&mut memory);
            (outcome, memory.rev(), memory.topics.take_touched())
        };
        self.revision.send_replace(rev);
        for woken in touched {
            woken.send_replace(());
        }
        outcome
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.memory_mut().topics.close();
    }
}

impl Shared {
    pub(crate) fn new(memory: Memory) -> (Arc<Self>, Publisher) {
        let (published, revision) = watch::channel(memory.rev());
        let shared = Arc::new(Self {
            memory: RwLock::new(memory),
            revision,
            trouble: Mutex::new(None),
        });
        let publisher = Publisher {
            shared: shared.clone(),
            revision: published,
        };
        (shared, publisher)
    }

    /// The lock is held for map operations only and a panic under it cannot leave them half done,
    /// so a poisoned lock still guards consistent data.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the backend alone, and for whoever begins to follow. What is to be seen goes through
    /// [`Publisher::publish`].
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
