//! How many pods a Job that goes on makes and gives up, and when. Pure.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::{Planner, count};
use crate::controllers::events::News;
use crate::controllers::job::indexes::Indexes;
use crate::controllers::job::pod::{self, Failures, completions, is_indexed};
use crate::controllers::job::policy::{self, Meaning};
use crate::controllers::job::status;
use crate::controllers::pods::{has_condition, is_active, is_finished, number, phase, sooner};
use crate::controllers::workloads::victims;
use crate::object;
use crate::time;

/// Pods made or deleted before the Job is looked at again; upstream's number.
const BURST: usize = 500;
/// Upstream's first and longest pause after a failed pod.
const BACK_OFF_MIN_S: i64 = 10;
const BACK_OFF_MAX_S: i64 = 600;

impl Planner<'_> {
    /// As many pods as are wanted now.
    pub(super) fn manage(&mut self) {
        if object::is_terminating(self.job) {
            return;
        }
        if self.is_suspended() {
            self.suspend();
            return;
        }
        self.start();
        let parallelism = number(self.job, &["spec", "parallelism"]).unwrap_or(1);
        let done = self.succeeded_now();
        let wanted = match completions(self.job) {
            // One success is enough; those that still run may end.
            None if done > 0 => parallelism.min(count(self.active.len())),
            None => parallelism,
            Some(completions) => (completions - done).clamp(0, parallelism),
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        self.give_up(wanted);
        let mut present = self.active.len() - self.plan.give_up.len();
        if pod::replaces_failed_only(self.job) {
            present += self.terminating;
        }
        let missing = wanted.saturating_sub(present).min(BURST);
        if missing == 0 || !self.plan.give_up.is_empty() {
            return;
        }
        if is_indexed(self.job) {
            self.create_indexed(missing);
            return;
        }
        match self.pause(self.pods.iter()) {
            Some(left) => self.plan.again = sooner(self.plan.again, Some(left)),
            None => {
                let make = || pod::make(self.job, None, Failures::default());
                self.plan.create = std::iter::repeat_with(make).take(missing).collect();
            }
        }
    }

    fn suspend(&mut self) {
        let active = self.active.iter().take(BURST);
        self.plan.give_up = active.map(|pod| (*pod).clone()).collect();
        let status = &mut self.plan.status;
        let before = status["conditions"].clone();
        let (reason, message) = ("JobSuspended", "Job suspended");
        status::set(status, "Suspended", "True", reason, message, self.now);
        if let Some(status) = status.as_object_mut() {
            status.remove("startTime");
        }
        if before != status["conditions"] {
            self.plan.news.push(News::normal("Suspended", message));
        }
    }

    fn start(&mut self) {
        let status = &mut self.plan.status;
        if has_condition(self.job, "Suspended") {
            let (reason, message) = ("JobResumed", "Job resumed");
            status::set(status, "Suspended", "False", reason, message, self.now);
            self.plan.news.push(News::normal("Resumed", message));
            status["startTime"] = time::seconds(self.now).into();
        }
        if !status["startTime"].is_string() {
            status["startTime"] = time::seconds(self.now).into();
        }
    }

    /// Pods of no or of a taken index, then those that are too many.
    fn give_up(&mut self, wanted: usize) {
        let ranked = victims::choose(&self.active, self.active.len());
        let mut give_up: Vec<&Value> = Vec::new();
        if is_indexed(self.job) {
            // The best pod of an index stays: the last one in the ranking.
            let mut seen = Indexes::new();
            for pod in ranked.iter().rev() {
                let index = pod::index(self.job, pod);
                if index.is_none_or(|index| !seen.insert(index)) {
                    give_up.push(pod);
                }
            }
        }
        let surplus = self.active.len().saturating_sub(wanted);
        for pod in ranked {
            if give_up.len() >= surplus {
                break;
            }
            if !give_up
                .iter()
                .any(|one| object::uid(one) == object::uid(pod))
            {
                give_up.push(pod);
            }
        }
        give_up.truncate(BURST);
        self.plan.give_up = give_up.into_iter().cloned().collect();
    }

    fn create_indexed(&mut self, missing: usize) {
        let waits = pod::replaces_failed_only(self.job);
        let taken = self.pods.iter().filter(|pod| {
            is_active(pod) || (waits && object::is_terminating(pod) && !is_finished(pod))
        });
        let taken: Indexes = taken.filter_map(|pod| pod::index(self.job, pod)).collect();
        let is_free = |index: &i64| {
            !taken.contains(index)
                && !self.succeeded_indexes.contains(index)
                && !self.failed_indexes.contains(index)
        };
        let free = (0..completions(self.job).unwrap_or(0)).filter(is_free);
        let per_index = self.limit_per_index().is_some();
        if !per_index && let Some(left) = self.pause(self.pods.iter()) {
            self.plan.again = sooner(self.plan.again, Some(left));
            return;
        }
        let mut again = None;
        let mut create = Vec::new();
        for index in free {
            if create.len() == missing {
                break;
            }
            let (job, pods) = (self.job, self.pods);
            let of_index = || {
                let is_of_it = move |pod: &&Value| pod::index(job, pod) == Some(index);
                pods.iter().filter(is_of_it)
            };
            if per_index && let Some(left) = self.pause(of_index()) {
                again = sooner(again, Some(left));
                continue;
            }
            let failures = if per_index {
                self.failures(of_index())
            } else {
                Failures::default()
            };
            create.push(pod::make(self.job, Some(index), failures));
        }
        self.plan.create = create;
        self.plan.again = sooner(self.plan.again, again);
    }

    /// The count with which the next pod of an index begins.
    fn failures<'b>(&self, pods: impl Iterator<Item = &'b Value>) -> Failures {
        let failed = pods.filter(|pod| pod::has_failed(self.job, pod));
        let Some(last) = failed.max_by_key(|pod| Failures::before(pod).sum()) else {
            return Failures::default();
        };
        let before = Failures::before(last);
        match policy::meaning(self.job, last) {
            Meaning::Ignored => Failures {
                ignored: before.ignored + 1,
                ..before
            },
            Meaning::Counts | Meaning::FailsIndex | Meaning::FailsJob(_) => Failures {
                counted: before.counted + 1,
                ..before
            },
        }
    }

    /// What is left of the pause after failures in a row; it doubles with each.
    fn pause<'b>(&self, pods: impl Iterator<Item = &'b Value>) -> Option<Duration> {
        let (mut failures, mut success) = (Vec::new(), None);
        for pod in pods {
            if phase(pod) == "Succeeded" {
                success = success.max(pod::finished_at(pod));
            } else if pod::has_failed(self.job, pod) {
                failures.extend(pod::finished_at(pod));
            }
        }
        failures.retain(|at| success.is_none_or(|success| *at > success));
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(16).min(16);
        let pause_s = (BACK_OFF_MIN_S << doublings).min(BACK_OFF_MAX_S);
        let left = (*last + SignedDuration::from_secs(pause_s)).duration_since(self.now);
        let left = Duration::try_from(left).ok();
        left.filter(|left| !left.is_zero())
    }
}
