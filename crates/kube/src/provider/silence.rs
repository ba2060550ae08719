//! Pods whose machine is on a host that has fallen silent.
//!
//! ```text
//!   host silent ──at once──> pod not Ready (no endpoint of a Service any more)
//!        │──silent_after──> a pod that somebody replaces is deleted without grace
//!        └──answers again─> pod as before; machines whose pods are gone are destroyed
//! ```
//!
//! A host that stays silent is not dead: its machines may well run. Who replaces pods of a
//! ReplicaSet has said that one too many for a while does no harm. A StatefulSet promises that
//! there are never two pods of one name, and a bare pod would be replaced by nobody, so those
//! stay until the host answers or somebody deletes them by force.

use std::time::{Duration, Instant};

use client::Error;
use serde_json::Value;
use tracing::info;
use types::fleet::HostStatus;
use types::machine::Machine;

use super::life::Wanted;
use super::pod::Pod;
use super::sync::{Context, Memory};
use crate::api::DeleteOptions;
use crate::controllers::events::News;
use crate::controllers::owner;
use crate::controllers::queue::Outcome;
use crate::object;
use crate::resource::PODS;
use crate::status::Status;

/// Reason of a pod's condition and of the events.
pub(super) const REASON: &str = "HostUnreachable";
/// What the Machines API says when it cannot ask a machine's host.
const CODE: &str = "host_unreachable";
/// Time before a host is asked again that did not answer, doubled each time. It is not asked at
/// all while the catalog says that it is silent, and at once when that says that it is back; in
/// between only these attempts find out.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What one pod has seen of its host's silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    /// Requests in a row that the host did not answer.
    unanswered: u32,
}

impl Silence {
    /// The host has answered, or nobody had to ask.
    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// The host did not answer; when to ask again.
    pub(super) fn unanswered(&mut self) -> Outcome {
        let doubled = RETRY_MIN.saturating_mul(1 << self.unanswered.min(10));
        self.unanswered += 1;
        Outcome::After(doubled.min(RETRY_MAX))
    }

    /// The catalog says that the host is there.
    pub(super) fn over(&mut self) {
        self.since = None;
    }
}

pub(super) fn is_silent(machine: &Machine) -> bool {
    machine.host_status == HostStatus::Unreachable.as_str()
}

/// Whether the Machines API could not ask the machine's host.
pub(super) fn is_unanswered(error: &Error) -> bool {
    error.code() == Some(CODE)
}

pub(super) fn message(machine: &Machine) -> String {
    format!("the host of machine {} does not answer", machine.id)
}

/// What kind of controller makes another pod when this one is deleted.
fn replacer(pod: &Value) -> Option<&str> {
    let controller = owner::controller(pod)?;
    let kind = object::text(controller, &["kind"]);
    (kind != "StatefulSet").then_some(kind)
}

/// One look at a pod whose host is silent: nothing can be asked of its machine.
pub(super) async fn endure(
    context: &Context,
    current: &Value,
    pod: &Pod,
    (machine, wanted): (&Machine, Wanted),
    memory: &mut Memory,
) -> Result<Outcome, Status> {
    let silence = &mut memory.silence;
    if silence.since.is_none() {
        let news = News::warning(REASON, capitalized(&message(machine)));
        context.recorder.tell(current, news).await;
    }
    let since = *silence.since.get_or_insert_with(Instant::now);
    if wanted == Wanted::Kept {
        return Ok(Outcome::Done);
    }
    let Some(kind) = replacer(current) else {
        return Ok(Outcome::Done);
    };
    let after = context.config.silent_after;
    let left = after.saturating_sub(since.elapsed());
    if !left.is_zero() {
        return Ok(Outcome::After(left));
    }
    let message = format!(
        "Deleted, so that its {kind} makes another: its host has not answered for {} s",
        after.as_secs()
    );
    let news = News::warning("HostSilent", message);
    context.recorder.tell(current, news).await;
    let metadata = &pod.metadata;
    let options = DeleteOptions::now().with_uid(&metadata.uid);
    let (namespace, name) = (Some(metadata.namespace.as_str()), metadata.name.as_str());
    match context.api.delete(&PODS, namespace, name, &options).await {
        Ok(_) => info!(
            namespace,
            pod = name,
            machine = %machine.id,
            "pod of a silent host deleted"
        ),
        // Gone already, or another pod has its name.
        Err(status) if status.is_not_found() || status.is_conflict() => {}
        Err(status) => return Err(status),
    }
    Ok(Outcome::Done)
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_of_controllers_that_endure_two_are_replaced() {
        let owned = |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        assert_eq!(replacer(&owned("ReplicaSet")), Some("ReplicaSet"));
        assert_eq!(replacer(&owned("StatefulSet")), None);
        assert_eq!(replacer(&json!({"metadata": {}})), None);
    }

    #[test]
    fn a_host_that_does_not_answer_is_asked_less_and_less_often() {
        let mut silence = Silence::default();
        let waits: Vec<_> = (0..6).map(|_| silence.unanswered()).collect();
        let seconds = [1, 2, 4, 8, 10, 10];
        let expected = seconds.map(|s| Outcome::After(Duration::from_secs(s)));
        assert_eq!(waits, expected);
        silence.answered();
        assert_eq!(silence.unanswered(), expected[0]);
    }
}
