//! Which news become one Event, and which none, as the event correlator of Kubernetes' clients
//! decides it. Pure.
//!
//! ```text
//!   the same again ───────────────────> the count of that Event rises
//!   the same in other words, 10 times ─> from then on one Event, "(combined from similar events)"
//!   more than 25 about one object ────> one in five minutes
//! ```

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::News;

/// Upstream's numbers.
const SIMILAR_MAX: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_secs(600);
const BURST: u32 = 25;
const ONE_IN: Duration = Duration::from_secs(300);
/// What is remembered of each sort, as many as upstream's. Forgetting only begins a new count.
const REMEMBERED_MAX: usize = 4096;

/// News that differ in their words only.
#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    latest: Instant,
}

/// How many Events an object may still cause.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When the latest was added to it.
    since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Correlator {
    similar: HashMap<(String, News), Similar>,
    allowances: HashMap<String, Allowance>,
}

impl Correlator {
    /// The news of the Event that tells this, and its words now. `None`: nobody is told.
    pub(super) fn correlate(
        &mut self,
        uid: &str,
        news: News,
        now: Instant,
    ) -> Option<(News, String)> {
        if !self.is_allowed(uid, now) {
            return None;
        }
        let wordless = News {
            message: String::new(),
            ..news.clone()
        };
        make_room(&mut self.similar);
        let similar = self.similar.entry((uid.to_owned(), wordless.clone()));
        let similar = similar.or_insert_with(|| Similar {
            messages: HashSet::new(),
            latest: now,
        });
        if now.duration_since(similar.latest) > SIMILAR_FOR {
            similar.messages.clear();
        }
        similar.latest = now;
        let is_one_more = !similar.messages.contains(&news.message);
        if is_one_more && similar.messages.len() + 1 >= SIMILAR_MAX {
            let message = format!("(combined from similar events): {}", news.message);
            return Some((wordless, message));
        }
        similar.messages.insert(news.message.clone());
        let message = news.message.clone();
        Some((news, message))
    }

    fn is_allowed(&mut self, uid: &str, now: Instant) -> bool {
        make_room(&mut self.allowances);
        let allowance = self.allowances.entry(uid.to_owned());
        let allowance = allowance.or_insert(Allowance {
            left: BURST,
            since: now,
        });
        while allowance.left < BURST && now.duration_since(allowance.since) >= ONE_IN {
            allowance.left += 1;
            allowance.since += ONE_IN;
        }
        if allowance.left == BURST {
            allowance.since = now;
        }
        let is_allowed = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        is_allowed
    }
}

/// For one more.
pub(super) fn make_room<K, V>(remembered: &mut HashMap<K, V>) {
    if remembered.len() >= REMEMBERED_MAX {
        remembered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pod: usize) -> News {
        News::warning("FailedCreate", format!("Error creating: pods {pod}"))
    }

    #[test]
    fn the_same_in_ten_words_is_one_event_from_then_on() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for pod in 0..9 {
            let (news, message) = correlator.correlate("u", refused(pod), now).unwrap();
            assert_eq!((&news, &message), (&refused(pod), &refused(pod).message));
        }
        let (tenth, message) = correlator.correlate("u", refused(9), now).unwrap();
        assert_eq!(
            message,
            "(combined from similar events): Error creating: pods 9"
        );
        let (next, _) = correlator.correlate("u", refused(10), now).unwrap();
        assert_eq!(tenth, next);
        // What was told in the same words goes on counting, and others' news are others'.
        assert_eq!(
            correlator.correlate("u", refused(3), now).unwrap().0,
            refused(3)
        );
        assert_eq!(
            correlator.correlate("v", refused(9), now).unwrap().0,
            refused(9)
        );
        let later = now + SIMILAR_FOR + Duration::from_secs(1);
        assert_eq!(
            correlator.correlate("u", refused(11), later).unwrap().0,
            refused(11)
        );
    }

    #[test]
    fn an_object_that_causes_very_many_is_told_of_now_and_then() {
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let mut told = |uid: &str, after: Duration| {
            let news = News::normal("Same", "the same");
            correlator.correlate(uid, news, now + after).is_some()
        };
        assert!((0..BURST).all(|_| told("u", Duration::ZERO)));
        assert!(!told("u", Duration::ZERO));
        assert!(told("v", Duration::ZERO));
        assert!(told("u", ONE_IN));
        assert!(!told("u", ONE_IN + Duration::from_secs(1)));
    }
}
