//! Jobs with `ttlSecondsAfterFinished` go that long after they have ended.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::hands::Hands;
use super::job::status::ending;
use super::pods::{condition, number};
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, DeleteOptions, Propagation};
use crate::object;
use crate::resource::{JOBS, Resource};
use crate::status::Status;
use crate::time;

pub(super) struct TtlAfterFinished {
    hands: Hands,
}

impl TtlAfterFinished {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "ttl-after-finished-controller");
        Self { hands }
    }
}

/// What is left of a Job's time; `None` if it has no end.
fn left(job: &Value, now: Timestamp) -> Option<Duration> {
    let ttl_s = number(job, &["spec", "ttlSecondsAfterFinished"])?;
    let ended = condition(job, ending(job)?)?;
    let ended = time::parse(object::text(ended, &["lastTransitionTime"]))?;
    let left = (ended + SignedDuration::from_secs(ttl_s)).duration_since(now);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

impl Controller for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished";
    const WATCHED: &'static [&'static Resource] = &[&JOBS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let has_ttl = left(&changed.object, Timestamp::UNIX_EPOCH).is_some();
        has_ttl.then(|| changed.key()).into_iter().collect()
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(job) = self.hands.known.get(&JOBS, at) else {
            return Ok(Outcome::Done);
        };
        match left(&job, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) if object::is_terminating(&job) => return Ok(Outcome::Done),
            Some(_) => {}
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let options = options.with_uid(object::uid(&job));
        self.hands.delete_with(&JOBS, &job, &options).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_job_that_has_ended_has_a_time_to_live() {
        let mut job = json!({"spec": {"ttlSecondsAfterFinished": 10}, "status": {}});
        let now = Timestamp::from_second(25).unwrap();
        assert_eq!(left(&job, now), None);
        job["status"]["conditions"] = json!([{"type": "Failed", "status": "True",
            "lastTransitionTime": "1970-01-01T00:00:20Z"}]);
        assert_eq!(left(&job, now), Some(Duration::from_secs(5)));
        let later = Timestamp::from_second(31).unwrap();
        assert_eq!(left(&job, later), Some(Duration::ZERO));
        job["spec"] = json!({});
        assert_eq!(left(&job, now), None);
    }
}
