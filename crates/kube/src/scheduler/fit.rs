//! Whether a pod may and can go to a node. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::object::{self, items, text};
use crate::provider::milli_of;

/// Why a pod fits nowhere, in the words of Kubernetes' scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unschedulable {
    nodes: usize,
    /// How many nodes said what.
    reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        for (index, (reason, count)) in self.reasons.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} {reason}")?;
        }
        f.write_str(".")
    }
}

/// Whether a pod waits for this scheduler.
pub(super) fn is_ours(pod: &Value) -> bool {
    let scheduler = text(pod, &["spec", "schedulerName"]);
    text(pod, &["spec", "nodeName"]).is_empty()
        && matches!(scheduler, "" | "default-scheduler")
        && items(pod, &["spec", "schedulingGates"]).is_empty()
        && !object::is_terminating(pod)
        && !is_over(pod)
}

/// Whether a pod holds nothing of its node any more.
pub(super) fn is_over(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Whether two states of a node are the same to the scheduler: heartbeats change every minute.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a["spec"] == b["spec"]
        && a["metadata"]["labels"] == b["metadata"]["labels"]
        && a["status"]["allocatable"] == b["status"]["allocatable"]
        && is_ready(a) == is_ready(b)
}

fn is_ready(node: &Value) -> bool {
    let mut conditions = items(node, &["status", "conditions"]).iter();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The node for `pod`: of those it fits on the one with the most memory left, then by name.
///
/// # Errors
/// Why it fits on none.
pub(super) fn choose<'a>(
    pod: &Value,
    nodes: impl Iterator<Item = &'a Value>,
    pods: impl Iterator<Item = &'a Value> + Clone,
) -> Result<String, Unschedulable> {
    let mut refused = Unschedulable {
        nodes: 0,
        reasons: BTreeMap::new(),
    };
    let mut best: Option<(u128, &str)> = None;
    for node in nodes {
        refused.nodes += 1;
        match free_after(pod, node, pods.clone()) {
            Ok(free) => {
                let name = object::name(node);
                let better =
                    best.is_none_or(|(most, first)| free > most || free == most && name < first);
                if better {
                    best = Some((free, name));
                }
            }
            Err(reason) => *refused.reasons.entry(reason).or_default() += 1,
        }
    }
    match best {
        Some((_, node)) => Ok(node.to_owned()),
        None => Err(refused),
    }
}

/// Memory that `node` has left when `pod` is there, in thousandths of bytes; else why it cannot
/// be there.
fn free_after<'a>(
    pod: &Value,
    node: &Value,
    pods: impl Iterator<Item = &'a Value>,
) -> Result<u128, String> {
    let unschedulable = node["spec"]["unschedulable"] == true;
    let key = "node.kubernetes.io/unschedulable";
    if unschedulable && !tolerates(pod, key, "", "NoSchedule") {
        return Err("node(s) were unschedulable".into());
    }
    if !is_ready(node) {
        return Err("node(s) were not ready".into());
    }
    for taint in items(node, &["spec", "taints"]) {
        let (key, value) = (text(taint, &["key"]), text(taint, &["value"]));
        let effect = text(taint, &["effect"]);
        if effect != "PreferNoSchedule" && !tolerates(pod, key, value, effect) {
            return Err(format!("node(s) had untolerated taint {{{key}: {value}}}"));
        }
    }
    if !selected(pod, node) {
        return Err("node(s) didn't match Pod's node affinity/selector".into());
    }
    let mut used: BTreeMap<&str, u128> = BTreeMap::new();
    let here = object::name(node);
    for other in pods.filter(|p| text(p, &["spec", "nodeName"]) == here && !is_over(p)) {
        *used.entry("pods").or_default() += 1000;
        for resource in RESOURCES {
            *used.entry(resource).or_default() += requested(other, resource);
        }
    }
    let mut free = 0;
    for (resource, word) in [
        ("pods", "Too many pods"),
        ("cpu", "Insufficient cpu"),
        ("memory", "Insufficient memory"),
        ("ephemeral-storage", "Insufficient ephemeral-storage"),
    ] {
        let needed = if resource == "pods" {
            1000
        } else {
            requested(pod, resource)
        };
        let total = object::at(node, &["status", "allocatable", resource]);
        let total = total.and_then(milli_of).unwrap_or(0);
        let left = total.saturating_sub(used.get(resource).copied().unwrap_or(0));
        if needed > left {
            return Err(word.into());
        }
        if resource == "memory" {
            free = left - needed;
        }
    }
    Ok(free)
}

const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Thousandths of a resource that a pod asks for: its containers together, or its largest init
/// container if that is more.
fn requested(pod: &Value, resource: &str) -> u128 {
    let of = |container: &Value| {
        let asked = object::at(container, &["resources", "requests", resource]);
        asked.and_then(milli_of).unwrap_or(0)
    };
    let containers = items(pod, &["spec", "containers"]).iter();
    let sum: u128 = containers.map(of).sum();
    let inits = items(pod, &["spec", "initContainers"]).iter();
    let most = inits.map(of).max().unwrap_or(0);
    let overhead = object::at(pod, &["spec", "overhead", resource]).and_then(milli_of);
    sum.max(most) + overhead.unwrap_or(0)
}

pub(crate) fn tolerates(pod: &Value, key: &str, value: &str, effect: &str) -> bool {
    items(pod, &["spec", "tolerations"])
        .iter()
        .any(|toleration| {
            let own = |field| text(toleration, &[field]);
            let effect_fits = own("effect").is_empty() || own("effect") == effect;
            let fits = match own("operator") {
                "Exists" => own("key").is_empty() || own("key") == key,
                "" | "Equal" => own("key") == key && own("value") == value,
                _ => false,
            };
            effect_fits && fits
        })
}

/// nodeSelector and required node affinity.
pub(crate) fn selected(pod: &Value, node: &Value) -> bool {
    let selector = object::at(pod, &["spec", "nodeSelector"]).and_then(Value::as_object);
    let mut selector = selector.into_iter().flatten();
    if !selector.all(|(key, value)| object::label(node, key) == value.as_str()) {
        return false;
    }
    let path = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
    ];
    let Some(required) = object::at(pod, &path) else {
        return true;
    };
    // Terms are alternatives; an empty one selects nothing.
    items(required, &["nodeSelectorTerms"]).iter().any(|term| {
        let labels = items(term, &["matchExpressions"]);
        let fields = items(term, &["matchFields"]);
        let by_label = |e: &Value| meets(e, object::label(node, text(e, &["key"])));
        // Nodes have one field to select by.
        let by_name =
            |e: &Value| text(e, &["key"]) == "metadata.name" && meets(e, Some(object::name(node)));
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(by_label)
            && fields.iter().all(by_name)
    })
}

fn meets(expression: &Value, value: Option<&str>) -> bool {
    let values = items(expression, &["values"]);
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let numbers = || {
        let bound: i64 = values.first()?.as_str()?.parse().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match text(expression, &["operator"]) {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64", "n": "5"}},
            "spec": {}, "status": {
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2", "ephemeral-storage": "1Gi"},
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn pod(spec: &Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    fn fits(spec: &Value, nodes: &[Value], pods: &[Value]) -> Result<String, String> {
        choose(&pod(spec), nodes.iter(), pods.iter()).map_err(|why| why.to_string())
    }

    #[test]
    fn a_plain_pod_goes_to_the_node_with_the_most_room() {
        assert_eq!(fits(&json!({}), &[node("b"), node("a")], &[]).unwrap(), "a");
        let there = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "a", "containers": [
            {"resources": {"requests": {"memory": "512Mi"}}}]}});
        assert_eq!(
            fits(&json!({}), &[node("b"), node("a")], &[there]).unwrap(),
            "b"
        );
    }

    #[test]
    fn without_nodes_nothing_is_available() {
        let why = fits(&json!({}), &[], &[]).unwrap_err();
        assert_eq!(why, "no nodes available to schedule pods");
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_number_of_nodes() {
        let spec = json!({"containers": [{"resources": {"requests": {"cpu": "3"}}}]});
        let why = fits(&spec, &[node("a"), node("b")], &[]).unwrap_err();
        assert_eq!(why, "0/2 nodes are available: 2 Insufficient cpu.");
        let spec = json!({"nodeSelector": {"gpu": "yes"}});
        let why = fits(&spec, &[node("a")], &[]).unwrap_err();
        assert_eq!(
            why,
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        );
    }

    #[test]
    fn pods_that_have_ended_hold_nothing() {
        let there = |phase: &str| {
            json!({"metadata": {"name": "x"}, "status": {"phase": phase}, "spec":
                {"nodeName": "a", "containers": [{"resources": {"requests": {"memory": "1Gi"}}}]}})
        };
        let spec = json!({"containers": [{"resources": {"requests": {"memory": "1Mi"}}}]});
        assert!(fits(&spec, &[node("a")], &[there("Running")]).is_err());
        assert!(fits(&spec, &[node("a")], &[there("Succeeded")]).is_ok());
        let many = [there("Running"), there("Running")];
        assert!(fits(&json!({}), &[node("a")], &many).is_err());
    }

    #[test]
    fn taints_keep_away_who_does_not_tolerate_them() {
        let mut tainted = node("a");
        tainted["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]);
        let nodes = [tainted];
        let why = fits(&json!({}), &nodes, &[]).unwrap_err();
        assert_eq!(
            why,
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."
        );
        for toleration in [
            json!({"key": "k", "operator": "Exists"}),
            json!({"operator": "Exists"}),
            json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
        ] {
            let spec = json!({"tolerations": [toleration]});
            assert!(fits(&spec, &nodes, &[]).is_ok(), "{toleration}");
        }
        let spec = json!({"tolerations": [{"key": "k", "value": "other"}]});
        assert!(fits(&spec, &nodes, &[]).is_err());
    }

    #[test]
    fn a_node_that_is_not_ready_or_is_cordoned_gets_nothing() {
        let mut unready = node("a");
        unready["status"]["conditions"][0]["status"] = "Unknown".into();
        let mut cordoned = node("b");
        cordoned["spec"]["unschedulable"] = true.into();
        let why = fits(&json!({}), &[unready, cordoned], &[]).unwrap_err();
        let expected = "0/2 nodes are available: 1 node(s) were not ready, 1 node(s) were \
                        unschedulable.";
        assert_eq!(why, expected);
    }

    #[test]
    fn node_affinity_is_alternatives_of_conditions() {
        let required = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}})
        };
        let term = |key: &str, operator: &str, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        for (terms, expected) in [
            (term("n", "In", json!(["4", "5"])), true),
            (term("n", "NotIn", json!(["5"])), false),
            (term("n", "Exists", json!([])), true),
            (term("x", "DoesNotExist", json!([])), true),
            (term("n", "Gt", json!(["4"])), true),
            (term("n", "Lt", json!(["4"])), false),
            (json!([{}]), false),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]),
                true,
            ),
        ] {
            let fit = fits(&required(terms.clone()), &[node("a")], &[]).is_ok();
            assert_eq!(fit, expected, "{terms}");
        }
    }
}
