//! What the provider does next about one pod: a pure decision, and the news that a change of
//! status is worth.
//!
//! ```text
//!   no machine ──Create──> starting ─> started ──(pod deleted) Stop──> stopping ─> stopped
//!       ^                                 │                                          │
//!       └──destroyed behind our back──────┤<──Start, with back-off── ended by itself │
//!                                         │                                          v
//!                                         └─ Succeeded/Failed: kept for its log   Destroy, Finish
//! ```

use serde_json::Value;
use types::machine::MachineState;

use super::status::is_terminal;
use crate::controllers::events::News;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for news.
    Nothing,
    Create,
    /// Boot the machine (again).
    Start,
    /// Ask it to stop, or watch that it does.
    Stop,
    /// The machine is over and so is the pod: destroy the one, then remove the other.
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The pod is there and is to run.
    Running,
    /// The pod has come to its end and is kept until somebody deletes it.
    Kept,
    /// Somebody has deleted the pod.
    Deleted,
}

impl Wanted {
    pub(crate) fn new(deleted: bool, phase: &str) -> Self {
        match (deleted, is_terminal(phase)) {
            (true, _) => Self::Deleted,
            (false, true) => Self::Kept,
            (false, false) => Self::Running,
        }
    }
}

pub(crate) fn step(wanted: Wanted, machine: Option<MachineState>) -> Step {
    use MachineState::{
        Created, Destroyed, Destroying, Failed, Restarting, Started, Starting, Stopped, Stopping,
        Suspended, Suspending, Updating,
    };
    match (wanted, machine) {
        (Wanted::Kept, _) => Step::Nothing,
        (Wanted::Running, None | Some(Destroyed)) => Step::Create,
        (Wanted::Running, Some(Created | Stopped | Suspended | Failed)) => Step::Start,
        (
            Wanted::Running,
            Some(Starting | Started | Suspending | Stopping | Restarting | Updating | Destroying),
        ) => Step::Nothing,
        (
            Wanted::Deleted,
            Some(Starting | Started | Suspending | Suspended | Stopping | Restarting | Updating),
        ) => Step::Stop,
        (Wanted::Deleted, Some(Destroying)) => Step::Nothing,
        (Wanted::Deleted, None | Some(Created | Stopped | Failed | Destroyed)) => Step::Finish,
    }
}

/// What is worth telling about the change of a pod's status from `old` to `new`.
pub(crate) fn news(old: &Value, new: &Value) -> Vec<News> {
    let mut news = Vec::new();
    for (member, field) in [
        ("initContainerStatuses", "initContainers"),
        ("containerStatuses", "containers"),
    ] {
        let all = new.get(member).and_then(Value::as_array);
        for status in all.into_iter().flatten() {
            let name = status["name"].as_str().unwrap_or_default();
            let before = old.get(member).and_then(Value::as_array);
            let mut before = before.into_iter().flatten();
            let before = before.find(|before| before["name"] == name);
            let before = before.unwrap_or(&Value::Null);
            let about = format!("spec.{field}{{{name}}}");
            let found = container_news(name, before, status);
            news.extend(found.into_iter().map(|one| one.about(about.clone())));
        }
    }
    news
}

fn container_news(name: &str, old: &Value, new: &Value) -> Vec<News> {
    let mut news = Vec::new();
    let image = new["image"].as_str().unwrap_or_default();
    let id = |status: &Value| status["imageID"].as_str().unwrap_or_default().to_owned();
    if id(old).is_empty() && !id(new).is_empty() {
        let message = format!("Successfully pulled image \"{image}\" ({})", id(new));
        news.push(News::normal("Pulled", message));
    }
    let started = |status: &Value| status["state"]["running"]["startedAt"].clone();
    let restarts = |status: &Value| status["restartCount"].as_u64().unwrap_or_default();
    let ended = |status: &Value| status["state"].get("terminated").is_some();
    // A container may begin and end between two looks at its machine.
    let ran = started(new) != started(old) && !started(new).is_null()
        || ended(new) && !ended(old) && started(old).is_null()
        || restarts(new) > restarts(old) && started(new).is_null();
    let reason = new["state"]["terminated"]["reason"].as_str();
    if ran && reason != Some("StartError") {
        news.push(News::normal(
            "Created",
            format!("Created container: {name}"),
        ));
        news.push(News::normal("Started", format!("Started container {name}")));
    }
    if reason == Some("StartError") && !ended(old) {
        let message = new["state"]["terminated"]["message"].as_str();
        let message = format!("Error: {}", message.unwrap_or_default());
        news.push(News::warning("Failed", message));
    }
    let waiting = |status: &Value| status["state"]["waiting"]["reason"].clone();
    if waiting(new) != waiting(old) && waiting(new) == "ErrImagePull" {
        let why = new["state"]["waiting"]["message"].as_str();
        let message = format!(
            "Failed to pull image \"{image}\": {}",
            why.unwrap_or_default()
        );
        news.push(News::warning("Failed", message));
    }
    if waiting(new) != waiting(old) && waiting(new) == "ImagePullBackOff" {
        let message = format!("Back-off pulling image \"{image}\"");
        news.push(News::normal("BackOff", message));
    }
    if waiting(new) == "CrashLoopBackOff"
        && (waiting(old) != "CrashLoopBackOff" || restarts(new) > restarts(old))
    {
        let message = format!("Back-off restarting failed container {name}");
        news.push(News::warning("BackOff", message));
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_is_wanted_gets_a_machine_and_one_that_is_not_loses_it() {
        use MachineState::{Destroyed, Failed, Started, Stopped, Stopping};
        assert_eq!(step(Wanted::Running, None), Step::Create);
        assert_eq!(step(Wanted::Running, Some(Destroyed)), Step::Create);
        assert_eq!(step(Wanted::Running, Some(Started)), Step::Nothing);
        assert_eq!(step(Wanted::Running, Some(Failed)), Step::Start);
        assert_eq!(step(Wanted::Kept, Some(Stopped)), Step::Nothing);
        assert_eq!(step(Wanted::Kept, None), Step::Nothing);
        assert_eq!(step(Wanted::Deleted, Some(Started)), Step::Stop);
        assert_eq!(step(Wanted::Deleted, Some(Stopping)), Step::Stop);
        assert_eq!(step(Wanted::Deleted, Some(Stopped)), Step::Finish);
        assert_eq!(step(Wanted::Deleted, None), Step::Finish);
    }

    #[test]
    fn deletion_counts_more_than_the_phase() {
        assert_eq!(Wanted::new(true, "Succeeded"), Wanted::Deleted);
        assert_eq!(Wanted::new(false, "Failed"), Wanted::Kept);
        assert_eq!(Wanted::new(false, "Pending"), Wanted::Running);
    }

    fn reasons(old: &Value, new: &Value) -> Vec<&'static str> {
        let wrap = |status: &Value| json!({"containerStatuses": [status]});
        let news = news(&wrap(old), &wrap(new));
        news.iter().map(|one| one.reason).collect()
    }

    #[test]
    fn the_life_of_a_container_is_told_once() {
        let creating = json!({"name": "web", "image": "i", "imageID": "", "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}}});
        let running = json!({"name": "web", "image": "i", "imageID": "i@sha256:a",
            "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}});
        let crashed = json!({"name": "web", "image": "i", "imageID": "i@sha256:a",
            "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let again = json!({"name": "web", "image": "i", "imageID": "i@sha256:a",
            "restartCount": 1, "state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}});
        let ended = json!({"name": "web", "image": "i", "imageID": "i@sha256:a",
            "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        assert_eq!(
            reasons(&creating, &running),
            ["Pulled", "Created", "Started"]
        );
        assert_eq!(reasons(&creating, &ended), ["Pulled", "Created", "Started"]);
        assert!(reasons(&running, &running).is_empty());
        assert!(reasons(&running, &ended).is_empty());
        assert_eq!(reasons(&running, &crashed), ["BackOff"]);
        assert!(reasons(&crashed, &crashed).is_empty());
        assert_eq!(reasons(&crashed, &again), ["Created", "Started"]);
    }
}
