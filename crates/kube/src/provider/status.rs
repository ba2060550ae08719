//! Machine → PodStatus: a pure function.
//!
//! The new status is made of the old one (times of transitions, restart counts of earlier boots,
//! what others wrote), of the machine, and of what stood in the way of having a machine. The rules
//! are the kubelet's: a phase never leaves `Succeeded` or `Failed`, and a condition's time moves
//! only with its status.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use types::machine::{
    ContainerState, ContainerStatus, ExitEvent, ImageIdentity, Machine, MachineState,
};

use super::pod::{Container, Pod, PodRestart};
use crate::time::seconds as time;

/// Exit code of a container whose end nobody saw, as the kubelet has it.
const EXIT_CODE_UNKNOWN: i32 = 137;
/// Exit code of a container that could not be started.
const EXIT_CODE_NOT_STARTED: i32 = 128;

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
        conditions(observed, phase, &inits, &mains),
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
        container_status(observed, container, old, now, initializing)
    };
    containers.iter().map(one).collect()
}

fn container_status(
    observed: &Observed<'_>,
    container: &Container,
    old: Option<&Value>,
    now: Option<&ContainerStatus>,
    initializing: bool,
) -> Value {
    let old = old.unwrap_or(&Value::Null);
    let id = observed
        .machine
        .map(|machine| format!("aerostat://{}/{}", machine.id, container.name));
    let id = id.filter(|_| now.is_some_and(|now| now.started_at.is_some()));
    let id = id.unwrap_or_else(|| text(old, "containerID").to_owned());
    let over = observed.machine.is_none_or(|m| is_over(m.state));
    let state = match now {
        Some(now) => state_of(observed, now, &id, over, initializing),
        None if old["state"].get("running").is_some() => {
            json!({"terminated": lost(&old["state"]["running"]["startedAt"], observed, &id)})
        }
        None if old["state"].get("terminated").is_some() => old["state"].clone(),
        None => not_started(observed, initializing),
    };
    let mut last = match now {
        Some(now) => last_state(now, &id, &state),
        None => Value::Null,
    };
    if last.is_null() {
        last = match (old["state"].get("terminated"), state.get("terminated")) {
            (Some(ended), None) => json!({"terminated": ended}),
            _ => old.get("lastState").cloned().unwrap_or_else(|| json!({})),
        };
    }
    let ready = if container_is_init(observed, container) {
        state["terminated"]["exitCode"] == 0
    } else {
        state.get("running").is_some()
    };
    let started = state.get("running").is_some();
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": image_id(observed.machine, now).unwrap_or_else(|| text(old, "imageID").into()),
        "containerID": id,
        "restartCount": restart_count(old, now),
        "ready": ready,
        "started": started,
        "state": state,
        "lastState": last,
    })
}

fn container_is_init(observed: &Observed<'_>, container: &Container) -> bool {
    let mut inits = observed.pod.spec.init_containers.iter();
    inits.any(|init| init.name == container.name)
}

fn image_id(machine: Option<&Machine>, now: Option<&ContainerStatus>) -> Option<String> {
    let own = now.map(|now| &now.image_ref);
    // The machine's image is that of its container only when there is one container.
    let machine = machine.filter(|m| m.containers.len() <= 1);
    let known = |image: &&ImageIdentity| !image.digest.is_empty();
    let image = own
        .filter(known)
        .or_else(|| machine.map(|m| &m.image_ref).filter(known))?;
    Some(format!(
        "{}/{}@{}",
        image.registry, image.repository, image.digest
    ))
}

/// How often a container was started again. A machine counts within one boot; the pod's count
/// goes on over boots, so a run that began later than the last one known counts as well.
fn restart_count(old: &Value, now: Option<&ContainerStatus>) -> u64 {
    let known = old["restartCount"].as_u64().unwrap_or_default();
    let Some(now) = now else {
        return known;
    };
    let counted = u64::from(now.restart_count);
    if counted > known {
        return counted;
    }
    let began = [
        &old["state"]["running"]["startedAt"],
        &old["state"]["terminated"]["startedAt"],
        &old["lastState"]["terminated"]["startedAt"],
    ];
    let began = began.into_iter().find_map(Value::as_str);
    let begins = now.started_at.map(time);
    match (began, begins.as_deref()) {
        // Texts of one form and one zone compare like their times.
        (Some(began), Some(begins)) if begins > began => known + 1,
        _ => known,
    }
}

fn state_of(
    observed: &Observed<'_>,
    now: &ContainerStatus,
    id: &str,
    over: bool,
    initializing: bool,
) -> Value {
    let started_at = now.started_at.map(time);
    match now.state {
        ContainerState::Created => not_started(observed, initializing),
        ContainerState::Started if over => {
            json!({"terminated": lost(&json!(started_at), observed, id)})
        }
        ContainerState::Started => {
            let started_at = started_at.unwrap_or_else(|| time(observed.now));
            json!({"running": {"startedAt": started_at}})
        }
        ContainerState::Waiting if !over => {
            let metadata = &observed.pod.metadata;
            let mut message = format!(
                "back-off restarting failed container={} pod={}_{}({})",
                now.name, metadata.name, metadata.namespace, metadata.uid
            );
            if !now.message.is_empty() {
                message = format!("{message}: {}", now.message);
            }
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
        }
        ContainerState::Stopped | ContainerState::Waiting => match &now.exit_event {
            Some(exit) => json!({"terminated": terminated(now.started_at, exit, id, &now.message)}),
            None => json!({"terminated": lost(&json!(started_at), observed, id)}),
        },
        ContainerState::Failed if image_is_missing(now) => match observed.problem {
            Some(_) => not_started(observed, initializing),
            None => json!({"waiting": {"reason": "ErrImagePull", "message": now.message}}),
        },
        ContainerState::Failed => {
            let at = time(observed.now);
            json!({"terminated": {"exitCode": EXIT_CODE_NOT_STARTED, "reason": "StartError",
                "message": now.message, "startedAt": started_at.as_ref().unwrap_or(&at),
                "finishedAt": finished_before(observed, &now.name).unwrap_or_else(|| at.clone()),
                "containerID": id}})
        }
    }
}

/// Whether a container could not be started because its image could not be had: an image that is
/// there has a digest.
pub(crate) fn image_is_missing(container: &ContainerStatus) -> bool {
    container.state == ContainerState::Failed
        && container.started_at.is_none()
        && container.image_ref.digest.is_empty()
}

/// When the old status says that this container ended; a second look must not move it.
fn finished_before(observed: &Observed<'_>, name: &str) -> Option<String> {
    let of = |member: &str| observed.old.get(member).and_then(Value::as_array);
    let all = [of("containerStatuses"), of("initContainerStatuses")];
    let mut all = all.into_iter().flatten().flatten();
    let old = all.find(|status| text(status, "name") == name)?;
    let at = old["state"]["terminated"]["finishedAt"].as_str()?;
    Some(at.to_owned())
}

fn not_started(observed: &Observed<'_>, initializing: bool) -> Value {
    let (reason, message) = match observed.problem {
        Some(Problem::Unsupported(message)) => ("ProviderUnsupported", message.as_str()),
        Some(Problem::Config(message)) => ("CreateContainerConfigError", message.as_str()),
        Some(Problem::Image {
            message,
            again: false,
        }) => ("ErrImagePull", message.as_str()),
        Some(Problem::Image {
            message,
            again: true,
        }) => ("ImagePullBackOff", message.as_str()),
        Some(Problem::Create { message, .. }) => ("ContainerCreating", message.as_str()),
        Some(Problem::Boot(message)) => ("RunContainerError", message.as_str()),
        None if initializing => ("PodInitializing", ""),
        None => ("ContainerCreating", ""),
    };
    let mut waiting = json!({"reason": reason});
    if !message.is_empty() {
        waiting["message"] = message.into();
    }
    json!({"waiting": waiting})
}

fn terminated(started_at: Option<Timestamp>, exit: &ExitEvent, id: &str, message: &str) -> Value {
    let reason = match exit {
        _ if exit.oom_killed => "OOMKilled",
        _ if exit.exit_code == 0 => "Completed",
        _ => "Error",
    };
    let mut terminated = json!({
        "exitCode": exit.exit_code,
        "reason": reason,
        "startedAt": time(started_at.unwrap_or(exit.exited_at)),
        "finishedAt": time(exit.exited_at),
        "containerID": id,
    });
    if exit.guest_signal > 0 {
        terminated["signal"] = exit.guest_signal.into();
    }
    if !message.is_empty() {
        terminated["message"] = message.into();
    }
    terminated
}

/// The end of a container that nobody saw: its machine ended, or is gone.
fn lost(started_at: &Value, observed: &Observed<'_>, id: &str) -> Value {
    let ended = observed.machine.map_or(observed.now, |m| m.updated_at);
    json!({
        "exitCode": EXIT_CODE_UNKNOWN,
        "reason": "ContainerStatusUnknown",
        "message": "The machine ended and could not say how this container did",
        "startedAt": started_at,
        "finishedAt": time(ended),
        "containerID": id,
    })
}

/// The run before the one that `state` tells of; null if the machine knows of none.
fn last_state(now: &ContainerStatus, id: &str, state: &Value) -> Value {
    if state.get("waiting").is_some()
        && let Some(exit) = &now.exit_event
    {
        return json!({"terminated": terminated(now.started_at, exit, id, "")});
    }
    match &now.last_exit {
        Some(run) => json!({"terminated": terminated(run.started_at, &run.exit_event, id, "")}),
        None => Value::Null,
    }
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

struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn conditions(observed: &Observed<'_>, phase: &str, inits: &[Value], mains: &[Value]) -> Value {
    let names = |statuses: &[Value], bad: &dyn Fn(&Value) -> bool| {
        let names = statuses.iter().filter(|s| bad(s)).map(|s| text(s, "name"));
        names.collect::<Vec<_>>().join(" ")
    };
    let up = observed
        .machine
        .is_some_and(|m| matches!(m.state, MachineState::Started | MachineState::Stopping));
    let uninitialized = names(inits, &|s| !succeeded(s));
    let unready = names(mains, &|s| s["ready"] != true);
    let done = phase == "Succeeded";
    let completed = |reason| if done { "PodCompleted" } else { reason };
    let failed = |reason| {
        if phase == "Failed" {
            "PodFailed"
        } else {
            completed(reason)
        }
    };
    let gate = missing_gate(observed);
    let unready_message = match unready.as_str() {
        "" => String::new(),
        names => format!("containers with unready status: [{names}]"),
    };
    let all = [
        Condition {
            kind: "PodReadyToStartContainers",
            holds: up,
            reason: "",
            message: String::new(),
        },
        Condition {
            kind: "Initialized",
            holds: uninitialized.is_empty(),
            reason: if uninitialized.is_empty() {
                completed("")
            } else {
                "ContainersNotInitialized"
            },
            message: match uninitialized.as_str() {
                "" => String::new(),
                names => format!("containers with incomplete status: [{names}]"),
            },
        },
        Condition {
            kind: "Ready",
            holds: unready.is_empty() && gate.is_none(),
            reason: match (unready.is_empty(), &gate) {
                (false, _) => failed("ContainersNotReady"),
                (true, Some(_)) => "ReadinessGatesNotReady",
                (true, None) => "",
            },
            message: match (unready.is_empty(), gate) {
                (true, Some(message)) => message,
                (true, None) | (false, _) => unready_message.clone(),
            },
        },
        Condition {
            kind: "ContainersReady",
            holds: unready.is_empty(),
            reason: if unready.is_empty() {
                ""
            } else {
                failed("ContainersNotReady")
            },
            message: unready_message,
        },
        Condition {
            kind: "PodScheduled",
            holds: true,
            reason: "",
            message: String::new(),
        },
    ];
    merge_conditions(observed.old, &all, observed.now)
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
fn merge_conditions(old: &Value, ours: &[Condition], now: Timestamp) -> Value {
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

#[cfg(test)]
mod tests;
