//! The Deployment controller: one ReplicaSet per template, moved from one to the next.

mod plan;
mod sets;
mod status;
#[cfg(test)]
mod tests;

pub(super) use plan::{Plan, plan};
pub(super) use sets::REVISION;
pub(super) use status::status;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::owner::{self, Claim, claim};
use super::{Workloads, is_active};
use crate::api::{DeleteOptions, Deleted, Part, Patch};
use crate::controllers::cache::key;
use crate::controllers::events::News;
use crate::controllers::queue::Outcome;
use crate::object;
use crate::resource::{DEPLOYMENTS, REPLICA_SETS};
use crate::status::Status;

/// A template whose name is taken by another's gets a new one.
const COLLISION_RETRY: Duration = Duration::from_millis(100);

pub(super) async fn sync(workloads: &mut Workloads, at: &str) -> Result<Outcome, Status> {
    let Some(deployment) = workloads.deployments.get(at).cloned() else {
        return Ok(Outcome::Done);
    };
    let sets = claim_sets(workloads, &deployment).await?;
    let old_pods = runs_old_pods(workloads, &deployment, &sets);
    let plan = plan(&deployment, &sets, old_pods);
    if let Some(outcome) = perform(workloads, &deployment, plan).await? {
        return Ok(outcome);
    }
    let sets = own_sets(workloads, &deployment);
    let deployment = record_revision(workloads, deployment, &sets).await?;
    let (status, again) = status(&deployment, &sets, Timestamp::now());
    if status != deployment["status"] {
        let mut changed = deployment.clone();
        changed["status"] = status;
        let namespace = object::namespace(&deployment);
        let written = workloads
            .api
            .update_status(&DEPLOYMENTS, namespace, changed)
            .await?;
        workloads.deployments.wrote(written);
    }
    Ok(again.map_or(Outcome::Done, Outcome::After))
}

fn own_sets(workloads: &Workloads, deployment: &Value) -> Vec<Value> {
    let within = workloads
        .sets
        .within(object::namespace(deployment).unwrap_or_default());
    within
        .filter(|set| owner::is_controlled_by(set, deployment))
        .cloned()
        .collect()
}

/// Adopts and releases, and returns what is the Deployment's then.
async fn claim_sets(workloads: &mut Workloads, deployment: &Value) -> Result<Vec<Value>, Status> {
    let namespace = object::namespace(deployment);
    let within = workloads.sets.within(namespace.unwrap_or_default());
    let changed: Vec<_> = within
        .filter_map(|set| match claim(deployment, set) {
            Claim::Adopt => Some(owner::adopted(deployment, set)),
            Claim::Release => Some(owner::released(deployment, set)),
            Claim::Own | Claim::Leave => None,
        })
        .collect();
    for set in changed {
        let written = workloads.api.update(&REPLICA_SETS, namespace, set).await?;
        workloads.sets.wrote(written);
    }
    Ok(own_sets(workloads, deployment))
}

fn runs_old_pods(workloads: &Workloads, deployment: &Value, sets: &[Value]) -> bool {
    let new = sets::find_new(deployment, sets).map(object::uid);
    let within = workloads
        .pods
        .within(object::namespace(deployment).unwrap_or_default());
    within
        .filter(|pod| is_active(pod) || object::is_terminating(pod))
        .filter_map(owner::controller)
        .map(|reference| object::text(reference, &["uid"]))
        .any(|uid| Some(uid) != new && sets.iter().any(|set| object::uid(set) == uid))
}

/// Does what was planned. Returns an outcome if the Deployment has to be looked at anew.
async fn perform(
    workloads: &mut Workloads,
    deployment: &Value,
    plan: Plan,
) -> Result<Option<Outcome>, Status> {
    let namespace = object::namespace(deployment);
    if let Some(set) = plan.create {
        let (name, size) = (object::name(&set).to_owned(), sets::wanted(&set));
        match workloads.api.create(&REPLICA_SETS, namespace, set).await {
            Ok(created) => {
                workloads.sets.wrote(created);
                tell_scaled(workloads, deployment, &name, 0, size).await;
            }
            Err(status) if status.reason == "AlreadyExists" => {
                return collided(workloads, deployment, &name).await.map(Some);
            }
            Err(status) if status.is_namespace_terminating() => return Ok(Some(Outcome::Done)),
            Err(status) => return Err(status),
        }
    }
    for set in plan.update {
        let name = object::name(&set).to_owned();
        let before = workloads.sets.get(&key(&set)).map_or(0, sets::wanted);
        let after = sets::wanted(&set);
        let written = workloads.api.update(&REPLICA_SETS, namespace, set).await?;
        workloads.sets.wrote(written);
        tell_scaled(workloads, deployment, &name, before, after).await;
    }
    for set in plan.delete {
        let options = DeleteOptions::default().with_uid(object::uid(&set));
        let name = object::name(&set);
        match workloads
            .api
            .delete(&REPLICA_SETS, namespace, name, &options)
            .await
        {
            Ok(Deleted::Gone(gone)) => workloads.sets.removed(&gone),
            Ok(Deleted::Terminating(set)) => workloads.sets.wrote(set),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    Ok(None)
}

async fn tell_scaled(workloads: &Workloads, deployment: &Value, set: &str, from: i64, to: i64) {
    let word = match from.cmp(&to) {
        std::cmp::Ordering::Less => "up",
        std::cmp::Ordering::Greater => "down",
        std::cmp::Ordering::Equal => return,
    };
    let message = format!("Scaled {word} replica set {set} from {from} to {to}");
    let news = News::normal("ScalingReplicaSet", message);
    workloads.deployment_events.tell(deployment, news).await;
}

/// The name of the new set is taken. If by a set of ours that the watch has not told of yet, that
/// will come; else the hash has to change.
async fn collided(
    workloads: &mut Workloads,
    deployment: &Value,
    name: &str,
) -> Result<Outcome, Status> {
    let namespace = object::namespace(deployment);
    let taken = workloads.api.get(&REPLICA_SETS, namespace, name).await?;
    if owner::is_controlled_by(&taken, deployment) && workloads.sets.get(&key(&taken)).is_none() {
        return Ok(Outcome::After(COLLISION_RETRY));
    }
    let count = sets::number(deployment, &["status", "collisionCount"]) + 1;
    let mut changed = deployment.clone();
    object::map_mut(&mut changed, "status").insert("collisionCount".into(), count.into());
    let written = workloads
        .api
        .update_status(&DEPLOYMENTS, namespace, changed)
        .await?;
    workloads.deployments.wrote(written);
    Ok(Outcome::After(COLLISION_RETRY))
}

/// The Deployment tells which revision its new set is.
async fn record_revision(
    workloads: &mut Workloads,
    deployment: Value,
    sets: &[Value],
) -> Result<Value, Status> {
    let Some(new) = sets::find_new(&deployment, sets) else {
        return Ok(deployment);
    };
    let revision = sets::revision(new).to_string();
    let present = object::at(&deployment, &["metadata", "annotations", REVISION]);
    if object::is_terminating(&deployment) || present == Some(&json!(revision)) {
        return Ok(deployment);
    }
    let patch = Patch::merge(json!({"metadata": {
        "resourceVersion": deployment["metadata"]["resourceVersion"],
        "annotations": {REVISION: revision},
    }}));
    let (namespace, name) = (object::namespace(&deployment), object::name(&deployment));
    let written = workloads
        .api
        .patch(&DEPLOYMENTS, Part::Object, namespace, name, &patch)
        .await?;
    workloads.deployments.wrote(written.clone());
    Ok(written)
}
