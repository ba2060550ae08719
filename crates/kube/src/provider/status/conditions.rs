//! Conditions: what `kubectl wait` waits for.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::machine::MachineState;

use super::super::silence;
use super::{Observed, succeeded, text};
use crate::time::seconds as time;

#[derive(Clone)]
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The conditions of a pod in this phase, with those that others have set.
pub(super) fn all(observed: &Observed<'_>, phase: &str, inits: &[Value], mains: &[Value]) -> Value {
    let up = observed
        .machine
        .is_some_and(|m| matches!(m.state, MachineState::Started | MachineState::Stopping));
    let ready = containers_ready(phase, mains);
    let gated = match (ready.holds, missing_gate(observed)) {
        (true, Some(message)) => Condition {
            kind: "Ready",
            holds: false,
            reason: "ReadinessGatesNotReady",
            message,
        },
        (true, None) | (false, _) => Condition {
            kind: "Ready",
            ..ready.clone()
        },
    };
    let silent = observed.machine.filter(|m| silence::is_silent(m));
    let gated = match silent {
        Some(machine) => Condition {
            kind: "Ready",
            holds: false,
            reason: silence::REASON,
            message: silence::message(machine),
        },
        None => gated,
    };
    let ours = [
        Condition::plain("PodReadyToStartContainers", up),
        initialized(phase, inits),
        gated,
        ready,
        Condition::plain("PodScheduled", true),
    ];
    merge(observed.old, &ours, observed.now)
}

impl Condition {
    fn plain(kind: &'static str, holds: bool) -> Self {
        Self {
            kind,
            holds,
            reason: "",
            message: String::new(),
        }
    }
}

fn names(statuses: &[Value], bad: impl Fn(&Value) -> bool) -> String {
    let names = statuses.iter().filter(|s| bad(s)).map(|s| text(s, "name"));
    names.collect::<Vec<_>>().join(" ")
}

fn initialized(phase: &str, inits: &[Value]) -> Condition {
    let missing = names(inits, |status| !succeeded(status));
    let done = Condition::plain("Initialized", true);
    match (missing.as_str(), phase) {
        ("", "Succeeded") => Condition {
            reason: "PodCompleted",
            ..done
        },
        ("", _) => done,
        (missing, _) => Condition {
            holds: false,
            reason: "ContainersNotInitialized",
            message: format!("containers with incomplete status: [{missing}]"),
            ..done
        },
    }
}

fn containers_ready(phase: &str, mains: &[Value]) -> Condition {
    let unready = names(mains, |status| status["ready"] != true);
    let ready = Condition::plain("ContainersReady", true);
    if unready.is_empty() {
        return ready;
    }
    Condition {
        holds: false,
        reason: match phase {
            "Succeeded" => "PodCompleted",
            "Failed" => "PodFailed",
            _ => "ContainersNotReady",
        },
        message: format!("containers with unready status: [{unready}]"),
        ..ready
    }
}

/// What the first readiness gate that is not met says; `None` if all are met.
fn missing_gate(observed: &Observed<'_>) -> Option<String> {
    let conditions = observed.old.get("conditions").and_then(Value::as_array);
    let mut gates = observed.pod.spec.readiness_gates.iter();
    gates.find_map(|gate| {
        let kind = &gate.condition_type;
        let mut found = conditions.into_iter().flatten();
        let quoted = format!("corresponding condition of pod readiness gate \"{kind}\"");
        match found.find(|condition| text(condition, "type") == kind) {
            None => Some(format!("{quoted} does not exist.")),
            Some(condition) if text(condition, "status") == "True" => None,
            Some(condition) => {
                let status = text(condition, "status");
                Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"
                ))
            }
        }
    })
}

/// Ours in our order, then those of others. A time moves only with the status.
fn merge(old: &Value, ours: &[Condition], now: Timestamp) -> Value {
    let old = old.get("conditions").and_then(Value::as_array);
    let before = |kind: &str| {
        let mut old = old.into_iter().flatten();
        old.find(|condition| text(condition, "type") == kind)
    };
    let mut merged: Vec<Value> = Vec::new();
    for condition in ours {
        let status = if condition.holds { "True" } else { "False" };
        let since = before(condition.kind)
            .filter(|old| text(old, "status") == status)
            .and_then(|old| old.get("lastTransitionTime"))
            .filter(|time| time.is_string());
        let mut value = json!({"type": condition.kind, "status": status, "lastProbeTime": null,
            "lastTransitionTime": since.cloned().unwrap_or_else(|| time(now).into())});
        if !condition.reason.is_empty() {
            value["reason"] = condition.reason.into();
        }
        if !condition.message.is_empty() {
            value["message"] = condition.message.clone().into();
        }
        merged.push(value);
    }
    let is_ours = |value: &Value| ours.iter().any(|c| c.kind == text(value, "type"));
    merged.extend(old.into_iter().flatten().filter(|v| !is_ours(v)).cloned());
    merged.into()
}
