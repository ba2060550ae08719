//! A Job's pods: what is in them because of the Job, and what is read from them. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::pods::{self, annotation, number};
use crate::object;
use crate::time;

/// Keeps a pod until the Job has counted it.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(super) fn is_indexed(job: &Value) -> bool {
    object::text(job, &["spec", "completionMode"]) == "Indexed"
}

pub(super) fn completions(job: &Value) -> Option<i64> {
    number(job, &["spec", "completions"])
}

pub(super) fn is_tracked(pod: &Value) -> bool {
    let finalizers = object::items(pod, &["metadata", "finalizers"]);
    finalizers.iter().any(|one| one == FINALIZER)
}

/// The pod's index, if it is one of the Job's.
pub(super) fn index(job: &Value, pod: &Value) -> Option<i64> {
    let index: i64 = annotation(pod, INDEX)?.parse().ok()?;
    (0..completions(job)?).contains(&index).then_some(index)
}

/// Failures of an index before a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i64,
    pub(super) ignored: i64,
}

impl Failures {
    pub(super) fn before(pod: &Value) -> Self {
        let count = |key| annotation(pod, key).and_then(|text| text.parse().ok());
        Self {
            counted: count(FAILURES).unwrap_or(0),
            ignored: count(IGNORED_FAILURES).unwrap_or(0),
        }
    }

    pub(super) fn sum(self) -> i64 {
        self.counted + self.ignored
    }
}

/// A new pod of the Job.
pub(super) fn make(job: &Value, index: Option<i64>, failures: Failures) -> Value {
    let template = &job["spec"]["template"];
    let mut pod = pods::of_template(template, job);
    let mut finalizers = object::items(&pod, &["metadata", "finalizers"]).to_vec();
    finalizers.push(FINALIZER.into());
    object::meta_mut(&mut pod).insert("finalizers".into(), finalizers.into());
    let Some(index) = index else {
        return pod;
    };
    let name = format!("{}-{index}", object::name(job));
    object::meta_mut(&mut pod).insert("generateName".into(), format!("{name}-").into());
    pods::annotate(&mut pod, INDEX, &index.to_string());
    pods::label(&mut pod, INDEX, &index.to_string());
    if job["spec"]["backoffLimitPerIndex"].is_i64() {
        pods::annotate(&mut pod, FAILURES, &failures.counted.to_string());
        if failures.ignored > 0 {
            pods::annotate(&mut pod, IGNORED_FAILURES, &failures.ignored.to_string());
        }
    }
    let spec = object::map_mut(&mut pod, "spec");
    spec.insert("hostname".into(), name.into());
    let variable = json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {
        "apiVersion": "v1", "fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mut env = object::items(container, &["env"]).to_vec();
            if !env.iter().any(|one| one["name"] == INDEX_VARIABLE) {
                env.push(variable.clone());
                container["env"] = env.into();
            }
        }
    }
    pod
}

/// A pod that is replaced is one that has failed; one that is being deleted too, unless the Job
/// wants to see it fail first.
pub(super) fn has_failed(job: &Value, pod: &Value) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => object::is_terminating(pod) && !replaces_failed_only(job),
    }
}

pub(super) fn replaces_failed_only(job: &Value) -> bool {
    let policy = object::text(job, &["spec", "podReplacementPolicy"]);
    policy == "Failed" || (policy.is_empty() && job["spec"]["podFailurePolicy"].is_object())
}

/// When a pod ended: its last container, or its condition, or its deletion.
pub(super) fn finished_at(pod: &Value) -> Option<Timestamp> {
    let statuses = object::items(pod, &["status", "containerStatuses"]).iter();
    let ends = statuses.filter_map(|one| {
        let at = object::text(one, &["state", "terminated", "finishedAt"]);
        time::parse(at)
    });
    let ready = pods::condition(pod, "Ready");
    let turned = ready.map(|one| object::text(one, &["lastTransitionTime"]));
    ends.max()
        .or_else(|| object::meta(pod, "deletionTimestamp").and_then(time::parse))
        .or_else(|| turned.and_then(time::parse))
        .or_else(|| object::meta(pod, "creationTimestamp").and_then(time::parse))
}

/// Restarts of the containers of a pod that has not ended.
pub(super) fn restarts(pod: &Value) -> i64 {
    let mains = object::items(pod, &["status", "containerStatuses"]).iter();
    let inits = object::items(pod, &["status", "initContainerStatuses"]).iter();
    let counts = mains.chain(inits);
    counts.filter_map(|one| one["restartCount"].as_i64()).sum()
}
