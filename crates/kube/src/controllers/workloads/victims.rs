//! Which pods a ReplicaSet gives up first, as upstream ranks them. Pure.

use std::cmp::Reverse;

use jiff::Timestamp;
use serde_json::Value;

use crate::object;
use crate::time;

/// The user's wish: the pod with the lowest cost goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete: unscheduled before scheduled, pending before running, not ready
/// before ready, cheap before dear, then those that are ready for the shorter time, that have
/// restarted more often, and that are younger.
pub(in crate::controllers) fn choose<'a>(pods: &[&'a Value], count: usize) -> Vec<&'a Value> {
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| rank(pod));
    ranked.truncate(count);
    ranked
}

/// Least first. Times are negated where the later one goes first.
type Rank = (
    bool,
    u8,
    bool,
    i64,
    Reverse<Option<Timestamp>>,
    Reverse<i64>,
    Reverse<Option<Timestamp>>,
    String,
);

fn rank(pod: &Value) -> Rank {
    let phase = match object::text(pod, &["status", "phase"]) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = object::at(pod, &["metadata", "annotations", DELETION_COST]);
    let cost = cost
        .and_then(Value::as_str)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    let restarts = object::items(pod, &["status", "containerStatuses"])
        .iter()
        .filter_map(|status| status["restartCount"].as_i64())
        .max();
    (
        !object::text(pod, &["spec", "nodeName"]).is_empty(),
        phase,
        is_ready(pod),
        cost,
        Reverse(ready_since(pod)),
        Reverse(restarts.unwrap_or(0)),
        Reverse(object::meta(pod, "creationTimestamp").and_then(time::parse)),
        object::name(pod).to_owned(),
    )
}

fn ready(pod: &Value) -> Option<&Value> {
    object::items(pod, &["status", "conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub(in crate::controllers) fn is_ready(pod: &Value) -> bool {
    ready(pod).is_some()
}

pub(in crate::controllers) fn ready_since(pod: &Value) -> Option<Timestamp> {
    ready(pod).and_then(|ready| time::parse(object::text(ready, &["lastTransitionTime"])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready_s: Option<i64>, created_s: i64) -> Value {
        let at = |seconds: i64| time::seconds(Timestamp::from_second(seconds).unwrap());
        let mut conditions = json!([]);
        if let Some(seconds) = ready_s {
            conditions = json!([{"type": "Ready", "status": "True",
                "lastTransitionTime": at(seconds)}]);
        }
        json!({"metadata": {"name": name, "creationTimestamp": at(created_s)},
            "spec": {"nodeName": node}, "status": {"phase": phase, "conditions": conditions}})
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let mut cheap = pod("cheap", "n", "Running", Some(10), 0);
        cheap["metadata"]["annotations"] = json!({DELETION_COST: "-5"});
        let mut shaky = pod("shaky", "n", "Running", Some(50), 0);
        shaky["status"]["containerStatuses"] = json!([{"restartCount": 4}]);
        let pods = [
            pod("old", "n", "Running", Some(10), 1),
            pod("young", "n", "Running", Some(10), 9),
            shaky,
            pod("fresh", "n", "Running", Some(60), 0),
            cheap,
            pod("unready", "n", "Running", None, 0),
            pod("pending", "n", "Pending", None, 0),
            pod("unscheduled", "", "Pending", None, 0),
        ];
        let refs: Vec<_> = pods.iter().collect();
        let order: Vec<_> = choose(&refs, 8).into_iter().map(object::name).collect();
        let expected = [
            "unscheduled",
            "pending",
            "unready",
            "cheap",
            "fresh",
            "shaky",
            "young",
            "old",
        ];
        assert_eq!(order, expected);
        assert_eq!(choose(&refs, 2).len(), 2);
    }
}
