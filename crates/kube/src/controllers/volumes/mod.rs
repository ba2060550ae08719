//! Claims get volumes, volumes without claims are kept or go, and neither goes while it is used.

mod plan;

use std::time::Duration;

use serde_json::{Value, json};

use self::plan::{ClaimPlan, View, VolumeStep, plan_claim, step_of_volume};
use super::hands::Hands;
use super::pods::is_finished;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, Part, Patch};
use crate::object;
use crate::resource::{
    NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, Resource, STORAGE_CLASSES,
    VOLUME_ATTRIBUTES_CLASSES,
};
use crate::status::Status;

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const CLASS_PROTECTION: &str = "kubernetes.io/vac-protection";
/// What keys of attributes classes begin with; no namespace does.
const CLASS_KEY: &str = "class:";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

pub(super) struct Volumes {
    hands: Hands,
}

impl Volumes {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "persistentvolume-controller");
        Self { hands }
    }
}

/// The claims that a pod uses, as keys.
fn claims_of(pod: &Value) -> Vec<String> {
    let namespace = object::namespace(pod).unwrap_or_default();
    let volumes = object::items(pod, &["spec", "volumes"]).iter();
    let named = volumes.filter_map(|volume| {
        if volume["ephemeral"].is_object() {
            let name = object::text(volume, &["name"]);
            return Some(format!("{}-{name}", object::name(pod)));
        }
        let claim = object::text(volume, &["persistentVolumeClaim", "claimName"]);
        (!claim.is_empty()).then(|| claim.to_owned())
    });
    named.map(|claim| format!("{namespace}/{claim}")).collect()
}

/// Volumes have no namespace: their keys begin with the slash.
fn is_volume(at: &str) -> bool {
    at.starts_with('/')
}

fn class_key(key: &str) -> String {
    format!("{CLASS_KEY}{key}")
}

/// Whether a claim or a volume has its attributes from this class, or is about to.
fn has_attributes_of(object: &Value, class: &str) -> bool {
    [
        &["spec", "volumeAttributesClassName"][..],
        &["status", "currentVolumeAttributesClassName"],
        &[
            "status",
            "modifyVolumeStatus",
            "targetVolumeAttributesClassName",
        ],
    ]
    .iter()
    .any(|path| object::text(object, path) == class)
}

impl Controller for Volumes {
    const NAME: &'static str = "persistentvolume";
    const WATCHED: &'static [&'static Resource] = &[
        &PERSISTENT_VOLUMES,
        &PERSISTENT_VOLUME_CLAIMS,
        &STORAGE_CLASSES,
        &VOLUME_ATTRIBUTES_CLASSES,
        &PODS,
    ];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let known = &self.hands.known;
        let waits = |claim: &Value| claim["status"]["phase"] != "Bound";
        if changed.is(&PODS) {
            return claims_of(&changed.object);
        }
        if changed.is(&STORAGE_CLASSES) {
            return known.keys(&PERSISTENT_VOLUME_CLAIMS, None, waits);
        }
        if changed.is(&VOLUME_ATTRIBUTES_CLASSES) {
            return vec![class_key(&changed.key())];
        }
        // Whatever used a class that is to go may have been the last to do so.
        let leaving = known.keys(&VOLUME_ATTRIBUTES_CLASSES, None, object::is_terminating);
        let leaving = leaving.iter().map(|key| class_key(key));
        if changed.is(&PERSISTENT_VOLUME_CLAIMS) {
            let mut concerned = vec![changed.key()];
            concerned.extend(leaving);
            let volume = object::text(&changed.object, &["spec", "volumeName"]);
            if !volume.is_empty() {
                concerned.push(format!("/{volume}"));
            }
            return concerned;
        }
        let mut concerned = known.keys(&PERSISTENT_VOLUME_CLAIMS, None, |claim| {
            waits(claim) || claim["spec"]["volumeName"] == object::name(&changed.object)
        });
        concerned.push(changed.key());
        concerned.extend(leaving);
        concerned
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        if let Some(class) = at.strip_prefix(CLASS_KEY) {
            self.sync_class(class).await
        } else if is_volume(at) {
            self.sync_volume(at).await
        } else {
            self.sync_claim(at).await
        }
    }
}

impl Volumes {
    async fn sync_claim(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(claim) = hands.known.get(&PERSISTENT_VOLUME_CLAIMS, at) else {
            return Ok(Outcome::Done);
        };
        if object::is_terminating(&claim) {
            return self.release_claim(at, &claim).await;
        }
        self.protect(&PERSISTENT_VOLUME_CLAIMS, &claim, CLAIM_PROTECTION)
            .await?;
        let volumes = hands.known.all(&PERSISTENT_VOLUMES, None);
        let classes = hands.known.all(&STORAGE_CLASSES, None);
        let (waiting, node) = self.consumers(at, &claim);
        let ClaimPlan {
            volume,
            claim: changed,
            status,
            news,
        } = plan_claim(&View {
            claim: &claim,
            volumes: &volumes,
            classes: &classes,
            waiting: &waiting,
            node: node.as_ref(),
        });
        if let Some(news) = news {
            hands.tell(&claim, news).await;
        }
        if let Some(volume) = volume {
            hands.update(&PERSISTENT_VOLUMES, volume).await?;
        }
        let mut claim = claim;
        if let Some(changed) = changed {
            claim = hands.update(&PERSISTENT_VOLUME_CLAIMS, changed).await?;
        }
        if let Some(status) = status {
            hands
                .update_status(&PERSISTENT_VOLUME_CLAIMS, &claim, status)
                .await?;
        }
        Ok(Outcome::Done)
    }

    /// Pods that use a claim and have no node yet, and where the first one is that has.
    fn consumers(&self, at: &str, claim: &Value) -> (Vec<String>, Option<Value>) {
        if claim["status"]["phase"] == "Bound" {
            return (Vec::new(), None);
        }
        let known = &self.hands.known;
        let mut pods = known.all(&PODS, object::namespace(claim));
        pods.retain(|pod| !is_finished(pod) && claims_of(pod).iter().any(|one| one == at));
        let node = |pod: &Value| {
            let node = object::text(pod, &["spec", "nodeName"]);
            known.get(&NODES, &format!("/{node}"))
        };
        let first = pods.iter().find_map(node);
        pods.retain(|pod| object::text(pod, &["spec", "nodeName"]).is_empty());
        let waiting = pods.iter().map(|pod| object::name(pod).to_owned());
        (waiting.collect(), first)
    }

    /// A claim that is to go goes when no pod uses it.
    async fn release_claim(&self, at: &str, claim: &Value) -> Result<Outcome, Status> {
        let namespace = object::namespace(claim);
        let pods = self.hands.known.all(&PODS, namespace);
        let uses = |pod: &Value| !is_finished(pod) && claims_of(pod).iter().any(|one| one == at);
        if !pods.iter().any(uses) {
            self.let_go(&PERSISTENT_VOLUME_CLAIMS, claim, CLAIM_PROTECTION)
                .await?;
        }
        Ok(Outcome::Done)
    }

    async fn sync_volume(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(volume) = hands.known.get(&PERSISTENT_VOLUMES, at) else {
            return Ok(Outcome::Done);
        };
        let reference = &volume["spec"]["claimRef"];
        let text = |field: &str| object::text(reference, &[field]);
        let key = format!("{}/{}", text("namespace"), text("name"));
        let claim = hands.known.get(&PERSISTENT_VOLUME_CLAIMS, &key);
        let step = step_of_volume(&volume, claim.as_ref());
        if object::is_terminating(&volume) {
            if step != VolumeStep::Phase("Bound") {
                self.let_go(&PERSISTENT_VOLUMES, &volume, VOLUME_PROTECTION)
                    .await?;
            }
            return Ok(Outcome::Done);
        }
        self.protect(&PERSISTENT_VOLUMES, &volume, VOLUME_PROTECTION)
            .await?;
        match step {
            VolumeStep::Delete => {
                hands.delete(&PERSISTENT_VOLUMES, &volume).await?;
            }
            VolumeStep::Phase(phase) if volume["status"]["phase"] != phase => {
                let mut status = volume["status"].clone();
                if !status.is_object() {
                    status = json!({});
                }
                status["phase"] = phase.into();
                status["lastPhaseTransitionTime"] =
                    crate::time::seconds(jiff::Timestamp::now()).into();
                let mut told = volume;
                // The finalizer may have been added a moment ago.
                object::meta_mut(&mut told).remove("resourceVersion");
                hands
                    .update_status(&PERSISTENT_VOLUMES, &told, status)
                    .await?;
                if phase == "Available" {
                    return Ok(Outcome::After(Duration::from_millis(50)));
                }
            }
            VolumeStep::Phase(_) => {}
        }
        Ok(Outcome::Done)
    }

    /// An attributes class that is to go goes when nothing has its attributes from it.
    async fn sync_class(&self, at: &str) -> Result<Outcome, Status> {
        let known = &self.hands.known;
        let resource = &VOLUME_ATTRIBUTES_CLASSES;
        let Some(class) = known.get(resource, at) else {
            return Ok(Outcome::Done);
        };
        if !object::is_terminating(&class) {
            self.protect(resource, &class, CLASS_PROTECTION).await?;
            return Ok(Outcome::Done);
        }
        let name = object::name(&class);
        let is_used = [&PERSISTENT_VOLUME_CLAIMS, &PERSISTENT_VOLUMES]
            .iter()
            .any(|users| {
                let users = known.all(users, None);
                users.iter().any(|user| has_attributes_of(user, name))
            });
        if !is_used {
            self.let_go(resource, &class, CLASS_PROTECTION).await?;
        }
        Ok(Outcome::Done)
    }

    async fn protect(
        &self,
        resource: &Resource,
        object: &Value,
        finalizer: &str,
    ) -> Result<(), Status> {
        let present = object::items(object, &["metadata", "finalizers"]);
        if present.iter().any(|one| one == finalizer) {
            return Ok(());
        }
        let patch = json!({"metadata": {"finalizers": [finalizer]}});
        self.patch(resource, object, patch).await
    }

    async fn let_go(
        &self,
        resource: &Resource,
        object: &Value,
        finalizer: &str,
    ) -> Result<(), Status> {
        let present = object::items(object, &["metadata", "finalizers"]);
        if !present.iter().any(|one| one == finalizer) {
            return Ok(());
        }
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [finalizer]}});
        self.patch(resource, object, patch).await
    }

    async fn patch(&self, resource: &Resource, object: &Value, patch: Value) -> Result<(), Status> {
        let (namespace, name) = (object::namespace(object), object::name(object));
        let api = &self.hands.api;
        let patch = Patch::Strategic(patch);
        match api
            .patch(resource, Part::Object, namespace, name, &patch)
            .await
        {
            Err(status) if !status.is_not_found() => Err(status),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
