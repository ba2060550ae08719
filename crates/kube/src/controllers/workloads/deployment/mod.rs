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

use super::{is_active, owner};
use crate::api::{Api, Part, Patch};
use crate::controllers::cache::key;
use crate::controllers::events::News;
use crate::controllers::hands::Hands;
use crate::controllers::queue::Outcome;
use crate::controllers::reconcile::Controller;
use crate::controllers::watches::{Changed, Watches};
use crate::object;
use crate::resource::{DEPLOYMENTS, PODS, REPLICA_SETS, Resource};
use crate::status::Status;

/// A template whose name is taken by another's gets a new one.
const COLLISION_RETRY: Duration = Duration::from_millis(100);

pub(in crate::controllers) struct Deployments {
    hands: Hands,
}

impl Deployments {
    pub(in crate::controllers) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "deployment-controller");
        Self { hands }
    }
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";
    const WATCHED: &'static [&'static Resource] = &[&DEPLOYMENTS, &REPLICA_SETS, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let known = &self.hands.known;
        if changed.is(&DEPLOYMENTS) {
            return vec![changed.key()];
        }
        if changed.is(&PODS) {
            // A Deployment that recreates waits for the end of its old pods.
            let set = changed.controller_key("ReplicaSet");
            let set = set.and_then(|key| known.get(&REPLICA_SETS, &key));
            let reference = set.as_ref().and_then(owner::controller);
            let name = reference.map(|one| object::text(one, &["name"]));
            let key = name.map(|name| format!("{}/{name}", changed.namespace()));
            return key.into_iter().collect();
        }
        if changed.has_controller() {
            return changed.controller_key("Deployment").into_iter().collect();
        }
        known.keys(&DEPLOYMENTS, Some(changed.namespace()), |deployment| {
            changed.is_or_was_selected(&deployment["spec"]["selector"])
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(deployment) = hands.known.get(&DEPLOYMENTS, at) else {
            return Ok(Outcome::Done);
        };
        let selector = &deployment["spec"]["selector"];
        let any = |_: &Value| true;
        let sets = hands
            .claim(&REPLICA_SETS, &deployment, selector, any)
            .await?;
        let old_pods = runs_old_pods(hands, &deployment, &sets);
        let plan = plan(&deployment, &sets, old_pods);
        if let Some(outcome) = perform(hands, &deployment, plan).await? {
            return Ok(outcome);
        }
        let sets = hands.known.owned(&REPLICA_SETS, object::uid(&deployment));
        let deployment = record_revision(hands, deployment, &sets).await?;
        let (status, again) = status(&deployment, &sets, Timestamp::now());
        hands
            .update_status(&DEPLOYMENTS, &deployment, status)
            .await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

fn runs_old_pods(hands: &Hands, deployment: &Value, sets: &[Value]) -> bool {
    let new = sets::find_new(deployment, sets).map(object::uid);
    let mut old = sets.iter().filter(|set| Some(object::uid(set)) != new);
    old.any(|set| {
        let pods = hands.known.owned(&PODS, object::uid(set));
        pods.iter()
            .any(|pod| is_active(pod) || object::is_terminating(pod))
    })
}

/// Does what was planned. Returns an outcome if the Deployment has to be looked at anew.
async fn perform(hands: &Hands, deployment: &Value, plan: Plan) -> Result<Option<Outcome>, Status> {
    if let Some(set) = plan.create {
        let (name, size) = (object::name(&set).to_owned(), sets::wanted(&set));
        match hands.create(&REPLICA_SETS, set).await {
            Ok(_) => tell_scaled(hands, deployment, &name, 0, size).await,
            Err(status) if status.reason == "AlreadyExists" => {
                return collided(hands, deployment, &name).await.map(Some);
            }
            Err(status) if status.is_namespace_terminating() => return Ok(Some(Outcome::Done)),
            Err(status) => {
                let message = format!("Failed to create new replica set {name:?}: {status}");
                let news = News::warning("ReplicaSetCreateError", message);
                hands.tell(deployment, news).await;
                return Err(status);
            }
        }
    }
    for set in plan.update {
        let name = object::name(&set).to_owned();
        let before = hands.known.get(&REPLICA_SETS, &key(&set));
        let before = before.as_ref().map_or(0, sets::wanted);
        let after = sets::wanted(&set);
        hands.update(&REPLICA_SETS, set).await?;
        tell_scaled(hands, deployment, &name, before, after).await;
    }
    for set in plan.delete {
        hands.delete(&REPLICA_SETS, &set).await?;
    }
    Ok(None)
}

async fn tell_scaled(hands: &Hands, deployment: &Value, set: &str, from: i64, to: i64) {
    let word = match from.cmp(&to) {
        std::cmp::Ordering::Less => "up",
        std::cmp::Ordering::Greater => "down",
        std::cmp::Ordering::Equal => return,
    };
    let message = format!("Scaled {word} replica set {set} from {from} to {to}");
    let news = News::normal("ScalingReplicaSet", message);
    hands.tell(deployment, news).await;
}

/// The name of the new set is taken. If by a set of ours with this template that we had not heard
/// of, that will do; else the hash has to change.
async fn collided(hands: &Hands, deployment: &Value, name: &str) -> Result<Outcome, Status> {
    let namespace = object::namespace(deployment);
    let taken = hands.api.get(&REPLICA_SETS, namespace, name).await?;
    let is_ours = owner::is_controlled_by(&taken, deployment);
    if is_ours && sets::find_new(deployment, std::slice::from_ref(&taken)).is_some() {
        hands.known.wrote(&REPLICA_SETS, &taken);
        return Ok(Outcome::After(COLLISION_RETRY));
    }
    let count = sets::number(deployment, &["status", "collisionCount"]) + 1;
    let mut changed = deployment.clone();
    object::map_mut(&mut changed, "status").insert("collisionCount".into(), count.into());
    let status = changed["status"].clone();
    hands
        .update_status(&DEPLOYMENTS, deployment, status)
        .await?;
    Ok(Outcome::After(COLLISION_RETRY))
}

/// The Deployment tells which revision its new set is.
async fn record_revision(
    hands: &Hands,
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
    let written = hands
        .api
        .patch(&DEPLOYMENTS, Part::Object, namespace, name, &patch)
        .await?;
    hands.known.wrote(&DEPLOYMENTS, &written);
    Ok(written)
}
