//! StatefulSets: pods with a number, a name and claims of their own, one after the other.

mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use self::identity::REVISION_LABEL;
use self::plan::{Action, Plan, View, plan};
use super::cache::key;
use super::events::News;
use super::hands::Hands;
use super::history::{self, Record};
use super::pods::number;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{
    CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, Resource, STATEFUL_SETS,
};
use crate::status::Status;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

pub(super) struct StatefulSets {
    hands: Hands,
}

impl StatefulSets {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "statefulset-controller");
        Self { hands }
    }
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset";
    const WATCHED: &'static [&'static Resource] = &[
        &STATEFUL_SETS,
        &PODS,
        &CONTROLLER_REVISIONS,
        &PERSISTENT_VOLUME_CLAIMS,
    ];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&STATEFUL_SETS) {
            return vec![changed.key()];
        }
        if changed.is(&PERSISTENT_VOLUME_CLAIMS) {
            return self.claiming(changed);
        }
        if changed.has_controller() {
            return changed.controller_key("StatefulSet").into_iter().collect();
        }
        let namespace = Some(changed.namespace());
        self.hands.known.keys(&STATEFUL_SETS, namespace, |set| {
            changed.is_or_was_selected(&set["spec"]["selector"])
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(set) = self.hands.known.get(&STATEFUL_SETS, at) else {
            return Ok(Outcome::Done);
        };
        let selector = &set["spec"]["selector"];
        let is_member = |pod: &Value| identity::ordinal(&set, pod).is_some();
        let pods = self.hands.claim(&PODS, &set, selector, is_member).await?;
        let any = |_: &Value| true;
        let mut revisions = self
            .hands
            .claim(&CONTROLLER_REVISIONS, &set, selector, any)
            .await?;
        history::sort(&mut revisions);
        if object::is_terminating(&set) {
            return Ok(Outcome::Done);
        }
        let Some(update) = self.record(&set, &mut revisions).await? else {
            return Ok(Outcome::Done);
        };
        let current = object::text(&set, &["status", "currentRevision"]);
        let current = revisions.iter().find(|one| object::name(one) == current);
        let current = current.unwrap_or(&update).clone();
        let view = View {
            set: &set,
            pods: &pods,
            claims: &self.claims(&set, &pods),
            current: &current,
            update: &update,
        };
        let Plan {
            actions,
            status,
            again,
        } = plan(&view, Timestamp::now());
        let used = [&status["currentRevision"], &status["updateRevision"]];
        let of_pods = history::label_values(&pods, REVISION_LABEL);
        let is_live = |one: &Value| {
            let name = object::name(one);
            used.iter().any(|used| *used == name) || of_pods.contains(name)
        };
        let surplus = history::beyond_limit(&set, &revisions, is_live);
        self.hands
            .update_status(&STATEFUL_SETS, &set, status)
            .await?;
        self.perform(&set, actions).await?;
        for revision in surplus {
            self.hands.delete(&CONTROLLER_REVISIONS, &revision).await?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl StatefulSets {
    /// The sets that a claim may be of, by its name.
    fn claiming(&self, changed: &Changed) -> Vec<String> {
        let claim = object::name(&changed.object);
        let namespace = Some(changed.namespace());
        self.hands.known.keys(&STATEFUL_SETS, namespace, |set| {
            let templates = object::items(set, &["spec", "volumeClaimTemplates"]).iter();
            let mut prefixes =
                templates.map(|one| format!("{}-{}-", object::name(one), object::name(set)));
            prefixes.any(|prefix| claim.starts_with(&prefix))
        })
    }

    /// The revision of the present template. `None` if its name is somebody else's: then the set
    /// has been changed to try another.
    async fn record(
        &self,
        set: &Value,
        revisions: &mut Vec<Value>,
    ) -> Result<Option<Value>, Status> {
        let revision = match history::record(set, revisions, HASH_LABEL) {
            Record::Present(revision) => return Ok(Some(revision)),
            Record::Renumbered(revision) => {
                revisions.retain(|one| object::name(one) != object::name(&revision));
                self.hands.update(&CONTROLLER_REVISIONS, revision).await?
            }
            Record::New(revision) => {
                match self.hands.create(&CONTROLLER_REVISIONS, revision).await {
                    Ok(revision) => revision,
                    Err(status) if status.reason == "AlreadyExists" => {
                        let count = number(set, &["status", "collisionCount"]).unwrap_or(0) + 1;
                        let mut status = set["status"].clone();
                        status["collisionCount"] = count.into();
                        self.hands
                            .update_status(&STATEFUL_SETS, set, status)
                            .await?;
                        return Ok(None);
                    }
                    Err(status) => return Err(status),
                }
            }
        };
        revisions.push(revision.clone());
        Ok(Some(revision))
    }

    /// The claims of all pods that there are or should be, by name.
    fn claims(&self, set: &Value, pods: &[Value]) -> BTreeMap<String, Value> {
        let first = identity::first_ordinal(set);
        let wanted = first..first + identity::replicas(set);
        let present = pods.iter().filter_map(|pod| identity::ordinal(set, pod));
        let claims = wanted
            .chain(present)
            .flat_map(|ordinal| identity::claims(set, ordinal));
        claims
            .filter_map(|claim| {
                let found = self
                    .hands
                    .known
                    .get(&PERSISTENT_VOLUME_CLAIMS, &key(&claim))?;
                Some((object::name(&claim).to_owned(), found))
            })
            .collect()
    }

    async fn perform(&self, set: &Value, actions: Vec<Action>) -> Result<(), Status> {
        for action in actions {
            match action {
                Action::CreateClaim { claim, pod } => self.create_claim(set, claim, &pod).await?,
                Action::UpdateClaim(claim) => {
                    self.hands.update(&PERSISTENT_VOLUME_CLAIMS, claim).await?;
                }
                Action::CreatePod(pod) => {
                    let name = object::name(&pod).to_owned();
                    let made = self.hands.create(&PODS, pod).await.map(drop);
                    self.tell(set, "create", &name, made).await?;
                }
                Action::UpdatePod(pod) => {
                    let name = object::name(&pod).to_owned();
                    let written = self.hands.update(&PODS, pod).await.map(drop);
                    self.tell(set, "update", &name, written).await?;
                }
                Action::DeletePod { pod, why } => {
                    if let Some(why) = why {
                        self.hands.tell(set, why).await;
                    }
                    let gone = self.hands.delete(&PODS, &pod).await.map(drop);
                    self.tell(set, "delete", object::name(&pod), gone).await?;
                }
            }
        }
        Ok(())
    }

    async fn create_claim(&self, set: &Value, claim: Value, pod: &str) -> Result<(), Status> {
        let name = object::name(&claim).to_owned();
        let at = object::name(set);
        match self.hands.create(&PERSISTENT_VOLUME_CLAIMS, claim).await {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {at} success");
                let news = News::normal("SuccessfulCreate", message);
                self.hands.tell(set, news).await;
                Ok(())
            }
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) => {
                let message = format!(
                    "create Claim {name} for Pod {pod} in StatefulSet {at} failed error: {status}"
                );
                let news = News::warning("FailedCreate", message);
                self.hands.tell(set, news).await;
                Err(status)
            }
        }
    }

    /// Tells what became of a pod, in upstream's words.
    async fn tell(
        &self,
        set: &Value,
        verb: &'static str,
        pod: &str,
        result: Result<(), Status>,
    ) -> Result<(), Status> {
        let at = object::name(set);
        let (good, bad) = match verb {
            "create" => ("SuccessfulCreate", "FailedCreate"),
            "delete" => ("SuccessfulDelete", "FailedDelete"),
            _ => ("SuccessfulUpdate", "FailedUpdate"),
        };
        let news = match &result {
            Ok(()) => News::normal(
                good,
                format!("{verb} Pod {pod} in StatefulSet {at} successful"),
            ),
            Err(status) if status.is_namespace_terminating() => return result,
            Err(status) => News::warning(
                bad,
                format!("{verb} Pod {pod} in StatefulSet {at} failed error: {status}"),
            ),
        };
        self.hands.tell(set, news).await;
        result
    }
}
