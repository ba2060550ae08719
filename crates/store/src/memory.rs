//! The state in memory: an ordered map of what is, and a ring of what recently happened.
//!
//! The ring serves watches, and lists of a past revision: a state is wound back by undoing the
//! events after it, newest first, each of which carries the entry that it replaced. So no snapshot
//! has to be kept, and the history costs what its events weigh.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::RangeError;
use crate::topics::Topics;

/// How far back watches and lists of a past revision can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// This many events are kept however old they are.
    pub events_min: usize,
    /// Events are kept for this long.
    pub age_min: Duration,
    /// Keys and values that the kept events may hold on to. It wins over the other two, because
    /// memory that a burst of writes can grow without end ends with no store at all.
    pub bytes_max: usize,
}

impl Default for History {
    /// What clients of an API server rely on: five minutes and a thousand writes, in 16 MiB.
    fn default() -> Self {
        Self {
            events_min: 1000,
            age_min: Duration::from_secs(300),
            bytes_max: 16 * 1024 * 1024,
        }
    }
}

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
    /// Who goes when, soonest first.
    expiries: BTreeSet<(u64, Arc<str>)>,
    /// In revision order; one revision may have several events, and some have none.
    ring: VecDeque<Kept>,
    ring_bytes: usize,
    history: History,
    rev: u64,
    floor: u64,
    /// What is watched.
    pub(crate) topics: Topics,
}

/// What happened under a prefix.
pub(crate) struct News {
    pub(crate) events: Vec<Event>,
    /// Everything up to this revision is in it.
    pub(crate) position: u64,
}

#[derive(Debug)]
struct Kept {
    event: Event,
    since: Instant,
}

impl Memory {
    /// An empty state at revision `floor`.
    pub(crate) fn new(floor: u64, history: History) -> Self {
        Self {
            map: BTreeMap::new(),
            expiries: BTreeSet::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            history,
            rev: floor,
            floor,
            topics: Topics::default(),
        }
    }

    /// Puts what a key held before the kept history, and returns what it held before that.
    pub(crate) fn restore(&mut self, key: Arc<str>, entry: Option<Entry>) -> Option<Entry> {
        debug_assert!(
            entry.as_ref().is_none_or(|entry| entry.rev <= self.floor),
            "an entry of the history is applied, not restored"
        );
        self.put(&key, entry)
    }

    fn put(&mut self, key: &Arc<str>, after: Option<Entry>) -> Option<Entry> {
        let expires_unix_s = after.as_ref().and_then(|entry| entry.expires_unix_s);
        let before = match after {
            Some(entry) => self.map.insert(key.clone(), entry),
            None => self.map.remove(key),
        };
        if let Some(at) = before.as_ref().and_then(|entry| entry.expires_unix_s) {
            self.expiries.remove(&(at, key.clone()));
        }
        if let Some(at) = expires_unix_s {
            self.expiries.insert((at, key.clone()));
        }
        before
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

    /// The revision of what a key holds.
    pub(crate) fn rev_of(&self, key: &str) -> Option<u64> {
        self.map.get(key).map(|entry| entry.rev)
    }

    /// All that is, in key order.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Entry)> {
        self.map
            .iter()
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// Makes a write visible. Revisions never go back.
    pub(crate) fn apply(&mut self, rev: u64, key: Arc<str>, after: Option<Entry>, now: Instant) {
        assert!(rev >= self.rev, "revision {rev} after {}", self.rev);
        self.rev = rev;
        let before = self.put(&key, after.clone());
        self.topics.note(&key, rev);
        let event = Event {
            rev,
            key,
            before,
            after,
        };
        self.ring_bytes += event.weight();
        self.ring.push_back(Kept { event, since: now });
    }

    /// Nothing happened up to `rev` beyond what was applied.
    pub(crate) fn advance(&mut self, rev: u64) {
        self.rev = self.rev.max(rev);
    }

    /// Takes over a state whose history is not known. What was watched from before must be listed
    /// again.
    pub(crate) fn replace(&mut self, rev: u64, entries: Vec<(Arc<str>, Entry)>) {
        assert!(rev >= self.rev, "revision {rev} after {}", self.rev);
        let mut topics = std::mem::take(&mut self.topics);
        topics.forget_all(rev);
        *self = Self::new(rev, self.history.clone());
        self.topics = topics;
        for (key, entry) in entries {
            self.put(&key, Some(entry));
        }
    }

    /// Forgets what the history need not keep, and everything up to `upto`, and returns it.
    pub(crate) fn evict(&mut self, upto: u64, now: Instant) -> Vec<Event> {
        let mut evicted = Vec::new();
        while let Some(Kept { event, since }) = self.ring.front() {
            let history = &self.history;
            let due = self.ring.len() > history.events_min
                && now.saturating_duration_since(*since) >= history.age_min;
            if !due && self.ring_bytes <= history.bytes_max && event.rev > upto {
                break;
            }
            self.ring_bytes -= event.weight();
            self.floor = event.rev;
            self.topics.forget(&event.key, event.rev);
            evicted.extend(self.ring.pop_front().map(|kept| kept.event));
        }
        self.floor = self.floor.max(upto.min(self.rev));
        evicted
    }

    /// Follows a prefix: the receiver changes when there is something new under it.
    pub(crate) fn subscribe(&mut self, prefix: &str) -> watch::Receiver<()> {
        let ring = &self.ring;
        self.topics.subscribe(prefix, self.floor, || {
            let under = ring.iter().map(|kept| &kept.event);
            let under = under.filter(|event| event.key.starts_with(prefix));
            let mut revs: Vec<_> = under.map(|event| event.rev).collect();
            revs.dedup();
            revs.into()
        })
    }

    /// The events under a prefix that is followed after `rev`, oldest first, about `max` of them
    /// and never a part of a revision; `None` if some are forgotten.
    pub(crate) fn since(&self, prefix: &str, rev: u64, max: usize) -> Option<News> {
        let topic = self.topics.get(prefix)?;
        let (mut events, mut position) = (Vec::new(), self.rev);
        let mut at = 0;
        for rev in topic.since(rev)? {
            if events.len() >= max {
                break;
            }
            if self.ring.get(at).is_none_or(|kept| kept.event.rev != rev) {
                at = self.ring.partition_point(|kept| kept.event.rev < rev);
            }
            while let Some(Kept { event, .. }) =
                self.ring.get(at).filter(|kept| kept.event.rev == rev)
            {
                if event.key.starts_with(prefix) {
                    events.push(event.clone());
                }
                at += 1;
            }
            position = rev;
        }
        if events.len() < max {
            position = self.rev;
        }
        Some(News { events, position })
    }

    /// The revision up to which somebody who has seen everything under `prefix` up to `rev` has
    /// seen everything.
    pub(crate) fn seen(&self, prefix: &str, rev: u64) -> u64 {
        match self.topics.get(prefix) {
            Some(topic) if topic.is_quiet_since(rev) => self.rev,
            Some(_) | None => rev,
        }
    }

    /// The keys whose expiry is at or before `now_unix_s`.
    pub(crate) fn expired(&self, now_unix_s: u64) -> Vec<Arc<str>> {
        self.expiries
            .iter()
            .take_while(|(at, _)| *at <= now_unix_s)
            .map(|(_, key)| key.clone())
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
        let mut past: BTreeMap<&Arc<str>, &Entry> = under(&self.map, start, prefix).collect();
        for (key, before) in changed {
            match before {
                Some(entry) if &**key >= start => past.insert(key, entry),
                Some(_) => None,
                None => past.remove(key),
            };
        }
        Ok(page(past.into_iter(), limit, rev))
    }

    /// What the keys under `prefix` that changed after `rev` were at `rev`.
    fn undo_since(
        &self,
        rev: u64,
        prefix: &str,
    ) -> Result<BTreeMap<&Arc<str>, Option<&Entry>>, RangeError> {
        if rev < self.floor {
            return Err(RangeError::Compacted {
                rev,
                floor: self.floor,
            });
        }
        let newest_first = self.ring.iter().rev().map(|kept| &kept.event);
        Ok(newest_first
            .take_while(|event| event.rev > rev)
            .filter(|event| event.key.starts_with(prefix))
            .map(|event| (&event.key, event.before.as_ref()))
            .collect())
    }
}

fn under<'a>(
    map: &'a BTreeMap<Arc<str>, Entry>,
    start: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> + 'a {
    map.range::<str, _>((Bound::Included(start), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

fn page<'a>(
    mut all: impl Iterator<Item = (&'a Arc<str>, &'a Entry)>,
    limit: usize,
    rev: u64,
) -> Range {
    let entries = all
        .by_ref()
        .take(limit)
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    Range {
        entries,
        rev,
        remaining: all.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(events_min: usize) -> Memory {
        let history = History {
            events_min,
            age_min: Duration::ZERO,
            ..History::default()
        };
        Memory::new(1, history)
    }

    fn put(memory: &mut Memory, rev: u64, key: &str, value: Option<&'static str>) {
        let after = value.map(|value| Entry {
            rev,
            create_rev: rev,
            value: Bytes::from_static(value.as_bytes()),
            expires_unix_s: None,
        });
        memory.apply(rev, key.into(), after, Instant::now());
    }

    fn keys(range: &Range) -> Vec<&str> {
        range.entries.iter().map(|(key, _)| &**key).collect()
    }

    #[test]
    fn a_past_revision_is_told_by_undoing_what_came_after() {
        let mut memory = memory(100);
        put(&mut memory, 2, "/a/1", Some("x"));
        put(&mut memory, 3, "/a/2", Some("y"));
        put(&mut memory, 4, "/a/1", None);
        put(&mut memory, 5, "/a/2", Some("z"));
        let past = memory.range("/a/", None, 10, Some(3)).expect("in history");
        assert_eq!(keys(&past), ["/a/1", "/a/2"]);
        assert_eq!(past.entries[1].1.value, "y");
        let now = memory.range("/a/", None, 10, None).expect("now");
        assert_eq!(keys(&now), ["/a/2"]);
        let floor = memory.range("/a/", None, 10, Some(1)).expect("the floor");
        assert!(floor.entries.is_empty());
    }

    #[test]
    fn a_page_says_how_much_is_left() {
        let mut memory = memory(100);
        for (rev, key) in [(2, "/a/1"), (3, "/a/2"), (4, "/a/3"), (5, "/b/1")] {
            put(&mut memory, rev, key, Some("v"));
        }
        let page = memory.range("/a/", Some("/a/2"), 1, None).expect("now");
        assert_eq!((keys(&page), page.remaining), (vec!["/a/2"], 1));
    }

    #[test]
    fn what_the_ring_forgot_is_compacted() {
        let mut memory = memory(2);
        let _woken = memory.subscribe("/a");
        for rev in 2..6 {
            put(&mut memory, rev, "/a", Some("v"));
            memory.evict(0, Instant::now());
        }
        assert_eq!(memory.floor(), 3);
        assert!(memory.since("/a", 2, 10).is_none());
        assert_eq!(memory.since("/a", 3, 10).expect("kept").events.len(), 2);
        let error = memory.range("/a", None, 1, Some(2)).expect_err("forgotten");
        assert_eq!(error, RangeError::Compacted { rev: 2, floor: 3 });
    }

    #[test]
    fn history_is_kept_for_its_time_and_within_its_bytes() {
        let history = History {
            events_min: 1,
            age_min: Duration::from_secs(300),
            bytes_max: 1000,
        };
        let mut memory = Memory::new(1, history);
        let begin = Instant::now();
        for rev in 2..6 {
            memory.apply(rev, "/a".into(), None, begin);
        }
        assert!(memory.evict(0, begin + Duration::from_secs(299)).is_empty());
        let evicted = memory.evict(0, begin + Duration::from_secs(300));
        assert_eq!((evicted.len(), memory.floor()), (3, 4));
        for rev in 6..10 {
            put(&mut memory, rev, "/b", Some(LONG));
        }
        memory.evict(0, begin);
        assert!(memory.ring_bytes <= 1000 && memory.floor() > 6);
    }

    const LONG: &str = match std::str::from_utf8(&[b'x'; 300]) {
        Ok(text) => text,
        Err(_) => "",
    };

    #[test]
    fn the_writes_of_one_revision_are_never_told_apart() {
        let mut memory = memory(100);
        put(&mut memory, 2, "/a", Some("v"));
        for key in ["/b", "/c", "/d"] {
            put(&mut memory, 7, key, Some("v"));
        }
        put(&mut memory, 8, "/e", Some("v"));
        let _woken = memory.subscribe("/");
        let told = |memory: &Memory, rev, max| {
            let news = memory.since("/", rev, max).expect("kept");
            (news.events.len(), news.position)
        };
        assert_eq!(told(&memory, 1, 2), (4, 7));
        assert_eq!(told(&memory, 5, 10), (4, 8));
        memory.advance(20);
        assert_eq!((memory.rev(), told(&memory, 9, 1)), (20, (0, 20)));
    }

    #[test]
    fn who_watches_what_is_quiet_misses_nothing_when_the_rest_is_forgotten() {
        let mut memory = memory(2);
        let _woken = memory.subscribe("/quiet/");
        put(&mut memory, 2, "/quiet/a", Some("v"));
        for rev in 3..9 {
            put(&mut memory, rev, "/loud/a", Some("v"));
            assert_eq!(memory.seen("/quiet/", 1), 1, "there is something to see");
            assert_eq!(memory.seen("/quiet/", 2), rev);
        }
        memory.evict(0, Instant::now());
        assert!(memory.since("/quiet/", 1, 9).is_none(), "it was forgotten");
        put(&mut memory, 9, "/quiet/b", Some("v"));
        let news = memory.since("/quiet/", 2, 9).expect("nothing was missed");
        assert_eq!((news.events.len(), news.position), (1, 9));
    }

    #[test]
    fn expiry_follows_the_latest_write() {
        let mut memory = memory(100);
        let entry = |rev, expires_unix_s| Entry {
            rev,
            create_rev: 2,
            value: Bytes::new(),
            expires_unix_s,
        };
        memory.apply(2, "/a".into(), Some(entry(2, Some(100))), Instant::now());
        memory.apply(3, "/a".into(), Some(entry(3, Some(200))), Instant::now());
        assert!(memory.expired(199).is_empty());
        assert_eq!(memory.expired(200), ["/a".into()]);
        memory.apply(4, "/a".into(), Some(entry(4, None)), Instant::now());
        assert!(memory.expired(1000).is_empty());
    }
}
