//! Deployments and ReplicaSets.
//!
//! ```text
//!   watches ──> caches ──> names whose owners have to look ──> queues ──> one task
//!                 ^                                                          │ decides, purely
//!                 └───────────── own writes, at once ────────────────────────┘
//! ```
//!
//! One task does both, so that each sees at once what the other wrote.

mod deployment;
pub(crate) mod owner;
pub(super) mod replica_set;
pub(super) mod victims;

use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::warn;

use super::cache::{Cache, key};
use super::events::Recorder;
use super::informer::{self, Change};
use super::queue::{Outcome, Queue};
use crate::api::{Api, Selector};
use crate::label_selector;
use crate::object;
use crate::resource::{DEPLOYMENTS, PODS, REPLICA_SETS, Resource};
use crate::status::Status;

/// The watch brings what made a write fail sooner than this.
const CONFLICT_RETRY: Duration = Duration::from_millis(100);

/// What both controllers know and write with.
struct Workloads {
    api: Api,
    deployments: Cache,
    sets: Cache,
    pods: Cache,
    deployment_events: Recorder,
    set_events: Recorder,
}

#[derive(Default)]
struct Queues {
    deployments: Queue,
    sets: Queue,
}

pub(super) async fn run(api: &Api) {
    let follow = |resource| informer::follow(api, resource, Selector::default());
    let (mut deployments, mut sets) = (follow(&DEPLOYMENTS), follow(&REPLICA_SETS));
    let mut pods = follow(&PODS);
    let mut workloads = Workloads {
        api: api.clone(),
        deployments: Cache::default(),
        sets: Cache::default(),
        pods: Cache::default(),
        deployment_events: Recorder::new(api.clone(), "deployment-controller", ""),
        set_events: Recorder::new(api.clone(), "replicaset-controller", ""),
    };
    let mut queues = Queues::default();
    // Nothing is decided before everything is known.
    for (resource, changes) in [
        (&DEPLOYMENTS, &mut deployments),
        (&REPLICA_SETS, &mut sets),
        (&PODS, &mut pods),
    ] {
        match changes.recv().await {
            Some(change) => workloads.take(resource, change, &mut queues),
            None => return,
        }
    }
    loop {
        let due = work(&mut workloads, &mut queues).await;
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(change) = deployments.recv() => {
                workloads.take(&DEPLOYMENTS, change, &mut queues);
            }
            Some(change) = sets.recv() => workloads.take(&REPLICA_SETS, change, &mut queues),
            Some(change) = pods.recv() => workloads.take(&PODS, change, &mut queues),
            () = timer => {}
        }
    }
}

/// Looks at one Deployment and one ReplicaSet that wait, so that news is never kept waiting by a
/// long queue, and tells when to come again.
async fn work(workloads: &mut Workloads, queues: &mut Queues) -> Option<Instant> {
    if let Some(at) = queues.deployments.take() {
        let outcome = outcome(&at, deployment::sync(workloads, &at).await);
        queues.deployments.finish(Instant::now(), &at, outcome);
    }
    if let Some(at) = queues.sets.take() {
        let outcome = outcome(&at, replica_set::sync(workloads, &at).await);
        queues.sets.finish(Instant::now(), &at, outcome);
    }
    let now = Instant::now();
    let due = [queues.deployments.advance(now), queues.sets.advance(now)];
    let is_idle = queues.deployments.is_idle() && queues.sets.is_idle();
    if is_idle {
        due.into_iter().flatten().min()
    } else {
        Some(now)
    }
}

fn outcome(at: &str, result: Result<Outcome, Status>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(error) => {
            // Somebody else wrote in between: the watch brings what they wrote.
            if error.is_conflict() || error.is_not_found() {
                return Outcome::After(CONFLICT_RETRY);
            }
            warn!(name = at, %error, "workload not brought up to date");
            Outcome::Failed
        }
    }
}

/// A pod that counts: it has not ended and is not about to.
pub(super) fn is_active(pod: &Value) -> bool {
    let phase = object::text(pod, &["status", "phase"]);
    !object::is_terminating(pod) && !matches!(phase, "Succeeded" | "Failed")
}

impl Workloads {
    /// Takes in a change, and puts who has to look at it into the queues.
    fn take(&mut self, resource: &'static Resource, change: Change, queues: &mut Queues) {
        let api = self.api.clone();
        let now = |at: &str| {
            let (namespace, name) = at.split_once('/')?;
            api.read(resource, Some(namespace), name).ok()
        };
        if resource.is(&DEPLOYMENTS) {
            for deployment in self.deployments.apply(change, now) {
                queues.deployments.add(&key(&deployment));
            }
        } else if resource.is(&REPLICA_SETS) {
            for set in self.sets.apply(change, now) {
                queues.sets.add(&key(&set));
                add_owners(&set, &self.deployments, &mut queues.deployments);
            }
        } else {
            for pod in self.pods.apply(change, now) {
                add_owners(&pod, &self.sets, &mut queues.sets);
                let set =
                    owner::controller(&pod).and_then(|set| self.sets.get(&at_owner(&pod, set)));
                // A Deployment that recreates waits for the end of its old pods.
                if let Some(set) = set {
                    add_owners(set, &self.deployments, &mut queues.deployments);
                }
            }
        }
    }
}

fn at_owner(object: &Value, reference: &Value) -> String {
    let namespace = object::namespace(object).unwrap_or_default();
    format!("{namespace}/{}", object::text(reference, &["name"]))
}

/// The controller of an object, or all that may want to adopt it.
fn add_owners(object: &Value, owners: &Cache, queue: &mut Queue) {
    if let Some(reference) = owner::controller(object) {
        let at = at_owner(object, reference);
        if owners.get(&at).is_some() {
            queue.add(&at);
        }
        return;
    }
    let labels = &object["metadata"]["labels"];
    for owner in owners.within(object::namespace(object).unwrap_or_default()) {
        if label_selector::matches(&owner["spec"]["selector"], labels) {
            queue.add(&key(owner));
        }
    }
}
