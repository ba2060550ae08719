//! Which writes concern whom: for every prefix that is watched, the revisions under it.
//!
//! An API server has a watch for every kind and more, and most writes are of one kind. So a write
//! wakes only the watches of the prefixes that its key is under, and a watch that wakes goes to its
//! events directly instead of past those of all others.

use std::collections::{HashMap, VecDeque};

use tokio::sync::watch;

/// Prefixes that nobody watches any more are looked for when there are this many, or twice as many
/// as were left the last time.
const SWEEP_MIN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// Prefixes that end with a slash, as those of an API server do.
    folders: HashMap<Box<str>, Topic>,
    others: HashMap<Box<str>, Topic>,
    /// Whom the writes since the last [`Topics::take_touched`] concern.
    touched: Vec<watch::Sender<()>>,
    round: u64,
    sweep_at: usize,
    is_closed: bool,
}

#[derive(Debug)]
pub(crate) struct Topic {
    /// Of the events under the prefix that are kept, in their order, each once.
    revs: VecDeque<u64>,
    /// An event under the prefix, of this revision, is forgotten: who has not seen it never will.
    forgotten: u64,
    /// Changes when something happens under the prefix. `None`: nothing will any more.
    woken: Option<watch::Sender<()>>,
    touched_in: u64,
}

impl Topics {
    /// What is told of a prefix. `kept` are the revisions under it so far, and nothing is known of
    /// those up to `floor`.
    pub(crate) fn subscribe(
        &mut self,
        prefix: &str,
        floor: u64,
        kept: impl FnOnce() -> VecDeque<u64>,
    ) -> watch::Receiver<()> {
        self.sweep();
        let is_closed = self.is_closed;
        if self.get(prefix).is_none() {
            let topic = Topic {
                revs: kept(),
                forgotten: floor,
                woken: (!is_closed).then(|| watch::Sender::new(())),
                touched_in: 0,
            };
            self.of_kind(prefix).insert(prefix.into(), topic);
        }
        let woken = self.get(prefix).and_then(|topic| topic.woken.as_ref());
        woken.map_or_else(|| watch::channel(()).1, watch::Sender::subscribe)
    }

    fn of_kind(&mut self, prefix: &str) -> &mut HashMap<Box<str>, Topic> {
        if prefix.ends_with('/') {
            &mut self.folders
        } else {
            &mut self.others
        }
    }

    fn sweep(&mut self) {
        let len = self.folders.len() + self.others.len();
        if self.is_closed || len < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        let is_watched = |topic: &Topic| {
            let woken = topic.woken.as_ref();
            woken.is_some_and(|woken| woken.receiver_count() > 0)
        };
        self.folders.retain(|_, topic| is_watched(topic));
        self.others.retain(|_, topic| is_watched(topic));
        self.sweep_at = (self.folders.len() + self.others.len()) * 2;
    }

    pub(crate) fn get(&self, prefix: &str) -> Option<&Topic> {
        if prefix.ends_with('/') {
            self.folders.get(prefix)
        } else {
            self.others.get(prefix)
        }
    }

    /// Does it to every topic that the key is under.
    fn each(&mut self, key: &str, mut act: impl FnMut(&mut Topic, &mut Vec<watch::Sender<()>>)) {
        if !self.folders.is_empty() {
            for (at, _) in key.match_indices('/') {
                if let Some(topic) = self.folders.get_mut(&key[..=at]) {
                    act(topic, &mut self.touched);
                }
            }
        }
        for (prefix, topic) in &mut self.others {
            if key.starts_with(&**prefix) {
                act(topic, &mut self.touched);
            }
        }
    }

    /// Something happened to the key.
    pub(crate) fn note(&mut self, key: &str, rev: u64) {
        let round = self.round + 1;
        self.each(key, |topic, touched| {
            if topic.revs.back() != Some(&rev) {
                topic.revs.push_back(rev);
            }
            topic.touch(round, touched);
        });
    }

    /// What happened to the key at `rev` is not kept any more.
    pub(crate) fn forget(&mut self, key: &str, rev: u64) {
        self.each(key, |topic, _| {
            while topic.revs.front().is_some_and(|first| *first <= rev) {
                topic.revs.pop_front();
            }
            topic.forgotten = rev;
        });
    }

    /// What happened up to `rev` is not known.
    pub(crate) fn forget_all(&mut self, rev: u64) {
        let round = self.round + 1;
        for topic in self.folders.values_mut().chain(self.others.values_mut()) {
            topic.revs.clear();
            topic.forgotten = rev;
            topic.touch(round, &mut self.touched);
        }
    }

    /// Whom to wake.
    pub(crate) fn take_touched(&mut self) -> Vec<watch::Sender<()>> {
        self.round += 1;
        std::mem::take(&mut self.touched)
    }

    /// Nothing will happen any more: every watch ends when it has told what it has.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.touched.clear();
        for topic in self.folders.values_mut().chain(self.others.values_mut()) {
            topic.woken = None;
        }
    }
}

impl Topic {
    /// The kept revisions after `rev`; `None` if some are forgotten.
    pub(crate) fn since(&self, rev: u64) -> Option<impl Iterator<Item = u64>> {
        if rev < self.forgotten {
            return None;
        }
        let start = self.revs.partition_point(|kept| *kept <= rev);
        Some(self.revs.range(start..).copied())
    }

    /// Whether nothing happened after `rev`.
    pub(crate) fn is_quiet_since(&self, rev: u64) -> bool {
        self.forgotten <= rev && self.revs.back().is_none_or(|last| *last <= rev)
    }

    fn touch(&mut self, round: u64, touched: &mut Vec<watch::Sender<()>>) {
        if self.touched_in != round {
            self.touched_in = round;
            touched.extend(self.woken.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(topics: &mut Topics, prefix: &str) -> watch::Receiver<()> {
        topics.subscribe(prefix, 1, VecDeque::new)
    }

    #[test]
    fn a_write_wakes_who_watches_a_prefix_of_its_key_and_nobody_else() {
        let mut topics = Topics::default();
        let pods = subscribed(&mut topics, "/pods/");
        let team = subscribed(&mut topics, "/pods/team/");
        let other = subscribed(&mut topics, "/pods/other/");
        let odd = subscribed(&mut topics, "/po");
        topics.note("/pods/team/a", 2);
        topics.note("/pods/team/b", 3);
        let touched = topics.take_touched();
        assert_eq!(touched.len(), 3, "each is woken once");
        for woken in touched {
            woken.send_replace(());
        }
        let is_woken = |receiver: &watch::Receiver<()>| receiver.has_changed().expect("is open");
        assert!([&pods, &team, &odd].into_iter().all(is_woken) && !is_woken(&other));
        let seen = topics.get("/pods/team/").expect("there").since(2);
        assert_eq!(seen.expect("kept").collect::<Vec<_>>(), [3]);
        assert!(topics.get("/pods/other/").expect("there").is_quiet_since(1));
    }

    #[test]
    fn only_what_was_forgotten_of_the_prefix_is_missed() {
        let mut topics = Topics::default();
        let _pods = subscribed(&mut topics, "/pods/");
        let _jobs = subscribed(&mut topics, "/jobs/");
        topics.note("/pods/a", 2);
        topics.note("/jobs/a", 3);
        topics.forget("/pods/a", 2);
        let is_missed = |prefix, rev| topics.get(prefix).expect("there").since(rev).is_none();
        assert!(is_missed("/pods/", 1) && !is_missed("/pods/", 2) && !is_missed("/jobs/", 1));
        topics.forget_all(9);
        assert!(topics.get("/jobs/").expect("there").since(8).is_none());
    }

    #[test]
    fn prefixes_that_nobody_watches_go_in_the_end() {
        let mut topics = Topics::default();
        let kept = subscribed(&mut topics, "/kept/");
        for number in 0..10 * SWEEP_MIN {
            drop(subscribed(&mut topics, &format!("/{number}/")));
        }
        assert!(topics.folders.len() <= SWEEP_MIN && topics.get("/kept/").is_some());
        topics.close();
        assert!(kept.has_changed().is_err());
        assert!(subscribed(&mut topics, "/new/").has_changed().is_err());
    }
}
