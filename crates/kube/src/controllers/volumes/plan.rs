//! Which volume a claim gets, and what becomes of a volume without its claim. Pure.

use serde_json::{Value, json};

use crate::admission::amounts::Amount;
use crate::controllers::events::News;
use crate::controllers::pods::{annotate, annotation};
use crate::label_selector;
use crate::object;
use crate::scheduler::selected;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of volumes that somebody makes by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// What to do for a claim.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ClaimPlan {
    /// The volume with its claim, to be written first.
    pub(super) volume: Option<Value>,
    /// The claim with its volume.
    pub(super) claim: Option<Value>,
    pub(super) status: Option<Value>,
    pub(super) news: Option<News>,
}

/// What a claim is looked at with.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) claim: &'a Value,
    pub(super) volumes: &'a [Value],
    pub(super) classes: &'a [Value],
    /// Pods that use the claim and have no node yet.
    pub(super) waiting: &'a [String],
    /// Where the first pod is that uses it.
    pub(super) node: Option<&'a Value>,
}

/// What to do for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeStep {
    Phase(&'static str),
    /// Nobody's any more, and not to be kept.
    Delete,
}

fn class(object: &Value) -> &str {
    let old = annotation(object, "volume.beta.kubernetes.io/storage-class");
    old.unwrap_or_else(|| object::text(object, &["spec", "storageClassName"]))
}

fn capacity(volume: &Value) -> Option<Amount> {
    object::at(volume, &["spec", "capacity", "storage"]).and_then(Amount::of)
}

fn refers(volume: &Value, claim: &Value) -> bool {
    let reference = &volume["spec"]["claimRef"];
    let uid = object::text(reference, &["uid"]);
    reference["name"] == object::name(claim)
        && reference["namespace"].as_str() == object::namespace(claim)
        && (uid.is_empty() || uid == object::uid(claim))
}

/// Upstream's words for why a volume is not what the claim asks for.
fn mismatch(volume: &Value, claim: &Value) -> Option<&'static str> {
    let asked = ["spec", "resources", "requests", "storage"];
    let asked = object::at(claim, &asked).and_then(Amount::of);
    let has_room = match (capacity(volume), asked) {
        (Some(has), Some(asked)) => has >= asked,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let modes = object::items(volume, &["spec", "accessModes"]);
    let mut wanted = object::items(claim, &["spec", "accessModes"]).iter();
    let mode = |object: &Value| match object::text(object, &["spec", "volumeMode"]) {
        "" => "Filesystem".to_owned(),
        mode => mode.to_owned(),
    };
    if !has_room {
        Some("requested PV is too small")
    } else if class(volume) != class(claim) {
        Some("storageClassName does not match")
    } else if mode(volume) != mode(claim) {
        Some("incompatible volumeMode")
    } else if !wanted.all(|mode| modes.contains(mode)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

fn fits(volume: &Value, claim: &Value) -> bool {
    let selector = &claim["spec"]["selector"];
    let is_selected =
        !selector.is_object() || label_selector::matches(selector, &volume["metadata"]["labels"]);
    let is_free = volume["spec"]["claimRef"].is_null() || refers(volume, claim);
    is_free && is_selected && !object::is_terminating(volume) && mismatch(volume, claim).is_none()
}

/// Whether pods of a node can reach the volume.
fn is_reachable(volume: &Value, node: Option<&Value>) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"];
    let (Some(node), true) = (node, required.is_object()) else {
        return true;
    };
    let pod = json!({"spec": {"affinity": {"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": required}}}});
    selected(&pod, node)
}

/// The volume that was kept for the claim, else the smallest that fits.
fn best<'a>(view: &View<'a>) -> Option<&'a Value> {
    let claim = view.claim;
    let fitting = || {
        let fitting = view.volumes.iter().filter(|volume| fits(volume, claim));
        fitting.filter(|volume| is_reachable(volume, view.node))
    };
    let kept = fitting().find(|volume| refers(volume, claim));
    kept.or_else(|| {
        fitting().min_by_key(|volume| (capacity(volume), object::name(volume).to_owned()))
    })
}

pub(super) fn plan_claim(view: &View<'_>) -> ClaimPlan {
    let claim = view.claim;
    let named = object::text(claim, &["spec", "volumeName"]);
    let mut volumes = view.volumes.iter();
    let volume = volumes.find(|volume| object::name(volume) == named);
    let is_bound = annotation(claim, BIND_COMPLETED).is_some();
    match (named.is_empty(), volume) {
        (true, _) => search(view),
        (false, Some(volume)) => {
            let is_free = volume["spec"]["claimRef"].is_null();
            if !is_free && !refers(volume, claim) {
                return if is_bound {
                    lost(claim)
                } else {
                    pending(claim, None)
                };
            }
            match mismatch(volume, claim) {
                Some(why) if is_free && !is_bound => {
                    let message = format!("Cannot bind to requested volume {named:?}: {why}");
                    pending(claim, Some(News::warning("VolumeMismatch", message)))
                }
                Some(_) | None => bind(claim, volume),
            }
        }
        (false, None) if is_bound => lost(claim),
        (false, None) => pending(claim, None),
    }
}

fn search(view: &View<'_>) -> ClaimPlan {
    let claim = view.claim;
    let name = class(claim);
    let class = view.classes.iter().find(|one| object::name(one) == name);
    let waits = class.is_some_and(|one| one["volumeBindingMode"] == "WaitForFirstConsumer");
    // A volume that was kept for this claim needs no consumer.
    let kept = view
        .volumes
        .iter()
        .find(|one| refers(one, claim) && fits(one, claim));
    if waits && annotation(claim, SELECTED_NODE).is_none() && kept.is_none() {
        return match view.node {
            Some(node) => consumed(claim, object::name(node)),
            None => pending(claim, Some(awaited(view.waiting))),
        };
    }
    if let Some(volume) = best(view) {
        return bind(claim, volume);
    }
    let provisioner = class.map(|one| object::text(one, &["provisioner"]));
    let news = match provisioner {
        None if name.is_empty() => {
            let message = "no persistent volumes available for this claim and no storage class is \
                           set";
            News::normal("FailedBinding", message)
        }
        None => {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            News::warning("ProvisioningFailed", message)
        }
        Some(BY_HAND) => {
            let message = format!("no volume plugin matched name: {BY_HAND}");
            News::warning("ProvisioningFailed", message)
        }
        Some(provisioner) => {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner \
                 '{provisioner}' or manually by the system administrator. If volume creation is \
                 delayed, please verify that the provisioner is running and correctly registered."
            );
            News::normal("ExternalProvisioning", message)
        }
    };
    pending(claim, Some(news))
}

/// What a claim waits for that waits for its first consumer.
fn awaited(waiting: &[String]) -> News {
    match waiting {
        [] => News::normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        [pod] => News::normal(
            "WaitForPodScheduled",
            format!("waiting for pod {pod} to be scheduled"),
        ),
        pods => News::normal(
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", pods.join(",")),
        ),
    }
}

/// The first consumer is there: now a volume may be looked for, or made, where it is.
fn consumed(claim: &Value, node: &str) -> ClaimPlan {
    let mut changed = claim.clone();
    annotate(&mut changed, SELECTED_NODE, node);
    ClaimPlan {
        claim: Some(changed),
        ..pending(claim, None)
    }
}

fn with_phase(claim: &Value, phase: &str) -> Value {
    let mut status = claim["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    status["phase"] = phase.into();
    status
}

fn pending(claim: &Value, news: Option<News>) -> ClaimPlan {
    ClaimPlan {
        status: Some(with_phase(claim, "Pending")),
        news,
        ..ClaimPlan::default()
    }
}

fn lost(claim: &Value) -> ClaimPlan {
    let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    let is_news = claim["status"]["phase"] != "Lost";
    ClaimPlan {
        status: Some(with_phase(claim, "Lost")),
        news: is_news.then(|| News::warning("ClaimLost", message)),
        ..ClaimPlan::default()
    }
}

fn bind(claim: &Value, volume: &Value) -> ClaimPlan {
    let mut plan = ClaimPlan::default();
    let reference = &volume["spec"]["claimRef"];
    if reference["uid"] != object::uid(claim) {
        let mut changed = volume.clone();
        if reference.is_null() {
            annotate(&mut changed, BOUND_BY_US, "yes");
        }
        let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "name": object::name(claim), "namespace": object::namespace(claim),
            "uid": object::uid(claim),
            "resourceVersion": claim["metadata"]["resourceVersion"]});
        object::map_mut(&mut changed, "spec").insert("claimRef".into(), reference);
        plan.volume = Some(changed);
    }
    let is_named = !object::text(claim, &["spec", "volumeName"]).is_empty();
    if !is_named || annotation(claim, BIND_COMPLETED).is_none() {
        let mut changed = claim.clone();
        if !is_named {
            annotate(&mut changed, BOUND_BY_US, "yes");
        }
        annotate(&mut changed, BIND_COMPLETED, "yes");
        let name = object::name(volume);
        object::map_mut(&mut changed, "spec").insert("volumeName".into(), name.into());
        plan.claim = Some(changed);
    }
    let mut status = with_phase(claim, "Bound");
    status["accessModes"] = volume["spec"]["accessModes"].clone();
    status["capacity"] = volume["spec"]["capacity"].clone();
    plan.status = Some(status);
    plan
}

/// `claim` is that of the volume's reference, if it is there.
pub(super) fn step_of_volume(volume: &Value, claim: Option<&Value>) -> VolumeStep {
    let reference = &volume["spec"]["claimRef"];
    let uid = object::text(reference, &["uid"]);
    if reference.is_null() || uid.is_empty() {
        return VolumeStep::Phase("Available");
    }
    if claim.is_some_and(|claim| object::uid(claim) == uid) {
        return VolumeStep::Phase("Bound");
    }
    let policy = object::text(volume, &["spec", "persistentVolumeReclaimPolicy"]);
    // What a provisioner made, that provisioner takes away.
    if policy == "Delete" && annotation(volume, PROVISIONED_BY).is_none() {
        return VolumeStep::Delete;
    }
    VolumeStep::Phase("Released")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, size: &str, class: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Retain"}})
    }

    fn claim(size: &str, class: &str) -> Value {
        json!({"metadata": {"name": "data", "namespace": "n", "uid": "c"},
            "spec": {"resources": {"requests": {"storage": size}}, "storageClassName": class,
                "accessModes": ["ReadWriteOnce"]}})
    }

    fn plan_of(claim: &Value, volumes: &[Value], classes: &[Value]) -> ClaimPlan {
        plan_claim(&View {
            claim,
            volumes,
            classes,
            waiting: &[],
            node: None,
        })
    }

    #[test]
    fn a_claim_gets_the_smallest_volume_that_fits() {
        let volumes = [
            volume("big", "10Gi", ""),
            volume("fits", "2Gi", ""),
            volume("small", "1Gi", ""),
            volume("other", "2Gi", "fast"),
        ];
        let plan = plan_of(&claim("1500Mi", ""), &volumes, &[]);
        let bound = plan.volume.expect("bound");
        assert_eq!(object::name(&bound), "fits");
        assert_eq!(bound["spec"]["claimRef"]["uid"], "c");
        let claim = plan.claim.expect("bound");
        assert_eq!(claim["spec"]["volumeName"], "fits");
        assert_eq!(annotation(&claim, BIND_COMPLETED), Some("yes"));
        let status = plan.status.expect("told");
        assert_eq!(
            (&status["phase"], &status["capacity"]["storage"]),
            (&json!("Bound"), &json!("2Gi"))
        );
        // Again there is nothing to do but the status.
        let again = plan_of(&claim, &[bound], &[]);
        assert_eq!((again.volume, again.claim), (None, None));
        assert_eq!(
            plan_of(&claim, &[], &[]).status.expect("told")["phase"],
            "Lost"
        );
    }

    #[test]
    fn a_claim_without_a_volume_waits_and_says_for_what() {
        let reason = |claim: &Value, classes: &[Value]| {
            let plan = plan_of(claim, &[volume("v", "1Gi", "late")], classes);
            assert_eq!(plan.status.expect("told")["phase"], "Pending");
            plan.news.map(|news| news.reason)
        };
        let class = |name: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": "x/y", "volumeBindingMode": mode});
        let classes = [
            class("fast", "Immediate"),
            class("late", "WaitForFirstConsumer"),
        ];
        assert_eq!(reason(&claim("1Gi", ""), &classes), Some("FailedBinding"));
        assert_eq!(
            reason(&claim("1Gi", "fast"), &classes),
            Some("ExternalProvisioning")
        );
        assert_eq!(
            reason(&claim("1Gi", "late"), &classes),
            Some("WaitForFirstConsumer")
        );
        assert_eq!(
            reason(&claim("1Gi", "none"), &classes),
            Some("ProvisioningFailed")
        );
    }

    #[test]
    fn a_claim_of_the_late_kind_gets_a_volume_where_its_first_pod_is() {
        let mut here = volume("here", "5Gi", "late");
        let zone = |zone: &str| {
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": "zone", "operator": "In", "values": [zone]}]}]}})
        };
        here["spec"]["nodeAffinity"] = zone("a");
        let mut away = volume("away", "1Gi", "late");
        away["spec"]["nodeAffinity"] = zone("b");
        let classes = [json!({"metadata": {"name": "late"}, "provisioner": BY_HAND,
            "volumeBindingMode": "WaitForFirstConsumer"})];
        let node = json!({"metadata": {"name": "fra", "labels": {"zone": "a"}}});
        let mut claim = claim("1Gi", "late");
        let volumes = [here, away];
        let plan = |claim: &Value, waiting: &[String], node: Option<&Value>| {
            plan_claim(&View {
                claim,
                volumes: &volumes,
                classes: &classes,
                waiting,
                node,
            })
        };
        let news = plan(&claim, &["p".to_owned()], None).news.expect("waits");
        assert_eq!(news.message, "waiting for pod p to be scheduled");
        claim = plan(&claim, &[], Some(&node)).claim.expect("selected");
        assert_eq!(annotation(&claim, SELECTED_NODE), Some("fra"));
        let bound = plan(&claim, &[], Some(&node)).volume.expect("bound");
        assert_eq!(object::name(&bound), "here");
    }

    #[test]
    fn a_volume_that_is_asked_for_by_name_has_to_be_what_is_asked_for() {
        let mut claim = claim("5Gi", "");
        claim["spec"]["volumeName"] = "v".into();
        let plan = plan_of(&claim, &[volume("v", "1Gi", "")], &[]);
        let news = plan.news.expect("refused");
        assert_eq!(news.reason, "VolumeMismatch");
        let words = "Cannot bind to requested volume \"v\": requested PV is too small";
        assert_eq!(news.message, words);
    }

    #[test]
    fn a_volume_without_its_claim_is_kept_or_goes() {
        let mut volume = volume("v", "1Gi", "");
        assert_eq!(
            step_of_volume(&volume, None),
            VolumeStep::Phase("Available")
        );
        volume["spec"]["claimRef"] = json!({"name": "data", "namespace": "n", "uid": "c"});
        let claim = claim("1Gi", "");
        assert_eq!(
            step_of_volume(&volume, Some(&claim)),
            VolumeStep::Phase("Bound")
        );
        assert_eq!(step_of_volume(&volume, None), VolumeStep::Phase("Released"));
        volume["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
        assert_eq!(step_of_volume(&volume, None), VolumeStep::Delete);
        volume["metadata"]["annotations"] = json!({PROVISIONED_BY: "x/y"});
        assert_eq!(step_of_volume(&volume, None), VolumeStep::Phase("Released"));
    }
}
