//! Defaults of rules about the cluster: who may what, who comes first, who talks to whom.

use serde_json::{Map, Value, json};

use crate::convert::cpu_utilization;
use crate::object::{self, default, inner, map_mut, maps};

const RBAC: &str = "rbac.authorization.k8s.io";
/// Upstream's numbers for fair queuing.
const PRECEDENCE: u32 = 1000;
const SHARES: u32 = 30;
const QUEUES: u32 = 64;
const HAND_SIZE: u32 = 8;
const QUEUE_LENGTH: u32 = 50;
/// The utilization that an autoscaler without metrics aims at.
const CPU_PERCENT: u32 = 80;

pub(super) fn role_binding(object: &mut Value) {
    or_empty(map_mut(object, "roleRef"), "apiGroup", RBAC);
    for subject in maps(object.get_mut("subjects")) {
        let kind = subject.get("kind").and_then(Value::as_str);
        if matches!(kind, Some("User" | "Group")) {
            or_empty(subject, "apiGroup", RBAC);
        }
    }
}

/// As [`default`], where Go cannot tell empty from absent.
fn or_empty(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let is_empty = map.get(field).is_none_or(|value| value == "" || value == 0);
    if is_empty {
        map.insert(field.to_owned(), value.into());
    }
}

pub(super) fn network_policy(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        for rule in maps(spec.get_mut(direction)) {
            for port in maps(rule.get_mut("ports")) {
                default(port, "protocol", "TCP");
            }
        }
    }
    let has_egress = spec
        .get("egress")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    let types = if has_egress {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    default(spec, "policyTypes", types);
}

pub(super) fn ingress_class(object: &mut Value) {
    if let Some(parameters) = inner(map_mut(object, "spec"), &["parameters"]) {
        default(parameters, "scope", "Cluster");
    }
}

pub(super) fn priority_class(object: &mut Value) {
    if let Some(class) = object.as_object_mut() {
        default(class, "preemptionPolicy", "PreemptLowerPriority");
    }
}

/// A limit that is not said is the maximum, a request the limit, and else the minimum.
pub(super) fn limit_range(object: &mut Value) {
    for limit in maps(map_mut(object, "spec").get_mut("limits")) {
        if limit.get("type").is_none_or(|kind| kind != "Container") {
            continue;
        }
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let Some(Value::Object(from)) = limit.get(from).cloned() else {
                continue;
            };
            let to = limit.entry(to).or_insert_with(|| json!({}));
            if let Some(to) = to.as_object_mut() {
                for (name, quantity) in from {
                    default(to, &name, quantity);
                }
            }
        }
    }
}

pub(super) fn endpoints(object: &mut Value) {
    for subset in maps(object.get_mut("subsets")) {
        for port in maps(subset.get_mut("ports")) {
            default(port, "protocol", "TCP");
        }
    }
}

pub(super) fn flow_schema(object: &mut Value) {
    or_empty(map_mut(object, "spec"), "matchingPrecedence", PRECEDENCE);
}

pub(super) fn priority_level(object: &mut Value) {
    let spec = map_mut(object, "spec");
    if let Some(exempt) = inner(spec, &["exempt"]) {
        default(exempt, "nominalConcurrencyShares", 0);
        default(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = inner(spec, &["limited"]) {
        default(limited, "nominalConcurrencyShares", SHARES);
        default(limited, "lendablePercent", 0);
        if let Some(queuing) = inner(limited, &["limitResponse", "queuing"]) {
            or_empty(queuing, "queues", QUEUES);
            or_empty(queuing, "handSize", HAND_SIZE);
            or_empty(queuing, "queueLengthLimit", QUEUE_LENGTH);
        }
    }
}

pub(super) fn autoscaler_v1(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "minReplicas", 1);
    let others = "autoscaling.alpha.kubernetes.io/metrics";
    if object::at(object, &["metadata", "annotations", others]).is_none() {
        let spec = map_mut(object, "spec");
        default(spec, "targetCPUUtilizationPercentage", CPU_PERCENT);
    }
}

pub(super) fn autoscaler(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "minReplicas", 1);
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if spec.get("metrics").is_none_or(is_empty) {
        let cpu = cpu_utilization(&CPU_PERCENT.into());
        spec.insert("metrics".into(), json!([cpu]));
    }
    let Some(behavior) = inner(spec, &["behavior"]) else {
        return;
    };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, policies) in [
        ("scaleUp", json!([pods, percent])),
        ("scaleDown", json!([percent])),
    ] {
        let rules = behavior.entry(direction).or_insert_with(|| json!({}));
        let Some(rules) = rules.as_object_mut() else {
            continue;
        };
        default(rules, "selectPolicy", "Max");
        default(rules, "policies", policies);
        if direction == "scaleUp" {
            default(rules, "stabilizationWindowSeconds", 0);
        }
    }
}
