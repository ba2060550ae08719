//! A watch: a position in the ring of recent events.
//!
//! A watch owns no queue. It is woken when the revision moves and reads the ring from where it
//! was, so a thousand watches cost a thousand positions, and a slow one cannot hold memory: when
//! the ring has moved past it, it ends with [`WatchError::Compacted`] and its owner lists again.

use std::sync::Arc;

use crate::error::WatchError;
use crate::memory::Event;
use crate::shared::Shared;

/// Events looked at under one lock.
const SCAN_MAX: usize = 512;

/// Events under a prefix, in revision order. Dropping it ends it.
pub struct Watch {
    shared: Arc<Shared>,
    revision: tokio::sync::watch::Receiver<u64>,
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
        let (floor, current) = {
            let memory = shared.memory();
            (memory.floor(), memory.rev())
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
        let revision = shared.revision.clone();
        Ok(Self {
            shared,
            revision,
            prefix: prefix.into(),
            position: from_rev,
        })
    }

    /// Everything under the prefix up to this revision has been returned. It moves on while other
    /// keys change, as long as somebody awaits [`Watch::next`].
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next events, at least one. May be dropped at any point without losing events.
    pub async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            // Marked as seen before reading, so that a write in between wakes the wait below.
            let current = *self.revision.borrow_and_update();
            while self.position < current {
                let events = self.scan()?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
            self.revision
                .changed()
                .await
                .map_err(|_| WatchError::Closed)?;
        }
    }

    fn scan(&mut self) -> Result<Vec<Event>, WatchError> {
        let memory = self.shared.memory();
        let compacted = WatchError::Compacted {
            rev: self.position,
            floor: memory.floor(),
        };
        let mut events = Vec::new();
        let (mut position, mut seen) = (self.position, 0);
        for event in memory.since(self.position, SCAN_MAX).ok_or(compacted)? {
            position = event.rev;
            seen += 1;
            if event.key.starts_with(&*self.prefix) {
                events.push(event.clone());
            }
        }
        // Revisions without an event: somebody else's, or one that only tells that time passes.
        self.position = if seen < SCAN_MAX {
            memory.rev()
        } else {
            position
        };
        Ok(events)
    }
}
