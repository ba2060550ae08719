//! ContainerStatus: what one container does, did last, and how often it was started again.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::machine::{ContainerState, ContainerStatus, ExitEvent, ImageIdentity, Machine};

use super::super::pod::Container;
use super::{Observed, Problem, is_over, text};
use crate::time::seconds as time;

/// Exit code of a container whose end nobody saw, as the kubelet has it.
const EXIT_CODE_UNKNOWN: i32 = 137;
/// Exit code of a container that could not be started.
const EXIT_CODE_NOT_STARTED: i32 = 128;

/// The status of one container: `old` as it stands in the API, `now` as the machine has it.
pub(super) fn status(
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
