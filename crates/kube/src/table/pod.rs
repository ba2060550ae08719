//! The row of a pod: the most-read line of Kubernetes, so it follows upstream's printer step by
//! step.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::created_ago;
use crate::object;
use crate::time;

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts,
                time::human(now.duration_since(at))
            )
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |path: &[&str]| match object::text(pod, path) {
        "" => "<none>".to_owned(),
        text => text.to_owned(),
    };
    let ip = object::items(pod, &["status", "podIPs"])
        .first()
        .map(|ip| object::text(ip, &["ip"]));
    let ip = ip.map_or_else(|| or_none(&["status", "podIP"]), str::to_owned);
    vec![
        json!(object::name(pod)),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        json!(created_ago(pod, now)),
        json!(ip),
        json!(or_none(&["spec", "nodeName"])),
        json!(or_none(&["status", "nominatedNodeName"])),
        json!(readiness_gates(pod)),
    ]
}

#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let finished = object::text(container, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(time::parse(finished));
    }
}

fn summarize(pod: &Value) -> Summary {
    let phase = object::text(pod, &["status", "phase"]);
    let own_reason = object::text(pod, &["status", "reason"]);
    let inits = object::items(pod, &["spec", "initContainers"]);
    let sidecars: Vec<_> = inits
        .iter()
        .filter(|container| container["restartPolicy"] == "Always")
        .map(|container| object::text(container, &["name"]))
        .collect();
    let mut summary = Summary {
        reason: if own_reason.is_empty() {
            phase
        } else {
            own_reason
        }
        .to_owned(),
        total: object::items(pod, &["spec", "containers"]).len() + sidecars.len(),
        ..Summary::default()
    };
    let scheduled = condition(pod, "PodScheduled");
    if scheduled.is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let is_initializing = initialization(pod, &sidecars, inits.len(), &mut summary);
    let is_initialized = condition(pod, "Initialized").is_some_and(|one| one["status"] == "True");
    if !is_initializing || is_initialized {
        containers(pod, &sidecars, &mut summary);
    }
    if object::is_terminating(pod) {
        if own_reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    object::items(pod, &["status", "conditions"])
        .iter()
        .find(|one| one["type"] == kind)
}

/// Walks the init containers up to the one that holds the pod up; returns whether one does.
fn initialization(pod: &Value, sidecars: &[&str], count: usize, summary: &mut Summary) -> bool {
    for (index, container) in object::items(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        summary.count_restarts(container);
        let state = &container["state"];
        let is_sidecar = sidecars.contains(&object::text(container, &["name"]));
        let waiting = object::text(state, &["waiting", "reason"]);
        if state["terminated"].is_object() && state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && container["started"] == true {
            summary.ready += usize::from(container["ready"] == true);
            continue;
        }
        summary.reason = if state["terminated"].is_object() {
            format!("Init:{}", end(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{count}")
        };
        return true;
    }
    false
}

fn containers(pod: &Value, sidecars: &[&str], summary: &mut Summary) {
    // From here on restarts of ordinary init containers no longer count.
    (summary.restarts, summary.last_restart) = (0, None);
    for container in object::items(pod, &["status", "initContainerStatuses"]) {
        if sidecars.contains(&object::text(container, &["name"])) {
            summary.count_restarts(container);
        }
    }
    let mut has_running = false;
    for container in object::items(pod, &["status", "containerStatuses"])
        .iter()
        .rev()
    {
        summary.count_restarts(container);
        let state = &container["state"];
        let waiting = object::text(state, &["waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            summary.reason = end(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            has_running = true;
            summary.ready += 1;
        }
    }
    // One container is done, another still runs.
    if summary.reason == "Completed" && has_running {
        let is_ready = condition(pod, "Ready").is_some_and(|one| one["status"] == "True");
        summary.reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn end(terminated: &Value) -> String {
    let reason = object::text(terminated, &["reason"]);
    let number = |field: &str| terminated[field].as_i64().unwrap_or(0);
    match (reason, number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = object::items(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let is_met = |gate: &&Value| {
        let kind = object::text(gate, &["conditionType"]);
        condition(pod, kind).is_some_and(|condition| condition["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(is_met).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: Value, status: Value) -> [String; 3] {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let cells = cells(&pod, Timestamp::from_second(600).expect("a time"));
        [1, 2, 3].map(|index| cells[index].as_str().expect("text").to_owned())
    }

    fn one() -> Value {
        json!({"containers": [{"name": "c"}]})
    }

    #[test]
    fn the_phase_shows_until_a_container_has_something_to_say() {
        assert_eq!(
            shown(one(), json!({"phase": "Pending"})),
            ["0/1", "Pending", "0"]
        );
        let waiting = json!({"phase": "Pending", "containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        assert_eq!(shown(one(), waiting), ["0/1", "ImagePullBackOff", "0"]);
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let status = json!({"phase": "Running", "containerStatuses": [{
            "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:09:00Z"}}}]});
        assert_eq!(shown(one(), status), ["1/1", "Running", "2 (60s ago)"]);
    }

    #[test]
    fn init_containers_hold_a_pod_up_and_ends_are_told_by_reason_code_or_signal() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}],
            "containers": [{"name": "c"}]});
        let status = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {}}]});
        assert_eq!(shown(spec, status)[1], "Init:1/2");
        let ended = |terminated: Value| {
            let state = json!([{"state": {"terminated": terminated}}]);
            shown(
                one(),
                json!({"phase": "Failed", "containerStatuses": state}),
            )[1]
            .clone()
        };
        assert_eq!(ended(json!({"exitCode": 3, "reason": "Error"})), "Error");
        assert_eq!(ended(json!({"exitCode": 3})), "ExitCode:3");
        assert_eq!(ended(json!({"exitCode": 137, "signal": 9})), "Signal:9");
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_terminating() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "1970-01-01T00:00:00Z"},
            "spec": one(), "status": {"phase": "Running"}});
        assert_eq!(cells(&pod, Timestamp::UNIX_EPOCH)[2], "Terminating");
    }
}
