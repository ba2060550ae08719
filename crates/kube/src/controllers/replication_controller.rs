//! ReplicationControllers: ReplicaSets of the first days, whose selector is a plain map.

use serde_json::{Value, json};

use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use super::workloads::replica_set::keep;
use crate::api::Api;
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
        match self.hands.known.get(&REPLICATION_CONTROLLERS, at) {
            Some(one) => keep(&self.hands, &REPLICATION_CONTROLLERS, &one, &selector(&one)).await,
            None => Ok(Outcome::Done),
        }
    }
}
