//! DaemonSets: one pod on each node that matches.

mod plan;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::plan::{HASH_LABEL, Plan, plan};
use super::hands::Hands;
use super::history::{self, Record};
use super::pods::number;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS, Resource};
use crate::status::Status;

/// Pods made or deleted before the set is looked at again; upstream's number.
const BURST: usize = 250;

pub(super) struct DaemonSets {
    hands: Hands,
}

impl DaemonSets {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "daemonset-controller");
        Self { hands }
    }
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset";
    const WATCHED: &'static [&'static Resource] =
        &[&DAEMON_SETS, &PODS, &CONTROLLER_REVISIONS, &NODES];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let known = &self.hands.known;
        if changed.is(&DAEMON_SETS) {
            return vec![changed.key()];
        }
        if changed.is(&NODES) {
            return known.keys(&DAEMON_SETS, None, |_| true);
        }
        if changed.has_controller() {
            return changed.controller_key("DaemonSet").into_iter().collect();
        }
        known.keys(&DAEMON_SETS, Some(changed.namespace()), |set| {
            changed.is_or_was_selected(&set["spec"]["selector"])
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(set) = self.hands.known.get(&DAEMON_SETS, at) else {
            return Ok(Outcome::Done);
        };
        let selector = &set["spec"]["selector"];
        let any = |_: &Value| true;
        let pods = self.hands.claim(&PODS, &set, selector, any).await?;
        let revisions = self.hands.claim(&CONTROLLER_REVISIONS, &set, selector, any);
        let mut revisions = revisions.await?;
        history::sort(&mut revisions);
        if object::is_terminating(&set) {
            return Ok(Outcome::Done);
        }
        let Some(hash) = self.record(&set, &mut revisions).await? else {
            return Ok(Outcome::Done);
        };
        let nodes = self.hands.known.all(&NODES, None);
        let Plan {
            mut create,
            mut delete,
            status,
            news,
            again,
        } = plan(&set, &pods, &nodes, &hash, Timestamp::now());
        let set = self.hands.update_status(&DAEMON_SETS, &set, status).await?;
        for news in news {
            self.hands.tell(&set, news).await;
        }
        create.truncate(BURST);
        delete.truncate(BURST);
        let gone = delete.iter().map(|pod| self.hands.delete_pod(&set, pod));
        for gone in futures::future::join_all(gone).await {
            gone?;
        }
        self.hands.create_pods(&set, create.into_iter()).await?;
        let used = history::label_values(&pods, HASH_LABEL);
        let is_live = |one: &Value| {
            let own = object::label(one, HASH_LABEL).unwrap_or_default();
            own == hash || used.contains(own)
        };
        for revision in history::beyond_limit(&set, &revisions, is_live) {
            self.hands.delete(&CONTROLLER_REVISIONS, &revision).await?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl DaemonSets {
    /// The hash of the present template's revision. `None` if its name is somebody else's: then
    /// the set has been changed to try another.
    async fn record(
        &self,
        set: &Value,
        revisions: &mut Vec<Value>,
    ) -> Result<Option<String>, Status> {
        let hash = |one: &Value| {
            object::label(one, HASH_LABEL)
                .unwrap_or_default()
                .to_owned()
        };
        let revision = match history::record(set, revisions, HASH_LABEL) {
            Record::Present(revision) => return Ok(Some(hash(&revision))),
            Record::Renumbered(revision) => {
                revisions.retain(|one| object::name(one) != object::name(&revision));
                self.hands.update(&CONTROLLER_REVISIONS, revision).await?
            }
            Record::New(revision) => {
                match self.hands.create(&CONTROLLER_REVISIONS, revision).await {
                    Ok(revision) => revision,
                    Err(error) if error.reason == "AlreadyExists" => {
                        let count = number(set, &["status", "collisionCount"]).unwrap_or(0) + 1;
                        let mut status = set["status"].clone();
                        if !status.is_object() {
                            status = json!({});
                        }
                        status["collisionCount"] = count.into();
                        self.hands.update_status(&DAEMON_SETS, set, status).await?;
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let hash = hash(&revision);
        revisions.push(revision);
        Ok(Some(hash))
    }
}
