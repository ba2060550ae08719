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
//!
//! If all other hosts fall silent at once, it is more likely that this one is cut off: then nothing
//! is replaced, as Kubernetes evicts nothing when every zone of its nodes is down.

use std::time::{Duration, Instant};

use client::Error;
use serde_json::Value;
use tracing::info;
use types::fleet::{HostStatus, MeshPeer};
use types::machine::Machine;

use super::life::Wanted;
use super::pod::Pod;
use super::sync::{Context, Failure, Memory};
use crate::api::DeleteOptions;
use crate::controllers::events::News;
use crate::controllers::owner;
use crate::controllers::queue::Outcome;
use crate::object;
use crate::resource::PODS;

/// Reason of a pod's condition and of the events.
pub(super) const REASON: &str = "HostUnreachable";
/// What the Machines API says when it cannot ask a machine's host.
const CODE: &str = "host_unreachable";
/// Time before a host is asked again that did not answer, doubled each time. It is not asked at
/// all while the catalog says that it is silent, and at once when that says that it is back; in
/// between only these attempts find out.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Silences that began within this time of each other began at once. Words are said every two
/// seconds, and are passed on for ten.
const AT_ONCE_S: f64 = 30.0;
/// As many hosts do not fail at once, as a rule. A fleet of two cannot tell.
const AT_ONCE_HOSTS_MIN: usize = 2;
/// How often it is looked whether this host is still cut off.
const CUT_OFF_RETRY: Duration = Duration::from_secs(10);

/// What one pod has seen of its host's silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    /// Requests in a row that the host did not answer.
    unanswered: u32,
    /// It has been told that nothing is replaced.
    withheld: bool,
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
        self.withheld = false;
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
) -> Result<Outcome, Failure> {
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
    // A pod that somebody has deleted has its successor already.
    if wanted == Wanted::Running && is_cut_off(&peers(context).await?) {
        if !std::mem::replace(&mut silence.withheld, true) {
            let message = "Not replaced, because no host answers: it is more likely that this one \
                           is cut off. If they are gone for good, delete the pod";
            let news = News::warning("HostsUnreachable", message);
            context.recorder.tell(current, news).await;
        }
        return Ok(Outcome::After(CUT_OFF_RETRY));
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
        Err(status) => return Err(status.into()),
    }
    Ok(Outcome::Done)
}

/// The other hosts; none if the Machines API is not of a fleet.
async fn peers(context: &Context) -> Result<Vec<MeshPeer>, Error> {
    match context.client.mesh().await {
        Ok(mesh) => Ok(mesh.peers),
        Err(Error::Api { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether nobody answers, and several fell silent together. Hosts that had been silent before
/// say nothing about this one; neither does one alone.
fn is_cut_off(peers: &[MeshPeer]) -> bool {
    let is_silent = |peer: &MeshPeer| peer.status == HostStatus::Unreachable;
    if !peers.iter().all(is_silent) {
        return false;
    }
    // `None`: silent since before the daemon was started.
    let ages = || peers.iter().map(|peer| peer.word_age_s);
    let newest = ages().flatten().min_by(f64::total_cmp);
    let together = ages().filter(|age| match (age, newest) {
        (Some(age), Some(newest)) => age - newest <= AT_ONCE_S,
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
    });
    together.count() >= AT_ONCE_HOSTS_MIN
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::fake::mesh_peer;
    use serde_json::json;

    #[test]
    fn only_pods_of_controllers_that_endure_two_are_replaced() {
        let owned = |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        assert_eq!(replacer(&owned("ReplicaSet")), Some("ReplicaSet"));
        assert_eq!(replacer(&owned("StatefulSet")), None);
        assert_eq!(replacer(&json!({"metadata": {}})), None);
    }

    #[test]
    fn a_host_is_cut_off_when_several_others_fall_silent_at_once() {
        use HostStatus::{Ok, Unknown, Unreachable};
        let cut_off = |peers: &[(HostStatus, Option<f64>)]| {
            let peer = |(number, (status, age)): (u16, &_)| mesh_peer(number, *status, *age);
            is_cut_off(&(3..).zip(peers).map(peer).collect::<Vec<_>>())
        };
        let (now, before) = (Some(70.0), Some(9000.0));
        assert!(cut_off(&[(Unreachable, now), (Unreachable, Some(75.0))]));
        assert!(cut_off(&[(Unreachable, None), (Unreachable, None)]));
        let old = (Unreachable, before);
        assert!(cut_off(&[(Unreachable, now), (Unreachable, now), old]));
        // One answers, or may.
        assert!(!cut_off(&[
            (Unreachable, now),
            (Unreachable, now),
            (Ok, Some(1.0))
        ]));
        assert!(!cut_off(&[
            (Unreachable, now),
            (Unreachable, now),
            (Unknown, now)
        ]));
        // One after the other, or one alone.
        assert!(!cut_off(&[(Unreachable, now), old]));
        assert!(!cut_off(&[(Unreachable, now), (Unreachable, None)]));
        assert!(!cut_off(&[(Unreachable, now)]));
        assert!(!cut_off(&[]));
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
