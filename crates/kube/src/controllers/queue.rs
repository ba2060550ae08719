//! Names of things to look at, each at most once at a time.
//!
//! ```text
//!   add ──> waiting ──take──> running ──finish(Done)──> (nothing)
//!              ^                 │ │
//!              │  added meanwhile┘ └─finish(After)──> delayed ──due──> waiting
//!              └─────────────────────────────────────────┘
//! ```
//!
//! The queue is pure but for what is told of it: the time is a parameter. A name that is added while
//! it is delayed becomes due at once, and one that is added while it runs is looked at again
//! afterwards, so that no news is ever missed and no two tasks work on one name.
//!
//! [`work`] is the loop of those who look at one name after the other.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tracing::warn;

use crate::metrics::QueueMeter;
use crate::status::Status;

/// First delay after a failure; it doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// News taken in before each look at the queue. Without any a name whose object somebody else has
/// written would be worked on as it was, in vain and again and again; without a limit a busy writer
/// would keep all names waiting.
const NEWS_MAX: usize = 64;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do until there is news.
    Done,
    /// Look again after this time, or on news.
    After(Duration),
    /// Look again after the back-off, or on news.
    Failed,
}

/// A queue of names.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<String>,
    /// The same names, to find out quickly.
    is_waiting: HashSet<String>,
    /// Running names, and whether there was news meanwhile.
    running: HashMap<String, bool>,
    delayed: BTreeSet<(Instant, String)>,
    failures: HashMap<String, u32>,
    meter: Option<QueueMeter>,
}

impl Queue {
    /// One whose numbers are told.
    pub(crate) fn metered(meter: QueueMeter) -> Self {
        Self {
            meter: Some(meter),
            ..Self::default()
        }
    }

    /// There is news of `name`.
    pub(crate) fn add(&mut self, name: &str) {
        if let Some(again) = self.running.get_mut(name) {
            *again = true;
        } else if self.is_waiting.insert(name.to_owned()) {
            self.delayed.retain(|(_, delayed)| delayed != name);
            self.waiting.push_back(name.to_owned());
            if let Some(meter) = &mut self.meter {
                meter.added(name);
            }
        }
    }

    /// The next name; it is running until [`Queue::finish`].
    pub(crate) fn take(&mut self) -> Option<String> {
        let name = self.waiting.pop_front()?;
        self.is_waiting.remove(&name);
        self.running.insert(name.clone(), false);
        if let Some(meter) = &mut self.meter {
            meter.taken(&name);
        }
        Some(name)
    }

    pub(crate) fn finish(&mut self, now: Instant, name: &str, outcome: Outcome) {
        let again = self.running.remove(name).unwrap_or(false);
        if let Some(meter) = &mut self.meter {
            meter.finished(name, outcome != Outcome::Done);
        }
        let delay = match outcome {
            Outcome::Done => {
                self.failures.remove(name);
                None
            }
            Outcome::After(delay) => {
                self.failures.remove(name);
                Some(delay)
            }
            Outcome::Failed => {
                let failures = self.failures.entry(name.to_owned()).or_default();
                let doubled = BACK_OFF_MIN.saturating_mul(1 << (*failures).min(10));
                *failures += 1;
                Some(doubled.min(BACK_OFF_MAX))
            }
        };
        // What failed waits for its back-off even if there was news: the news is often the
        // status that the failed attempt itself wrote.
        match delay {
            Some(delay) if !again || outcome == Outcome::Failed => {
                self.delayed.insert((now + delay, name.to_owned()));
            }
            Some(_) | None if again => self.add(name),
            Some(_) | None => {}
        }
    }

    /// Makes due what has waited long enough, and tells when there will be more.
    pub(crate) fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, _)) = self.delayed.first() {
            if *due > now {
                return Some(*due);
            }
            if let Some((_, name)) = self.delayed.pop_first() {
                self.add(&name);
            }
        }
        None
    }

    /// Forgets the failures of a name that will not come again.
    pub(crate) fn forget(&mut self, name: &str) {
        self.failures.remove(name);
    }
}

/// Who looks at names, one after the other.
pub(crate) trait Worker: Send {
    /// For logs.
    const NAME: &'static str;
    /// Time before a name is looked at again that somebody else wrote in between.
    const CONFLICT_RETRY: Duration;
    type News: Send;

    /// The next news. May be dropped while it waits.
    fn next(&mut self) -> impl Future<Output = Self::News> + Send;

    /// Takes in news and adds the names that they are about.
    fn take(&mut self, news: Self::News, queue: &mut Queue) -> impl Future<Output = ()> + Send;

    /// Whether enough is known to begin.
    fn is_ready(&self) -> bool {
        true
    }

    /// Brings one name up to date.
    fn sync(&mut self, name: &str) -> impl Future<Output = Result<Outcome, Status>> + Send;
}

/// Looks at every name that there is news of, for ever.
pub(crate) async fn work<W: Worker>(mut worker: W) {
    let mut queue = Queue::default();
    loop {
        for _ in 0..NEWS_MAX {
            let Some(news) = worker.next().now_or_never() else {
                break;
            };
            worker.take(news, &mut queue).await;
        }
        // Before each look at the queue: what has become due while a name was worked on is nobody's
        // news, and a timer would not tell of it either.
        let due = queue.advance(Instant::now());
        if worker.is_ready()
            && let Some(name) = queue.take()
        {
            let outcome = outcome::<W>(&name, worker.sync(&name).await);
            queue.finish(Instant::now(), &name, outcome);
            continue;
        }
        tokio::select! {
            news = worker.next() => worker.take(news, &mut queue).await,
            () = until(due) => {}
        }
    }
}

fn outcome<W: Worker>(name: &str, result: Result<Outcome, Status>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(status) if status.is_conflict() => Outcome::After(W::CONFLICT_RETRY),
        Err(error) => {
            warn!(controller = W::NAME, name, %error, "not brought up to date");
            Outcome::Failed
        }
    }
}

/// Returns when the next name is due; never if there is none.
pub(crate) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    #[test]
    fn news_while_a_name_runs_makes_it_run_again_and_never_twice_at_once() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take().as_deref(), Some("a"));
        assert_eq!(queue.take(), None);
        queue.add("a");
        assert_eq!(queue.take(), None);
        queue.finish(now, "a", Outcome::Done);
        assert_eq!(queue.take().as_deref(), Some("a"));
        queue.finish(now, "a", Outcome::Done);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        queue.add("a");
        for _ in 0..9 {
            queue.take().unwrap();
            queue.finish(now, "a", Outcome::Failed);
            let due = queue.advance(now).unwrap();
            delays.push((due - now).as_millis());
            now = due;
            assert_eq!(queue.advance(now), None);
        }
        let expected = [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000];
        assert_eq!(delays, expected);
        queue.take().unwrap();
        queue.finish(now, "a", Outcome::Done);
        queue.add("a");
        queue.take().unwrap();
        queue.finish(now, "a", Outcome::Failed);
        assert_eq!((queue.advance(now).unwrap() - now).as_millis(), 500);
    }

    /// Looks at `slow` for longer than `soon` is to wait.
    struct Two {
        news: Option<[&'static str; 2]>,
        looked: mpsc::Sender<String>,
        has_waited: bool,
    }

    impl Worker for Two {
        const NAME: &'static str = "two";
        const CONFLICT_RETRY: Duration = Duration::from_millis(10);
        type News = [&'static str; 2];

        async fn next(&mut self) -> Self::News {
            match self.news.take() {
                Some(news) => news,
                None => std::future::pending().await,
            }
        }

        async fn take(&mut self, news: Self::News, queue: &mut Queue) {
            news.iter().for_each(|name| queue.add(name));
        }

        async fn sync(&mut self, name: &str) -> Result<Outcome, Status> {
            self.looked.send(name.to_owned()).await.unwrap();
            if name == "slow" {
                tokio::time::sleep(2 * Self::CONFLICT_RETRY).await;
                return Ok(Outcome::Done);
            }
            if std::mem::replace(&mut self.has_waited, true) {
                return Ok(Outcome::Done);
            }
            Ok(Outcome::After(Self::CONFLICT_RETRY))
        }
    }

    #[tokio::test]
    async fn a_name_that_becomes_due_while_another_is_worked_on_is_looked_at() {
        let (looked, mut looks) = mpsc::channel(8);
        let news = Some(["soon", "slow"]);
        let has_waited = false;
        let worker = Two {
            news,
            looked,
            has_waited,
        };
        let seen = async {
            for expected in ["soon", "slow", "soon"] {
                assert_eq!(looks.recv().await.as_deref(), Some(expected));
            }
        };
        tokio::select! {
            () = work(worker) => {}
            seen = tokio::time::timeout(Duration::from_secs(60), seen) => seen.unwrap(),
        }
    }

    /// Knows two objects as they were, until it hears of them.
    struct Stale {
        news: mpsc::Receiver<&'static str>,
        heard: HashSet<String>,
        done: mpsc::Sender<String>,
    }

    impl Worker for Stale {
        const NAME: &'static str = "stale";
        const CONFLICT_RETRY: Duration = Duration::ZERO;
        type News = &'static str;

        async fn next(&mut self) -> Self::News {
            match self.news.recv().await {
                Some(news) => news,
                None => std::future::pending().await,
            }
        }

        async fn take(&mut self, news: Self::News, queue: &mut Queue) {
            if !queue.is_waiting.contains(news) {
                queue.add(news);
            } else {
                self.heard.insert(news.to_owned());
            }
        }

        async fn sync(&mut self, name: &str) -> Result<Outcome, Status> {
            tokio::task::yield_now().await;
            if !self.heard.contains(name) {
                return Err(Status::modified(&crate::resource::PODS, name));
            }
            self.done.send(name.to_owned()).await.unwrap();
            Ok(Outcome::Done)
        }
    }

    #[tokio::test]
    async fn names_in_conflict_leave_room_for_the_news_that_ends_it() {
        let (tell, news) = mpsc::channel(8);
        for name in ["a", "b", "c", "a", "b", "c"] {
            tell.send(name).await.unwrap();
        }
        let (done, mut finished) = mpsc::channel(8);
        let heard = HashSet::new();
        let all = async {
            for _ in 0..3 {
                finished.recv().await.unwrap();
            }
        };
        tokio::select! {
            () = work(Stale { news, heard, done }) => {}
            all = tokio::time::timeout(Duration::from_secs(60), all) => all.unwrap(),
        }
    }

    #[test]
    fn news_makes_a_delayed_name_due_at_once() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add("a");
        queue.take().unwrap();
        queue.finish(now, "a", Outcome::After(Duration::from_secs(60)));
        assert_eq!(queue.take(), None);
        queue.add("a");
        assert_eq!(queue.take().as_deref(), Some("a"));
        assert_eq!(queue.advance(now), None);
    }

    proptest! {
        #[test]
        fn no_news_is_lost_and_no_name_runs_twice(steps in prop::collection::vec(0..5u8, 1..80)) {
            let mut queue = Queue::default();
            let mut now = Instant::now();
            let mut running = false;
            let mut news = false;
            for step in steps {
                match step {
                    0 => { queue.add("a"); news = true; }
                    1 => if let Some(name) = queue.take() {
                        prop_assert!(!running);
                        prop_assert_eq!(name, "a");
                        running = true;
                        news = false;
                    },
                    2 | 3 if running => {
                        let outcome = if step == 2 { Outcome::Done } else { Outcome::Failed };
                        queue.finish(now, "a", outcome);
                        running = false;
                    }
                    _ => { now += Duration::from_secs(30); queue.advance(now); }
                }
            }
            if running {
                queue.finish(now, "a", Outcome::Done);
            }
            queue.advance(now + BACK_OFF_MAX);
            prop_assert!(!news || queue.take().is_some());
        }
    }
}
