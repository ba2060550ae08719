//! Machine → PodStatus: a pure function.
//!
//! The new status is made of the old one (times of transitions, restart counts of earlier boots,
//! what others wrote), of the machine, and of what stood in the way of having a machine. The rules
//! are the kubelet's: a phase never leaves `Succeeded` or `Failed`, and a condition's time moves
//! only with its status.

mod conditions;
mod container;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use types::machine::{Machine, MachineState};

use super::pod::{Container, Pod, PodRestart};
use crate::time::seconds as time;

pub(crate) use container::image_is_missing;

/// Why a pod has no machine (yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The pod asks for what machines cannot do; final.
    Unsupported(String),
    /// A configMap, secret or key is missing.
    Config(String),
    /// The image cannot be had. `again` after the first attempt.
    Image { message: String, again: bool },
    /// The Machines API refused or failed: no room, for example.
    Create { reason: String, message: String },
    /// The machine exists and did not boot.
    Boot(String),
}

/// What a status is made of.
#[derive(Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) pod: &'a Pod,
    /// The status as it stands in the API.
    pub(crate) old: &'a Value,
    pub(crate) machine: Option<&'a Machine>,
    pub(crate) problem: Option<&'a Problem>,
    pub(crate) host_ip: &'a str,
    pub(crate) now: Timestamp,
}

/// Whether a machine in this state has no running processes and will not get any by itself.
pub(crate) fn is_over(state: MachineState) -> bool {
    match state {
        MachineState::Stopped
        | MachineState::Failed
        | MachineState::Destroying
        | MachineState::Destroyed => true,
        MachineState::Created
        | MachineState::Starting
        | MachineState::Started
        | MachineState::Suspending
        | MachineState::Suspended
        | MachineState::Restarting
        | MachineState::Updating
        | MachineState::Stopping => false,
    }
}

pub(crate) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// The status of a pod now.
pub(crate) fn status(observed: &Observed<'_>) -> Value {
    let old = observed.old;
    if is_terminal(text(old, "phase")) {
        return old.clone();
    }
    let spec = &observed.pod.spec;
    let inits = statuses(
        observed,
        &spec.init_containers,
        "initContainerStatuses",
        false,
    );
    let initialized = inits.iter().all(succeeded);
    let mains = statuses(
        observed,
        &spec.containers,
        "containerStatuses",
        !initialized,
    );
    let phase = phase(observed, &inits, &mains);

    let mut status = old.as_object().cloned().unwrap_or_default();
    status.insert("phase".into(), phase.into());
    let (reason, message) = match observed.problem {
        Some(Problem::Unsupported(message)) => ("ProviderUnsupported", message.as_str()),
        Some(
            Problem::Config(_) | Problem::Image { .. } | Problem::Create { .. } | Problem::Boot(_),
        )
        | None => ("", ""),
    };
    set_text(&mut status, "reason", reason);
    set_text(&mut status, "message", message);
    status
        .entry("startTime")
        .or_insert_with(|| time(observed.now).into());
    set_addresses(&mut status, observed);
    status.insert(
        "conditions".into(),
        conditions::all(observed, phase, &inits, &mains),
    );
    if !inits.is_empty() {
        status.insert("initContainerStatuses".into(), inits.into());
    }
    status.insert("containerStatuses".into(), mains.into());
    Value::Object(status)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn set_text(object: &mut Map<String, Value>, key: &str, value: &str) {
    if value.is_empty() {
        object.remove(key);
    } else {
        object.insert(key.to_owned(), value.into());
    }
}

fn set_addresses(status: &mut Map<String, Value>, observed: &Observed<'_>) {
    if !observed.host_ip.is_empty() {
        status.insert("hostIP".into(), observed.host_ip.into());
        status.insert("hostIPs".into(), json!([{"ip": observed.host_ip}]));
    }
    let address = observed.machine.map_or("", |m| m.private_ip.as_str());
    if !address.is_empty() {
        status.insert("podIP".into(), address.into());
        status.insert("podIPs".into(), json!([{"ip": address}]));
    }
}

fn statuses(
    observed: &Observed<'_>,
    containers: &[Container],
    member: &str,
    initializing: bool,
) -> Vec<Value> {
    let old = observed.old.get(member).and_then(Value::as_array);
    let one = |container: &Container| {
        let mut old = old.into_iter().flatten();
        let old = old.find(|status| text(status, "name") == container.name);
        let mut now = observed.machine.iter().flat_map(|m| &m.containers);
        let now = now.find(|status| status.name == container.name);
        container::status(observed, container, old, now, initializing)
    };
    containers.iter().map(one).collect()
}

fn succeeded(status: &Value) -> bool {
    status["state"]["terminated"]["exitCode"] == 0
}

/// The kubelet's `getPhase`.
fn phase(observed: &Observed<'_>, inits: &[Value], mains: &[Value]) -> &'static str {
    let policy = observed.pod.spec.restart_policy;
    if matches!(observed.problem, Some(Problem::Unsupported(_))) {
        return match policy {
            PodRestart::Never => "Failed",
            PodRestart::Always | PodRestart::OnFailure => "Pending",
        };
    }
    // A pod that is being deleted and whose machine has ended gets no further run.
    let deleted = observed.pod.metadata.deletion_timestamp.is_some();
    let last = deleted && observed.machine.is_none_or(|m| is_over(m.state));
    let failed_init = |s: &Value| s["state"].get("terminated").is_some() && !succeeded(s);
    if inits.iter().any(failed_init) && (last || policy == PodRestart::Never) {
        return "Failed";
    }
    if !inits.iter().all(succeeded) {
        return "Pending";
    }
    let state = |s: &Value, of: &str| s["state"].get(of).is_some();
    let ended_before = |s: &&Value| s["lastState"].get("terminated").is_some();
    let mut waiting = mains.iter().filter(|s| state(s, "waiting"));
    if waiting.any(|s| !ended_before(&s)) {
        return "Pending";
    }
    if mains.iter().any(|s| state(s, "running")) {
        return "Running";
    }
    match policy {
        PodRestart::Always if !last => "Running",
        _ if mains.iter().all(succeeded) => "Succeeded",
        PodRestart::OnFailure if !last => "Running",
        PodRestart::Always | PodRestart::OnFailure | PodRestart::Never => "Failed",
    }
}

#[cfg(test)]
mod tests;
