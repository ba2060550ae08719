//! ReplicationControllers: ReplicaSets of the first days, whose selector is a plain map.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::hands::Hands;
use super::pods::is_active;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use super::workloads::replica_set::{self, Plan};
use crate::api::Api;
use crate::object;
use crate::resource::{PODS, REPLICATION_CONTROLLERS, Resource};
use crate::status::Status;

pub(super) struct ReplicationControllers {
    hands: Hands,
}

impl ReplicationControllers {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "replication-controller");
        Self { hands }
    }
}

/// In the form that ReplicaSets have it.
fn selector(controller: &Value) -> Value {
    json!({"matchLabels": controller["spec"]["selector"]})
}

impl Controller for ReplicationControllers {
    const NAME: &'static str = "replicationcontroller";
    const WATCHED: &'static [&'static Resource] = &[&REPLICATION_CONTROLLERS, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&REPLICATION_CONTROLLERS) {
            return vec![changed.key()];
        }
        if changed.has_controller() {
            let key = changed.controller_key("ReplicationController");
            return key.into_iter().collect();
        }
        let namespace = Some(changed.namespace());
        let known = &self.hands.known;
        known.keys(&REPLICATION_CONTROLLERS, namespace, |one| {
            changed.is_or_was_selected(&selector(one))
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(controller) = hands.known.get(&REPLICATION_CONTROLLERS, at) else {
            return Ok(Outcome::Done);
        };
        let selector = selector(&controller);
        let mut pods = hands
            .claim(&PODS, &controller, &selector, is_active)
            .await?;
        pods.retain(is_active);
        let Plan { create, delete } = replica_set::plan(&controller, &pods);
        let new = vec![replica_set::pod(&controller); create];
        let mut failure = hands
            .create_pods(&controller, new.into_iter())
            .await
            .err()
            .map(|error| ("FailedCreate", error));
        for pod in &delete {
            if let Err(error) = hands.delete_pod(&controller, pod).await {
                failure = Some(("FailedDelete", error));
            }
        }
        if let Some((_, error)) = &failure
            && error.is_namespace_terminating()
        {
            return Ok(Outcome::Done);
        }
        let told = failure
            .as_ref()
            .map(|(why, error)| (*why, error.to_string()));
        let told = told.as_ref().map(|(why, message)| (*why, message.as_str()));
        let mut pods = hands.known.owned(&PODS, object::uid(&controller));
        pods.retain(is_active);
        let (status, again) = replica_set::status(&controller, &pods, told, Timestamp::now());
        hands
            .update_status(&REPLICATION_CONTROLLERS, &controller, status)
            .await?;
        Ok(match (failure, again) {
            (Some(_), _) => Outcome::Failed,
            (None, Some(again)) => Outcome::After(again),
            (None, None) => Outcome::Done,
        })
    }
}
