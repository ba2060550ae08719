//! A watch: a position in the ring of recent events.
//!
//! A watch owns no queue. It is woken when something happens under its prefix and reads the ring
//! from where it was, so a thousand watches cost a thousand positions, and a slow one cannot hold
//! memory: when the ring has lost what it has not seen, it ends with [`WatchError::Compacted`] and
//! its owner lists again.

use std::sync::Arc;

use crate::error::WatchError;
use crate::memory::Event;
use crate::shared::Shared;

/// Events taken under one lock.
const SCAN_MAX: usize = 512;

/// Events under a prefix, in revision order. Dropping it ends it.
pub struct Watch {
    shared: Arc<Shared>,
    woken: tokio::sync::watch::Receiver<()>,
    prefix: Box<str>,
    position: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("prefix", &self.prefix)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn start(
        shared: Arc<Shared>,
        prefix: &str,
        from_rev: u64,
    ) -> Result<Self, WatchError> {
        let (floor, current, woken) = {
            let mut memory = shared.memory_mut();
            (memory.floor(), memory.rev(), memory.subscribe(prefix))
        };
        if from_rev < floor {
            return Err(WatchError::Compacted {
                rev: from_rev,
                floor,
            });
        }
        if from_rev > current {
            return Err(WatchError::Future {
                rev: from_rev,
                current,
            });
        }
        Ok(Self {
            shared,
            woken,
            prefix: prefix.into(),
            position: from_rev,
        })
    }

    /// Everything under the prefix up to this revision has been returned. It moves on while other
    /// keys change.
    pub fn position(&self) -> u64 {
        self.shared.memory().seen(&self.prefix, self.position)
    }

    /// The next events, at least one. May be dropped at any point without losing events.
    pub async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            // Marked as seen before reading, so that a write in between wakes the wait below.
            self.woken.borrow_and_update();
            let events = self.scan()?;
            if !events.is_empty() {
                return Ok(events);
            }
            let changed = self.woken.changed().await;
            changed.map_err(|_| WatchError::Closed)?;
        }
    }

    fn scan(&mut self) -> Result<Vec<Event>, WatchError> {
        let memory = self.shared.memory();
        let news = memory.since(&self.prefix, self.position, SCAN_MAX);
        let news = news.ok_or_else(|| WatchError::Compacted {
            rev: self.position,
            floor: memory.floor(),
        })?;
        self.position = news.position;
        Ok(news.events)
    }
}
