//! What is wrong with a record.
//!
//! Every write has a revision, so their order is known and need not be searched for. What is left
//! to judge: that the order agrees with real time and with what each write expected; that each
//! read is of one revision, not older than anything that was known when it was asked; and that
//! watches tell exactly this order. A write whose outcome nobody was told counts as done if anybody
//! ever saw it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::record::{Answer, Ask, Happened, Operation, PAIR, Record, Seen, Stream};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// Two different things at one revision, or a value that nobody was told is written.
    Contradiction,
    /// A write went through though the key was not what it expected.
    Compare,
    /// An answer that was true at no time between question and answer.
    NotLinearizable,
    /// A transaction was seen half.
    NotWhole,
    Ordered,
    Unique,
    Atomic,
    Reliable,
    Resumable,
    Bookmarkable,
    Filter,
    PrevValue,
    IsCreate,
    /// A watch was told that history is gone which is not.
    NotCompacted,
    Starved,
}

pub(crate) type Violations = BTreeMap<Wrong, Vec<String>>;

/// What each key held, by revision. `None`: it was removed.
#[derive(Default)]
struct Log {
    keys: BTreeMap<String, BTreeMap<u64, Option<String>>>,
}

impl Log {
    /// The entry of a key at a revision.
    fn at(&self, key: &str, rev: u64) -> Option<(u64, &String)> {
        let (rev, value) = self.keys.get(key)?.range(..=rev).next_back()?;
        value.as_ref().map(|value| (*rev, value))
    }

    /// What was written just before.
    fn before(&self, key: &str, rev: u64) -> Option<(u64, &String)> {
        rev.checked_sub(1).and_then(|rev| self.at(key, rev))
    }
}

struct Judge<'a> {
    record: &'a Record,
    log: Log,
    wrong: Violations,
}

pub(crate) fn judge(record: &Record) -> Violations {
    let mut judge = Judge {
        record,
        log: Log::default(),
        wrong: Violations::new(),
    };
    judge.collect();
    judge.guess_removals();
    judge.compare();
    judge.linearize();
    for stream in &record.streams {
        judge.stream(stream);
    }
    for watcher in &record.starved {
        judge.blame(Wrong::Starved, watcher.clone());
    }
    judge.wrong
}

impl Judge<'_> {
    fn blame(&mut self, what: Wrong, how: String) {
        let found = self.wrong.entry(what).or_default();
        if found.len() < 5 {
            found.push(how);
        }
    }

    /// Builds the log from everything that was told, and checks that it does not contradict itself.
    fn collect(&mut self) {
        let record = self.record;
        let mut writers: HashMap<&str, &Operation> = HashMap::new();
        for operation in &record.operations {
            if let Ask::Create { value, .. } | Ask::Update { value, .. } | Ask::Pair { value } =
                &operation.ask
            {
                writers.insert(value, operation);
            }
        }
        for operation in &record.operations {
            match (&operation.ask, &operation.answer) {
                (
                    Ask::Create { key, value } | Ask::Update { key, value, .. },
                    Answer::Done { rev },
                ) => {
                    self.note(key, *rev, Some(value));
                }
                (Ask::Pair { value }, Answer::Done { rev }) => {
                    self.note(PAIR[1], *rev, Some(value));
                }
                (Ask::Delete { key, .. }, Answer::Done { rev }) => self.note(key, *rev, None),
                (_, Answer::Got(Some(seen))) => self.notice(&writers, seen),
                (_, Answer::Listed { all, .. }) => {
                    all.iter().for_each(|seen| self.notice(&writers, seen));
                }
                _ => {}
            }
        }
        for stream in &record.streams {
            for event in stream.batches.iter().flat_map(|(events, _)| events) {
                match &event.after {
                    Some(after) => self.notice(&writers, after),
                    None => self.note(&event.key, event.rev, None),
                }
                if let Some(before) = &event.before {
                    self.notice(&writers, before);
                }
            }
        }
    }

    /// A removal that nobody was told is done, and no watch showed, was done all the same if the key
    /// was created after it.
    fn guess_removals(&mut self) {
        for operation in &self.record.operations {
            let (Ask::Delete { key, expect }, Answer::Unknown { .. } | Answer::Refused { .. }) =
                (&operation.ask, &operation.answer)
            else {
                continue;
            };
            let Some(known) = self.log.keys.get_mut(key) else {
                continue;
            };
            let next = known
                .range(expect + 1..)
                .next()
                .map(|(rev, value)| (*rev, value.clone()));
            let Some((next, Some(value))) = next else {
                continue;
            };
            let is_created = self.record.operations.iter().any(|other| {
                matches!(&other.ask, Ask::Create { value: created, .. } if *created == value)
            });
            if is_created && next > expect + 1 {
                known.insert(next - 1, None);
            }
        }
    }

    fn note(&mut self, key: &str, rev: u64, value: Option<&String>) {
        let known = self.log.keys.entry(key.to_owned()).or_default();
        match known.insert(rev, value.cloned()) {
            Some(other) if other.as_ref() != value => self.blame(
                Wrong::Contradiction,
                format!("{key} at {rev}: {other:?} and {value:?}"),
            ),
            _ => {}
        }
    }

    fn notice(&mut self, writers: &HashMap<&str, &Operation>, seen: &Seen) {
        let may_be_there = writers.get(&*seen.value).is_some_and(|operation| {
            let is_its_key = match &operation.ask {
                Ask::Create { key, .. } | Ask::Update { key, .. } => *key == seen.key,
                Ask::Pair { .. } => PAIR.contains(&&*seen.key),
                _ => false,
            };
            let may_be_done = match &operation.answer {
                Answer::Done { rev } => *rev == seen.rev || seen.key == PAIR[0],
                Answer::Unknown { .. } | Answer::Refused { .. } => true,
                _ => false,
            };
            is_its_key && may_be_done
        });
        if !may_be_there {
            self.blame(
                Wrong::Contradiction,
                format!("{seen:?} by {:?}", writers.get(&*seen.value)),
            );
        }
        self.note(&seen.key, seen.rev, Some(&seen.value));
    }

    fn compare(&mut self) {
        for operation in &self.record.operations {
            let Answer::Done { rev } = operation.answer else {
                continue;
            };
            let (key, expect) = match &operation.ask {
                Ask::Create { key, .. } => (key, None),
                Ask::Update { key, expect, .. } | Ask::Delete { key, expect } => {
                    (key, Some(*expect))
                }
                _ => continue,
            };
            let found = self.log.before(key, rev).map(|(rev, _)| rev);
            if found != expect {
                self.blame(Wrong::Compare, format!("{operation:?} found {found:?}"));
            }
        }
    }

    /// Gives each operation the lowest revision at which its answer is true and which is not below
    /// that of any operation that had returned before it was called.
    fn linearize(&mut self) {
        let mut operations: Vec<&Operation> = self.record.operations.iter().collect();
        operations.sort_by_key(|operation| operation.returned_ns);
        // Highest revision among what had returned by then.
        let mut known: Vec<(u64, u64)> = Vec::new();
        for operation in operations {
            let before = known.partition_point(|(returned, _)| *returned < operation.called_ns);
            let low = before.checked_sub(1).map_or(0, |index| known[index].1);
            let at = match (&operation.ask, &operation.answer) {
                (Ask::Compact { .. } | Ask::Watch { .. }, _)
                | (_, Answer::Unknown { .. } | Answer::Refused { .. }) => continue,
                (_, Answer::Done { rev }) => (*rev > low).then_some(*rev),
                (Ask::List { prefix }, Answer::Listed { rev, all }) => {
                    self.list(prefix, *rev, all);
                    (*rev >= low).then_some(*rev)
                }
                (ask, answer) => self.when(ask, answer, low),
            };
            let Some(at) = at else {
                self.blame(Wrong::NotLinearizable, format!("{operation:?} after {low}"));
                continue;
            };
            let highest = known.last().map_or(0, |(_, rev)| *rev).max(at);
            known.push((operation.returned_ns, highest));
        }
    }

    /// The lowest revision from `low` on at which an answer about one key is true.
    fn when(&self, ask: &Ask, answer: &Answer, low: u64) -> Option<u64> {
        let key = match ask {
            Ask::Create { key, .. }
            | Ask::Update { key, .. }
            | Ask::Delete { key, .. }
            | Ask::Get { key } => key,
            Ask::Pair { .. } | Ask::List { .. } | Ask::Compact { .. } | Ask::Watch { .. } => {
                return Some(low);
            }
        };
        let expected = match ask {
            Ask::Update { expect, .. } | Ask::Delete { expect, .. } => Some(*expect),
            _ => None,
        };
        let is_true = |rev: u64| match (self.log.at(key, rev), answer) {
            (found, Answer::Got(None) | Answer::NotFound) => found.is_none(),
            (Some((rev, value)), Answer::Got(Some(seen))) => {
                (rev, value) == (seen.rev, &seen.value)
            }
            (found, Answer::Exists) => found.is_some(),
            (Some((rev, _)), Answer::Conflict { actual }) => {
                rev == *actual && expected != Some(rev)
            }
            _ => false,
        };
        let later = self.log.keys.get(key).into_iter();
        let changes = later.flat_map(|revs| revs.range(low + 1..).map(|(rev, _)| *rev));
        std::iter::once(low)
            .chain(changes)
            .find(|rev| is_true(*rev))
    }

    fn list(&mut self, prefix: &str, rev: u64, all: &[Seen]) {
        let found: BTreeSet<_> = all.iter().map(|seen| (&*seen.key, seen.rev)).collect();
        let keys = self.log.keys.keys().filter(|key| key.starts_with(prefix));
        let expected: BTreeSet<_> = keys
            .filter_map(|key| self.log.at(key, rev).map(|(rev, _)| (&**key, rev)))
            .collect();
        let odd: Vec<_> = found.symmetric_difference(&expected).take(3).collect();
        if !odd.is_empty() {
            let how = format!("list of {prefix} at {rev} differs at {odd:?}");
            self.blame(Wrong::NotLinearizable, how);
        }
        let pair: BTreeSet<_> = all
            .iter()
            .filter(|seen| PAIR.contains(&&*seen.key))
            .map(|seen| &seen.value)
            .collect();
        if pair.len() > 1 {
            self.blame(Wrong::NotWhole, format!("at {rev}: {pair:?}"));
        }
    }

    fn stream(&mut self, stream: &Stream) {
        if let Some(floor) = stream.refused_below
            && stream.from >= self.record.compacted
        {
            let how = format!("watch from {} refused below {floor}", stream.from);
            self.blame(Wrong::NotCompacted, how);
        }
        let (mut position, mut last) = (stream.from, stream.from);
        let mut told: BTreeSet<(u64, &str)> = BTreeSet::new();
        for (events, claimed) in &stream.batches {
            if let Some(first) = events.first()
                && told.iter().any(|(rev, _)| *rev == first.rev)
            {
                self.blame(Wrong::Atomic, format!("{} in two batches", first.rev));
            }
            for event in events {
                if event.rev < last {
                    self.blame(Wrong::Ordered, format!("{} after {last}", event.rev));
                }
                if event.rev <= position {
                    self.blame(
                        Wrong::Bookmarkable,
                        format!("{} after {position}", event.rev),
                    );
                }
                if !told.insert((event.rev, &event.key)) {
                    self.blame(Wrong::Unique, format!("{} {}", event.rev, event.key));
                }
                if !event.key.starts_with(&stream.prefix) {
                    let how = format!("{} under {}", event.key, stream.prefix);
                    self.blame(Wrong::Filter, how);
                }
                self.event(event);
                last = last.max(event.rev);
            }
            position = position.max(*claimed);
        }
        self.complete(stream, position, &told);
    }

    fn event(&mut self, event: &Happened) {
        let before = self.log.before(&event.key, event.rev);
        let was = before.map(|(rev, value)| (rev, value.clone()));
        let said = event.before.as_ref();
        if was != said.map(|before| (before.rev, before.value.clone())) {
            self.blame(Wrong::PrevValue, format!("{event:?} was {was:?}"));
        }
        if let Some(after) = &event.after
            && (after.create_rev == after.rev) != was.is_none()
        {
            self.blame(Wrong::IsCreate, format!("{event:?} was {was:?}"));
        }
    }

    /// Everything that is known to have happened between start and position was told.
    fn complete(&mut self, stream: &Stream, position: u64, told: &BTreeSet<(u64, &str)>) {
        let mut missing = Vec::new();
        for (key, revs) in &self.log.keys {
            if !key.starts_with(&stream.prefix) {
                continue;
            }
            for (rev, _) in revs.range(stream.from + 1..=position.max(stream.from + 1)) {
                if *rev <= position && !told.contains(&(*rev, key)) {
                    missing.push(*rev);
                }
            }
        }
        missing.sort_unstable();
        let first = told.first().map(|(rev, _)| *rev);
        for rev in missing {
            let what = match first {
                Some(first) if rev < first => Wrong::Resumable,
                _ => Wrong::Reliable,
            };
            let how = format!("{rev} is missing from {} of {}", stream.from, stream.prefix);
            self.blame(what, how);
        }
    }
}
