//! Jobs against a small world in which pods succeed, fail, are deleted, and the controller dies
//! between any two of its writes.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::pod::{INDEX, index};
use super::status::ending;
use super::*;
use crate::controllers::pods::{annotation, is_active, is_finished};

fn job(spec: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "work", "namespace": "n", "uid": "j"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6,
            "completionMode": "NonIndexed", "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}}},
        "status": {}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job
}

struct World {
    job: Value,
    pods: BTreeMap<String, Value>,
    now: Timestamp,
    made: u32,
    news: Vec<&'static str>,
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            job: job(spec),
            pods: BTreeMap::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            made: 0,
            news: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<_> = self.pods.values().cloned().collect();
        plan(&self.job, &pods, self.now)
    }

    /// One look, of which only the first `writes` writes are done.
    fn sync_until(&mut self, writes: usize) -> usize {
        let plan = self.plan();
        let mut left = writes;
        let mut may = || {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        };
        let mut changes = 0;
        if self.job["status"] != plan.status {
            changes += 1;
            if !may() {
                return changes;
            }
            self.job["status"] = plan.status;
        }
        self.news.extend(plan.news.iter().map(|one| one.reason));
        for pod in plan.untrack.iter().chain(&plan.give_up) {
            changes += usize::from(is_tracked(pod));
            if !may() {
                return changes;
            }
            let name = object::name(pod);
            self.pods.get_mut(name).unwrap()["metadata"]["finalizers"] = json!([]);
            self.collect(name);
        }
        for pod in plan.end.iter().chain(&plan.give_up) {
            changes += 1;
            if !may() {
                return changes;
            }
            self.delete(object::name(pod));
        }
        for mut pod in plan.create {
            changes += 1;
            if !may() {
                return changes;
            }
            self.made += 1;
            let name = format!("p{:03}", self.made);
            pod["metadata"]["name"] = name.as_str().into();
            pod["metadata"]["uid"] = format!("u{name}").into();
            pod["status"] = json!({"phase": "Running"});
            self.pods.insert(name, pod);
        }
        changes
    }

    fn sync(&mut self) -> usize {
        self.sync_until(usize::MAX)
    }

    fn end(&mut self, name: &str, phase: &str, code: i64) {
        let now = crate::time::seconds(self.now);
        if let Some(pod) = self.pods.get_mut(name)
            && !is_finished(pod)
        {
            pod["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c",
                "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]});
        }
    }

    fn delete(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:30Z".into();
        }
    }

    /// The kubelet lets go what is being deleted; finalizers keep it.
    fn collect(&mut self, name: &str) {
        let is_gone = self
            .pods
            .get(name)
            .is_some_and(|pod| object::is_terminating(pod) && !object::has_finalizers(pod));
        if is_gone {
            self.pods.remove(name);
        }
    }

    fn active(&self) -> Vec<String> {
        let active = self.pods.iter().filter(|(_, pod)| is_active(pod));
        active.map(|(name, _)| name.clone()).collect()
    }

    /// Looks until nothing changes, with time enough for every pause.
    fn rest(&mut self) {
        for _ in 0..100 {
            let names: Vec<_> = self.pods.keys().cloned().collect();
            names.iter().for_each(|name| self.collect(name));
            self.now += SignedDuration::from_secs(700);
            if self.sync() == 0 {
                return;
            }
        }
        panic!("never comes to rest: {}", self.job["status"]);
    }

    fn reason(&self, kind: &str) -> &str {
        let found = crate::controllers::pods::condition(&self.job, kind);
        found.map_or("", |one| object::text(one, &["reason"]))
    }
}

#[test]
fn a_job_runs_as_many_as_wanted_and_completes_when_enough_have_succeeded() {
    let mut world = World::new(json!({}));
    world.sync();
    assert_eq!(world.active().len(), 2);
    for name in world.active() {
        world.end(&name, "Succeeded", 0);
    }
    world.sync();
    assert_eq!(world.active().len(), 1, "one is missing");
    world.rest();
    assert_eq!(world.job["status"]["succeeded"], 2);
    assert_eq!(world.job["status"]["active"], 1);
    assert!(
        world
            .pods
            .values()
            .filter(|pod| is_finished(pod))
            .all(|pod| !is_tracked(pod))
    );
    let last = world.active().remove(0);
    world.end(&last, "Succeeded", 0);
    world.rest();
    let status = &world.job["status"];
    assert_eq!(ending(&world.job), Some("Complete"));
    assert_eq!(world.reason("SuccessCriteriaMet"), "CompletionsReached");
    assert_eq!(
        (&status["succeeded"], &status["active"]),
        (&json!(3), &Value::Null)
    );
    assert!(status["completionTime"].is_string());
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert_eq!(world.news, ["Completed"]);
}

#[test]
fn failures_pause_longer_and_longer_and_end_at_the_limit() {
    let mut world = World::new(json!({"parallelism": 1, "completions": 1, "backoffLimit": 2}));
    for expected_s in [10, 20] {
        world.sync();
        let name = world.active().remove(0);
        world.end(&name, "Failed", 1);
        let plan = world.plan();
        assert!(plan.create.is_empty());
        assert_eq!(plan.again, Some(std::time::Duration::from_secs(expected_s)));
        world.rest();
    }
    let name = world.active().remove(0);
    world.end(&name, "Failed", 1);
    world.rest();
    assert_eq!(ending(&world.job), Some("Failed"));
    assert_eq!(world.reason("Failed"), "BackoffLimitExceeded");
    assert_eq!(world.job["status"]["failed"], 3);
    assert_eq!(world.news, ["BackoffLimitExceeded"]);
}

#[test]
fn indexed_pods_know_their_index_and_each_index_has_one() {
    let mut world = World::new(json!({"completionMode": "Indexed", "parallelism": 3,
        "completions": 4}));
    world.sync();
    let indexes: Vec<_> = world
        .pods
        .values()
        .map(|pod| index(&world.job, pod))
        .collect();
    assert_eq!(indexes, [Some(0), Some(1), Some(2)]);
    let pod = &world.pods["p002"];
    assert_eq!(pod["metadata"]["generateName"], "work-1-");
    assert_eq!(pod["spec"]["hostname"], "work-1");
    assert_eq!(
        (annotation(pod, INDEX), object::label(pod, INDEX)),
        (Some("1"), Some("1"))
    );
    for list in ["containers", "initContainers"] {
        assert_eq!(
            pod["spec"][list][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.labels['batch.kubernetes.io/job-completion-index']"
        );
    }
    world.end("p001", "Succeeded", 0);
    world.end("p003", "Succeeded", 0);
    world.rest();
    assert_eq!(world.job["status"]["completedIndexes"], "0,2");
    for name in world.active() {
        world.end(&name, "Succeeded", 0);
    }
    world.rest();
    assert_eq!(world.job["status"]["completedIndexes"], "0-3");
    assert_eq!(ending(&world.job), Some("Complete"));
}

#[test]
fn an_index_fails_by_itself_and_the_job_when_all_have_ended_or_too_many_failed() {
    let spec = json!({"completionMode": "Indexed", "parallelism": 2, "completions": 2,
        "backoffLimit": 1000, "backoffLimitPerIndex": 1});
    let mut world = World::new(spec);
    world.sync();
    world.end("p001", "Succeeded", 0);
    for _ in 0..2 {
        let name = world
            .active()
            .into_iter()
            .find(|name| index(&world.job, &world.pods[name]) == Some(1))
            .expect("index 1 runs");
        world.end(&name, "Failed", 1);
        world.rest();
    }
    assert_eq!(world.job["status"]["failedIndexes"], "1");
    assert_eq!(world.job["status"]["completedIndexes"], "0");
    assert_eq!(world.reason("Failed"), "FailedIndexes");
    assert_eq!(world.job["status"]["failed"], 2);
    let mut world = World::new(json!({"completionMode": "Indexed", "parallelism": 4,
        "completions": 4, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}));
    world.sync();
    world.end("p001", "Failed", 1);
    world.rest();
    assert_eq!(ending(&world.job), None);
    world.end("p002", "Failed", 1);
    world.rest();
    assert_eq!(world.reason("Failed"), "MaxFailedIndexesExceeded");
    assert!(world.pods.values().all(|pod| !is_tracked(pod)));
}

#[test]
fn policies_end_a_job_early_or_ignore_a_failure() {
    let rules = json!([
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
    let mut world = World::new(json!({"backoffLimit": 0, "podFailurePolicy": {"rules": rules}}));
    world.sync();
    world.end("p001", "Failed", 7);
    world.pods.get_mut("p001").unwrap()["status"]["conditions"] =
        json!([{"type": "DisruptionTarget", "status": "True"}]);
    world.rest();
    assert_eq!(ending(&world.job), None);
    assert_eq!(world.job["status"]["failed"], Value::Null);
    world.end("p002", "Failed", 42);
    world.rest();
    assert_eq!(world.reason("FailureTarget"), "PodFailurePolicy");
    assert_eq!(world.reason("Failed"), "PodFailurePolicy");
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 3,
        "parallelism": 3, "successPolicy": policy}));
    world.sync();
    world.end("p001", "Succeeded", 0);
    world.rest();
    assert_eq!(world.reason("SuccessCriteriaMet"), "SuccessPolicy");
    assert_eq!(world.reason("Complete"), "SuccessPolicy");
    assert_eq!(world.job["status"]["completedIndexes"], "0");
}

#[test]
fn a_job_is_suspended_and_resumed_and_its_deadline_counts_from_then() {
    let mut world = World::new(json!({"suspend": true, "activeDeadlineSeconds": 60}));
    world.rest();
    assert!(world.pods.is_empty());
    assert_eq!(world.reason("Suspended"), "JobSuspended");
    world.job["spec"]["suspend"] = false.into();
    world.sync();
    assert_eq!(world.active().len(), 2);
    assert_eq!(world.reason("Suspended"), "JobResumed");
    let plan = world.plan();
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(60)));
    world.job["spec"]["suspend"] = true.into();
    world.sync();
    assert!(world.active().is_empty());
    assert_eq!(world.job["status"]["failed"], Value::Null);
    world.job["spec"]["suspend"] = false.into();
    world.sync();
    world.now += SignedDuration::from_secs(61);
    world.sync();
    world.rest();
    assert_eq!(world.reason("Failed"), "DeadlineExceeded");
    assert_eq!(
        world.news,
        [
            "Suspended",
            "Resumed",
            "Suspended",
            "Resumed",
            "DeadlineExceeded"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// However pods end and wherever the controller dies, no more run than are wanted, each pod is
    /// counted once, and no count ever goes back.
    #[test]
    fn every_pod_is_counted_once_wherever_the_controller_dies(
        is_indexed in any::<bool>(),
        steps in prop::collection::vec((0..6u8, 0..9usize), 1..80)
    ) {
        let mode = if is_indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::new(json!({"completionMode": mode, "parallelism": 3,
            "completions": 5, "backoffLimit": 4}));
        let (mut succeeded, mut failed) = (0, 0);
        let mut counts = (0, 0);
        for (step, which) in steps {
            let name = world.active().get(which).cloned();
            match (step, name) {
                (0, Some(name)) => {
                    world.end(&name, "Succeeded", 0);
                    succeeded += 1;
                }
                (1, Some(name)) => {
                    world.end(&name, "Failed", 1);
                    failed += 1;
                }
                (2, _) => {
                    let names: Vec<_> = world.pods.keys().cloned().collect();
                    names.iter().for_each(|name| world.collect(name));
                }
                (3, _) => world.now += SignedDuration::from_secs(700),
                (4, _) => drop(world.sync_until(which)),
                _ => drop(world.sync()),
            }
            prop_assert!(world.active().len() <= 3);
            let count = |field: &str| world.job["status"][field].as_i64().unwrap_or(0);
            let after = (count("succeeded"), count("failed"));
            prop_assert!(after.0 >= counts.0 && after.1 >= counts.1, "{after:?} {counts:?}");
            counts = after;
        }
        world.rest();
        let ended = ending(&world.job);
        prop_assert!(counts.0 <= succeeded);
        if ended != Some("Failed") {
            prop_assert_eq!(world.job["status"]["failed"].as_i64().unwrap_or(0), failed);
            prop_assert_eq!(world.job["status"]["succeeded"].as_i64().unwrap_or(0), succeeded);
        }
        prop_assert_eq!(ended.is_some(), succeeded >= 5 || failed > 4);
    }
}
