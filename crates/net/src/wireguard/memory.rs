//! The time of the last initiation of keys whose peers were removed, so that a recorded one does
//! not bring them back. Bounded: the keys that were removed longest ago are forgotten.

use std::collections::{BTreeMap, HashMap};

use super::initiation::Timestamp;
use super::key::PublicKey;

/// 8 MB.
const REMEMBERED_KEYS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Memory {
    last: HashMap<PublicKey, (Timestamp, u64)>,
    /// By the order in which they came.
    order: BTreeMap<u64, PublicKey>,
    number: u64,
}

impl Memory {
    pub(super) fn last(&self, key: &PublicKey) -> Option<Timestamp> {
        self.last.get(key).map(|(timestamp, _)| *timestamp)
    }

    /// An earlier time than is known of that key changes nothing.
    pub(super) fn remember(&mut self, key: PublicKey, timestamp: Timestamp) {
        let known = self.last.get(&key).copied();
        if known.is_some_and(|(known, _)| known >= timestamp) {
            return;
        }
        if let Some((_, number)) = known {
            self.order.remove(&number);
        }
        self.number += 1;
        self.last.insert(key, (timestamp, self.number));
        self.order.insert(self.number, key);
        if self.last.len() > REMEMBERED_KEYS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
    }

    /// The one that is forgotten first comes first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PublicKey, Timestamp)> {
        let keys = self.order.values();
        keys.filter_map(|key| Some((*key, self.last(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(key)
    }

    #[test]
    fn the_latest_time_of_a_key_is_kept() {
        let mut memory = Memory::default();
        assert_eq!(memory.last(&key(1)), None);
        for time in [5, 7, 6] {
            memory.remember(key(1), Timestamp([time; 12]));
        }
        assert_eq!(memory.last(&key(1)), Some(Timestamp([7; 12])));
        assert_eq!(memory.iter().count(), 1);
    }

    #[test]
    fn what_was_learnt_longest_ago_makes_room() {
        let mut memory = Memory::default();
        for number in 0..REMEMBERED_KEYS_MAX {
            memory.remember(key(number), Timestamp([1; 12]));
        }
        // Heard again, so no longer the oldest.
        memory.remember(key(0), Timestamp([2; 12]));
        memory.remember(key(REMEMBERED_KEYS_MAX), Timestamp([1; 12]));
        assert_eq!(memory.last(&key(0)), Some(Timestamp([2; 12])));
        assert_eq!(memory.last(&key(1)), None);
        assert_eq!(memory.iter().count(), REMEMBERED_KEYS_MAX);
    }
}
