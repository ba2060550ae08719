//! The state in memory: an ordered map of what is, and a ring of what recently happened.
//!
//! The ring serves watches, and lists of a past revision: a state is wound back by undoing the
//! events after it, newest first, each of which carries the entry that it replaced. So no snapshot
//! has to be kept, and the history costs what its events weigh.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::RangeError;

/// Bytes of keys and values that the ring may hold on to.
const RING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Revision of the latest write.
    pub rev: u64,
    /// Revision of the creation.
    pub create_rev: u64,
    pub value: Bytes,
    /// After this time [`crate::Store::expire`] removes the key.
    pub expires_unix_s: Option<u64>,
}

/// One write. `before` is what it replaced (`None`: it created the key), `after` what it left
/// (`None`: it removed the key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub rev: u64,
    pub key: Arc<str>,
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

impl Event {
    fn weight(&self) -> usize {
        let value = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.value.len());
        self.key.len() + value(&self.before) + value(&self.after)
    }
}

/// A part of the state at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub entries: Vec<(Arc<str>, Entry)>,
    /// The revision that this is the state of.
    pub rev: u64,
    /// How many more keys there are after the last one.
    pub remaining: usize,
}

#[derive(Debug)]
pub(crate) struct Memory {
    map: BTreeMap<Arc<str>, Entry>,
    /// Contiguous: the event of revision `floor + 1 + i` is at index `i`.
    ring: VecDeque<Event>,
    ring_bytes: usize,
    ring_events_max: usize,
    rev: u64,
    floor: u64,
}

impl Memory {
    /// An empty state at revision `floor`.
    pub(crate) fn new(floor: u64, ring_events_max: usize) -> Self {
        Self {
            map: BTreeMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_events_max: ring_events_max.max(1),
            rev: floor,
            floor,
        }
    }

    /// Puts an entry from before the kept history.
    pub(crate) fn restore(&mut self, key: Arc<str>, entry: Entry) {
        debug_assert!(
            entry.rev <= self.floor,
            "an entry of the history is applied, not restored"
        );
        self.map.insert(key, entry);
    }

    pub(crate) fn rev(&self) -> u64 {
        self.rev
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.map.get(key).cloned()
    }

    /// Makes the write of the next revision visible.
    pub(crate) fn apply(&mut self, key: Arc<str>, after: Option<Entry>) {
        self.rev += 1;
        let before = match &after {
            Some(entry) => self.map.insert(key.clone(), entry.clone()),
            None => self.map.remove(&key),
        };
        let event = Event {
            rev: self.rev,
            key,
            before,
            after,
        };
        self.ring_bytes += event.weight();
        self.ring.push_back(event);
    }

    /// Forgets events that are over the limits, or not after `upto`, and returns them.
    pub(crate) fn evict(&mut self, upto: u64) -> Vec<Event> {
        let mut evicted = Vec::new();
        while let Some(oldest) = self.ring.front() {
            let over = self.ring.len() > self.ring_events_max || self.ring_bytes > RING_BYTES_MAX;
            if !over && oldest.rev > upto {
                break;
            }
            self.ring_bytes -= oldest.weight();
            self.floor = oldest.rev;
            evicted.extend(self.ring.pop_front());
        }
        evicted
    }

    /// The events after `rev`, oldest first, at most `max`; `None` if some are forgotten.
    pub(crate) fn since(&self, rev: u64, max: usize) -> Option<impl Iterator<Item = &Event>> {
        let skip = usize::try_from(rev.checked_sub(self.floor)?).ok()?;
        Some(self.ring.iter().skip(skip).take(max))
    }

    /// The keys whose expiry is at or before `now_unix_s`, with their revisions.
    pub(crate) fn expired(&self, now_unix_s: u64) -> Vec<(Arc<str>, u64)> {
        let is_due = |entry: &Entry| entry.expires_unix_s.is_some_and(|at| at <= now_unix_s);
        self.map
            .iter()
            .filter(|(_, entry)| is_due(entry))
            .map(|(key, entry)| (key.clone(), entry.rev))
            .collect()
    }

    pub(crate) fn range(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at_rev: Option<u64>,
    ) -> Result<Range, RangeError> {
        let rev = at_rev.unwrap_or(self.rev);
        if rev > self.rev {
            return Err(RangeError::Future {
                rev,
                current: self.rev,
            });
        }
        let changed = self.undo_since(rev, prefix)?;
        let start = from.filter(|from| *from > prefix).unwrap_or(prefix);
        if changed.is_empty() {
            return Ok(page(under(&self.map, start, prefix), limit, rev));
        }
        let mut past: BTreeMap<Arc<str>, Entry> = under(&self.map, start, prefix).collect();
        for (key, before) in changed {
            match before {
                Some(entry) if &*key >= start => past.insert(key, entry),
                Some(_) => None,
                None => past.remove(&key),
            };
        }
        Ok(page(past.into_iter(), limit, rev))
    }

    /// What the keys under `prefix` that changed after `rev` were at `rev`.
    fn undo_since(
        &self,
        rev: u64,
        prefix: &str,
    ) -> Result<BTreeMap<Arc<str>, Option<Entry>>, RangeError> {
        if rev < self.floor {
            return Err(RangeError::Compacted {
                rev,
                floor: self.floor,
            });
        }
        let newest_first = self.ring.iter().rev().take_while(|event| event.rev > rev);
        Ok(newest_first
            .filter(|event| event.key.starts_with(prefix))
            .map(|event| (event.key.clone(), event.before.clone()))
            .collect())
    }
}

fn under<'a>(
    map: &'a BTreeMap<Arc<str>, Entry>,
    start: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = (Arc<str>, Entry)> + 'a {
    map.range::<str, _>((Bound::Included(start), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
        .map(|(key, entry)| (key.clone(), entry.clone()))
}

fn page(mut all: impl Iterator<Item = (Arc<str>, Entry)>, limit: usize, rev: u64) -> Range {
    let entries = all.by_ref().take(limit).collect();
    Range {
        entries,
        rev,
        remaining: all.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rev: u64, value: &'static str) -> Entry {
        Entry {
            rev,
            create_rev: rev,
            value: Bytes::from_static(value.as_bytes()),
            expires_unix_s: None,
        }
    }

    fn keys(range: &Range) -> Vec<&str> {
        range.entries.iter().map(|(key, _)| &**key).collect()
    }

    #[test]
    fn a_past_revision_is_told_by_undoing_what_came_after() {
        let mut memory = Memory::new(1, 100);
        memory.apply("/a/1".into(), Some(entry(2, "x")));
        memory.apply("/a/2".into(), Some(entry(3, "y")));
        memory.apply("/a/1".into(), None);
        memory.apply("/a/2".into(), Some(entry(5, "z")));
        let past = memory.range("/a/", None, 10, Some(3)).expect("in history");
        assert_eq!(keys(&past), ["/a/1", "/a/2"]);
        assert_eq!(past.entries[1].1.value, "y");
        assert_eq!(
            keys(&memory.range("/a/", None, 10, None).expect("now")),
            ["/a/2"]
        );
        assert!(
            memory
                .range("/a/", None, 10, Some(1))
                .expect("the floor")
                .entries
                .is_empty()
        );
    }

    #[test]
    fn a_page_says_how_much_is_left() {
        let mut memory = Memory::new(1, 100);
        for (rev, key) in [(2, "/a/1"), (3, "/a/2"), (4, "/a/3"), (5, "/b/1")] {
            memory.apply(key.into(), Some(entry(rev, "v")));
        }
        let page = memory.range("/a/", Some("/a/2"), 1, None).expect("now");
        assert_eq!((keys(&page), page.remaining), (vec!["/a/2"], 1));
    }

    #[test]
    fn what_the_ring_forgot_is_compacted() {
        let mut memory = Memory::new(1, 2);
        for rev in 2..6 {
            memory.apply("/a".into(), Some(entry(rev, "v")));
            memory.evict(0);
        }
        assert_eq!(memory.floor(), 3);
        assert!(memory.since(2, 10).is_none());
        assert_eq!(memory.since(3, 10).expect("kept").count(), 2);
        let error = memory.range("/a", None, 1, Some(2)).expect_err("forgotten");
        assert_eq!(error, RangeError::Compacted { rev: 2, floor: 3 });
    }
}
