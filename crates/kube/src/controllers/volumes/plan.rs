//! Which volume a claim gets, and what becomes of a volume without its claim. Pure.

use serde_json::{Value, json};

use crate::admission::amounts::Amount;
use crate::controllers::events::News;
use crate::controllers::pods::{annotate, annotation};
use crate::label_selector;
use crate::object;

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

fn fits(volume: &Value, claim: &Value) -> bool {
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
    let selector = &claim["spec"]["selector"];
    let is_selected =
        !selector.is_object() || label_selector::matches(selector, &volume["metadata"]["labels"]);
    let is_free = volume["spec"]["claimRef"].is_null() || refers(volume, claim);
    is_free
        && has_room
        && is_selected
        && !object::is_terminating(volume)
        && class(volume) == class(claim)
        && mode(volume) == mode(claim)
        && wanted.all(|mode| modes.contains(mode))
}

/// The volume that was kept for the claim, else the smallest that fits.
fn best<'a>(claim: &Value, volumes: &'a [Value]) -> Option<&'a Value> {
    let fitting = || volumes.iter().filter(|volume| fits(volume, claim));
    let kept = fitting().find(|volume| refers(volume, claim));
    kept.or_else(|| {
        fitting().min_by_key(|volume| (capacity(volume), object::name(volume).to_owned()))
    })
}

pub(super) fn plan_claim(claim: &Value, volumes: &[Value], classes: &[Value]) -> ClaimPlan {
    let named = object::text(claim, &["spec", "volumeName"]);
    let volume = volumes.iter().find(|volume| object::name(volume) == named);
    match (named.is_empty(), volume) {
        (true, _) => search(claim, volumes, classes),
        (false, Some(volume)) => {
            let is_free = volume["spec"]["claimRef"].is_null();
            if !is_free && !refers(volume, claim) {
                let is_bound = annotation(claim, BIND_COMPLETED).is_some();
                return if is_bound {
                    lost(claim)
                } else {
                    pending(claim, None)
                };
            }
            bind(claim, volume)
        }
        (false, None) if annotation(claim, BIND_COMPLETED).is_some() => lost(claim),
        (false, None) => pending(claim, None),
    }
}

fn search(claim: &Value, volumes: &[Value], classes: &[Value]) -> ClaimPlan {
    let name = class(claim);
    let class = classes.iter().find(|one| object::name(one) == name);
    let waits = class.is_some_and(|one| one["volumeBindingMode"] == "WaitForFirstConsumer");
    let selected = annotation(claim, "volume.kubernetes.io/selected-node");
    // A volume that was kept for this claim needs no consumer.
    let kept = volumes
        .iter()
        .find(|one| refers(one, claim) && fits(one, claim));
    if waits && selected.is_none() && kept.is_none() {
        let message = "waiting for first consumer to be created before binding";
        let news = News::normal("WaitForFirstConsumer", message);
        return pending(claim, Some(news));
    }
    if let Some(volume) = best(claim, volumes) {
        return bind(claim, volume);
    }
    let provisioner = class.map(|one| object::text(one, &["provisioner"]));
    let news = match provisioner {
        Some("kubernetes.io/no-provisioner") | None if name.is_empty() || class.is_some() => {
            let message = "no persistent volumes available for this claim and no storage class is \
                           set";
            News::normal("FailedBinding", message)
        }
        None | Some("kubernetes.io/no-provisioner") => {
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
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

    #[test]
    fn a_claim_gets_the_smallest_volume_that_fits() {
        let volumes = [
            volume("big", "10Gi", ""),
            volume("fits", "2Gi", ""),
            volume("small", "1Gi", ""),
            volume("other", "2Gi", "fast"),
        ];
        let plan = plan_claim(&claim("1500Mi", ""), &volumes, &[]);
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
        let again = plan_claim(&claim, &[bound], &[]);
        assert_eq!((again.volume, again.claim), (None, None));
        assert_eq!(
            plan_claim(&claim, &[], &[]).status.expect("told")["phase"],
            "Lost"
        );
    }

    #[test]
    fn a_claim_without_a_volume_waits_and_says_for_what() {
        let reason = |claim: &Value, classes: &[Value]| {
            let plan = plan_claim(claim, &[volume("v", "1Gi", "late")], classes);
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
