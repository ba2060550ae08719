//! The next step of a Job. Pure.
//!
//! ```text
//!   pod ends ──> named in the status (uncounted) ──> its finalizer goes ──> counted
//! ```
//!
//! So each pod counts once, whenever this program dies, and nobody can take a pod away before it
//! has counted.
//!
//! ```text
//!   Running ──> SuccessCriteriaMet ──> (pods end) ──> Complete
//!        └────> FailureTarget ───────> (pods end) ──> Failed
//! ```

mod manage;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::indexes::{self, Indexes};
use super::pod::{self, Failures, completions, is_indexed, is_tracked};
use super::policy::{self, Meaning};
use super::status::{self, Verdict};
use crate::controllers::events::News;
use crate::controllers::pods::{is_active, is_finished, is_ready, number, phase, sooner};
use crate::object;
use crate::time;

/// What to do, in this order. The status is written first: it says who is being counted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) status: Value,
    /// Pods that have been counted, or need not be: their finalizer goes.
    pub(super) untrack: Vec<Value>,
    /// Pods that a finished Job no longer wants.
    pub(super) end: Vec<Value>,
    /// Pods that are too many: they do not count.
    pub(super) give_up: Vec<Value>,
    pub(super) create: Vec<Value>,
    pub(super) news: Vec<News>,
    pub(super) again: Option<Duration>,
}

pub(super) fn plan(job: &Value, pods: &[Value], now: Timestamp) -> Plan {
    if status::is_finished(job) {
        return Plan {
            status: job["status"].clone(),
            untrack: pods.iter().filter(|pod| is_tracked(pod)).cloned().collect(),
            ..Plan::default()
        };
    }
    let mut planner = Planner::new(job, pods, now);
    planner.count_earlier();
    planner.classify();
    planner.judge();
    planner.count();
    match planner.verdict.clone() {
        Some(verdict) => planner.finish(&verdict),
        None => planner.manage(),
    }
    planner.write_status();
    planner.plan
}

struct Planner<'a> {
    job: &'a Value,
    pods: &'a [Value],
    now: Timestamp,
    active: Vec<&'a Value>,
    /// Being deleted, and not at their end.
    terminating: usize,
    /// Uids that are being counted.
    uncounted: Uncounted,
    succeeded: i64,
    failed: i64,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
    /// Pods of this look that have ended and count.
    newly: Vec<(&'a Value, Meaning)>,
    verdict: Option<Verdict>,
    plan: Plan,
}

#[derive(Debug, Default)]
struct Uncounted {
    succeeded: Vec<String>,
    failed: Vec<String>,
}

impl Uncounted {
    fn has(&self, uid: &str) -> bool {
        let mut all = self.succeeded.iter().chain(&self.failed);
        all.any(|one| one == uid)
    }
}

impl<'a> Planner<'a> {
    fn new(job: &'a Value, pods: &'a [Value], now: Timestamp) -> Self {
        let uids = |field: &str| {
            let path = ["status", "uncountedTerminatedPods", field];
            let uids = object::items(job, &path).iter();
            uids.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let count = |field: &str| number(job, &["status", field]).unwrap_or(0);
        let end = completions(job).unwrap_or(0);
        let told = |field: &str| indexes::parse(object::text(job, &["status", field]), end);
        let is_going = |pod: &&Value| object::is_terminating(pod) && !is_finished(pod);
        Self {
            job,
            pods,
            now,
            active: pods.iter().filter(|pod| is_active(pod)).collect(),
            terminating: pods.iter().filter(is_going).count(),
            uncounted: Uncounted {
                succeeded: uids("succeeded"),
                failed: uids("failed"),
            },
            succeeded: count("succeeded"),
            failed: count("failed"),
            succeeded_indexes: told("completedIndexes"),
            failed_indexes: told("failedIndexes"),
            newly: Vec::new(),
            verdict: Verdict::of(job),
            plan: Plan {
                status: job["status"].clone(),
                ..Plan::default()
            },
        }
    }

    fn limit_per_index(&self) -> Option<i64> {
        number(self.job, &["spec", "backoffLimitPerIndex"])
    }

    fn is_suspended(&self) -> bool {
        self.job["spec"]["suspend"] == true
    }

    /// Who is named as being counted and has no finalizer any more has been counted.
    fn count_earlier(&mut self) {
        let pods = self.pods;
        let holds = |uid: &String| {
            let mut tracked = pods.iter().filter(|pod| is_tracked(pod));
            tracked.any(|pod| object::uid(pod) == uid)
        };
        let settle = |uids: &mut Vec<String>, count: &mut i64| {
            let before = uids.len();
            uids.retain(holds);
            *count += i64::try_from(before - uids.len()).unwrap_or(0);
        };
        settle(&mut self.uncounted.succeeded, &mut self.succeeded);
        settle(&mut self.uncounted.failed, &mut self.failed);
    }

    /// Who has ended since, and what it means.
    fn classify(&mut self) {
        let (job, pods) = (self.job, self.pods);
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            if self.uncounted.has(object::uid(pod)) {
                continue;
            }
            if phase(pod) == "Succeeded" {
                match pod::index(job, pod) {
                    Some(index) => drop(self.succeeded_indexes.insert(index)),
                    None if is_indexed(job) => {}
                    None => self.uncounted.succeeded.push(object::uid(pod).to_owned()),
                }
            } else if pod::has_failed(job, pod) {
                self.newly.push((pod, policy::meaning(job, pod)));
            }
        }
        if let Some(limit) = self.limit_per_index() {
            for (pod, meaning) in &self.newly {
                let Some(index) = pod::index(job, pod) else {
                    continue;
                };
                let has_failed = match meaning {
                    Meaning::FailsIndex => true,
                    Meaning::Counts => Failures::before(pod).counted >= limit,
                    Meaning::Ignored | Meaning::FailsJob(_) => false,
                };
                if has_failed && !self.succeeded_indexes.contains(&index) {
                    self.failed_indexes.insert(index);
                }
            }
        }
    }

    fn succeeded_now(&self) -> i64 {
        if is_indexed(self.job) {
            return count(self.succeeded_indexes.len());
        }
        self.succeeded + count(self.uncounted.succeeded.len())
    }

    fn failed_now(&self) -> i64 {
        let counts = |meaning: &Meaning| *meaning != Meaning::Ignored;
        let newly = self.newly.iter().filter(|(_, meaning)| counts(meaning));
        self.failed + count(self.uncounted.failed.len()) + count(newly.count())
    }

    /// Whether the Job is over, and how.
    fn judge(&mut self) {
        if self.verdict.is_some() {
            return;
        }
        self.verdict = self
            .failure()
            .or_else(|| self.failure_of_indexes())
            .or_else(|| self.early_success());
        if self.verdict.is_some() || self.is_suspended() {
            return;
        }
        let done = self.succeeded_now();
        let is_complete = match completions(self.job) {
            None => done > 0,
            Some(wanted) => done >= wanted,
        };
        if is_complete && self.active.is_empty() && !object::is_terminating(self.job) {
            let message = "Reached expected number of succeeded pods";
            self.verdict = Some(Verdict::succeeded("CompletionsReached", message));
        }
    }

    fn failure(&mut self) -> Option<Verdict> {
        let job = self.job;
        for (_, meaning) in &self.newly {
            if let Meaning::FailsJob(why) = meaning {
                return Some(Verdict::failed("PodFailurePolicy", why.as_str()));
            }
        }
        let limit = number(job, &["spec", "backoffLimit"]).unwrap_or(6);
        let restarts_in_place =
            object::text(job, &["spec", "template", "spec", "restartPolicy"]) == "OnFailure";
        let restarts: i64 = self.active.iter().map(|pod| pod::restarts(pod)).sum();
        let too_many_restarts = restarts_in_place && restarts >= limit.max(1);
        if self.failed_now() > limit || too_many_restarts {
            let message = "Job has reached the specified backoff limit";
            return Some(Verdict::failed("BackoffLimitExceeded", message));
        }
        let deadline = number(job, &["spec", "activeDeadlineSeconds"])?;
        let started = time::parse(object::text(job, &["status", "startTime"]));
        if self.is_suspended() {
            return None;
        }
        let end = started.unwrap_or(self.now) + SignedDuration::from_secs(deadline);
        match Duration::try_from(end.duration_since(self.now)) {
            Ok(left) if !left.is_zero() => {
                self.plan.again = sooner(self.plan.again, Some(left));
                None
            }
            Ok(_) | Err(_) => {
                let message = "Job was active longer than specified deadline";
                Some(Verdict::failed("DeadlineExceeded", message))
            }
        }
    }

    fn failure_of_indexes(&self) -> Option<Verdict> {
        self.limit_per_index()?;
        let failed = count(self.failed_indexes.len());
        let max = number(self.job, &["spec", "maxFailedIndexes"]);
        if max.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Verdict::failed("MaxFailedIndexesExceeded", message));
        }
        let ended = failed + count(self.succeeded_indexes.len());
        (failed > 0 && ended >= completions(self.job)?)
            .then(|| Verdict::failed("FailedIndexes", "Job has failed indexes"))
    }

    fn early_success(&self) -> Option<Verdict> {
        let rule = policy::success_rule(self.job, &self.succeeded_indexes)?;
        let message = format!("Matched rules at index {rule}");
        Some(Verdict::succeeded("SuccessPolicy", message))
    }

    /// Names who has ended in the status, and lets those go that are named there already or need
    /// not be.
    fn count(&mut self) {
        let job = self.job;
        let has_failed = self.verdict.as_ref().is_some_and(|one| !one.is_success);
        let newly = std::mem::take(&mut self.newly);
        for (pod, meaning) in &newly {
            if !has_failed && self.is_memory_of_index(pod) {
                continue;
            }
            let is_counted = !is_indexed(job) || pod::index(job, pod).is_some();
            if *meaning != Meaning::Ignored && is_counted {
                self.uncounted.failed.push(object::uid(pod).to_owned());
            }
            self.plan.untrack.push((*pod).clone());
        }
        self.newly = newly;
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let uid = object::uid(pod);
            let is_seen = phase(pod) == "Succeeded" || self.uncounted.has(uid);
            if is_seen && !self.plan.untrack.iter().any(|one| object::uid(one) == uid) {
                self.plan.untrack.push(pod.clone());
            } else if has_failed && !is_seen && !is_finished(pod) {
                // Of a Job that has failed every pod has failed.
                self.uncounted.failed.push(uid.to_owned());
                self.plan.untrack.push(pod.clone());
            }
        }
    }

    /// The latest failure of an index that goes on: the next pod continues its count, so it must
    /// not be lost before.
    fn is_memory_of_index(&self, pod: &Value) -> bool {
        if self.limit_per_index().is_none() {
            return false;
        }
        let Some(index) = pod::index(self.job, pod) else {
            return false;
        };
        let is_over = self.succeeded_indexes.contains(&index)
            || self.failed_indexes.contains(&index)
            || self.verdict.is_some();
        !is_over && !self.successor_exists(pod, index)
    }

    fn successor_exists(&self, pod: &Value, index: i64) -> bool {
        let sum = Failures::before(pod).sum();
        self.pods.iter().any(|other| {
            pod::index(self.job, other) == Some(index) && Failures::before(other).sum() > sum
        })
    }

    /// The Job is over: its pods go, and when the last has gone it says so.
    fn finish(&mut self, verdict: &Verdict) {
        let active = std::mem::take(&mut self.active);
        let (target, end) = (verdict.target(), verdict.end());
        let (reason, message) = (verdict.reason.as_str(), verdict.message.as_str());
        let status = &mut self.plan.status;
        status::set(status, target, "True", reason, message, self.now);
        self.plan.end = active.into_iter().cloned().collect();
        let is_counting = !self.uncounted.succeeded.is_empty() || !self.uncounted.failed.is_empty();
        let waits = !self.plan.end.is_empty() || self.terminating > 0;
        if waits || is_counting || !self.plan.untrack.is_empty() {
            return;
        }
        status::set(status, end, "True", reason, message, self.now);
        if verdict.is_success {
            status["completionTime"] = time::seconds(self.now).into();
            let succeeded = number(status, &["succeeded"]).unwrap_or(0);
            if number(self.job, &["spec", "completions"]).is_some_and(|asked| succeeded > asked) {
                let message = "Too many succeeded pods running after completion count reached";
                let news = News::warning("TooManySucceededPods", message);
                self.plan.news.push(news);
            }
            self.plan
                .news
                .push(News::normal("Completed", "Job completed"));
        } else {
            let reason = match reason {
                "BackoffLimitExceeded" => "BackoffLimitExceeded",
                "DeadlineExceeded" => "DeadlineExceeded",
                "PodFailurePolicy" => "PodFailurePolicy",
                "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
                _ => "FailedIndexes",
            };
            self.plan.news.push(News::warning(reason, message));
        }
    }

    fn write_status(&mut self) {
        let job = self.job;
        let is_ready = |pod: &&&Value| is_ready(pod);
        let ready = self.active.iter().filter(is_ready).count();
        let mut uncounted = json!({});
        for (field, uids) in [
            ("succeeded", &self.uncounted.succeeded),
            ("failed", &self.uncounted.failed),
        ] {
            if !uids.is_empty() {
                uncounted[field] = json!(uids);
            }
        }
        if is_indexed(job) {
            self.succeeded = count(self.succeeded_indexes.len());
        }
        let status = &mut self.plan.status;
        status["uncountedTerminatedPods"] = uncounted;
        status["ready"] = ready.into();
        status["terminating"] = self.terminating.into();
        let numbers = [
            ("active", count(self.active.len())),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
        ];
        let numbers = numbers.map(|(field, count)| (field, (count > 0).then(|| json!(count))));
        let done = indexes::format(&self.succeeded_indexes);
        let failed = indexes::format(&self.failed_indexes);
        let is_per_index = job["spec"]["backoffLimitPerIndex"].is_i64();
        let texts = [
            ("completedIndexes", (!done.is_empty()).then(|| json!(done))),
            ("failedIndexes", is_per_index.then(|| json!(failed))),
        ];
        let Some(status) = status.as_object_mut() else {
            return;
        };
        for (field, value) in numbers.into_iter().chain(texts) {
            // Go leaves zeros out.
            match value {
                Some(value) => drop(status.insert(field.into(), value)),
                None => drop(status.remove(field)),
            }
        }
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
