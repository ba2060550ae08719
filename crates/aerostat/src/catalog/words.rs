//! What hosts say of themselves every other second: that they are there, how far their rows go,
//! and what room they have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::HostId;

use super::Position;

/// What a host has for machines, and what of it is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Hardware threads.
    pub cpus: u32,
    pub memory_mb: u64,
    pub disk_mb: u64,
    /// Thousandths of a hardware thread that nobody has been promised.
    pub free_cpu_millis: u64,
    pub free_memory_mb: u64,
    pub free_disk_mb: u64,
    /// Machines that take room now.
    pub machines: u32,
}

/// A host's word. Later ones replace earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub origin: HostId,
    pub region: String,
    /// By the clock of the host; for people. What is old is told from `said`.
    pub at: Timestamp,
    /// How far its rows go.
    pub position: Position,
    /// Grows with every word of the host, over its restarts too.
    pub said: u64,
    pub capacity: Capacity,
}

impl Word {
    /// Whether this is later than `other` of the same host. A newer epoch is another life of the
    /// host, which may have forgotten what it has said.
    fn is_later_than(&self, other: &Self) -> bool {
        (self.position.epoch, self.said) > (other.position.epoch, other.said)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) word: Word,
    /// As it was signed.
    pub(super) bytes: Bytes,
    /// When it was said, by the clock of this host.
    pub(super) at: Instant,
}

/// The last word of each host.
#[derive(Debug, Default)]
pub(super) struct Words(BTreeMap<HostId, Heard>);

impl Words {
    /// Keeps `word` if it is the latest of its host. `age`: how long it was on its way, as far as
    /// those say who passed it on.
    pub(super) fn hear(&mut self, word: Word, bytes: Bytes, age: Duration, now: Instant) -> bool {
        let origin = word.origin;
        let known = self.0.get(&origin);
        if known.is_some_and(|known| !word.is_later_than(&known.word)) {
            return false;
        }
        let at = now.checked_sub(age).unwrap_or(now);
        self.0.insert(origin, Heard { word, bytes, at });
        true
    }

    pub(super) fn age(&self, host: HostId, now: Instant) -> Option<Duration> {
        let heard = self.0.get(&host)?;
        Some(now.saturating_duration_since(heard.at))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Heard> {
        self.0.values()
    }

    pub(super) fn forget(&mut self, host: HostId) {
        self.0.remove(&host);
    }
}
