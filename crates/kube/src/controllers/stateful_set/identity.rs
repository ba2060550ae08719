//! What makes a pod of a StatefulSet that very pod: its number, its name, its claims. Pure.

use serde_json::{Value, json};

use crate::controllers::pods::{self, number};
use crate::object;

/// Names the revision of a pod.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
pub(super) const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The number in a pod's name; none if it is not one of this set's names.
pub(super) fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    let digits = object::name(pod)
        .strip_prefix(object::name(set))?
        .strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then(|| ordinal.into())
}

pub(super) fn first_ordinal(set: &Value) -> i64 {
    number(set, &["spec", "ordinals", "start"]).unwrap_or(0)
}

pub(super) fn replicas(set: &Value) -> i64 {
    number(set, &["spec", "replicas"]).unwrap_or(1)
}

fn claim_name(set: &Value, template: &Value, ordinal: i64) -> String {
    format!("{}-{}-{ordinal}", object::name(template), object::name(set))
}

/// The claims of a pod, as they are made.
pub(super) fn claims(set: &Value, ordinal: i64) -> Vec<Value> {
    let templates = object::items(set, &["spec", "volumeClaimTemplates"]).iter();
    let made = templates.map(|template| {
        let mut claim = template.clone();
        let name = claim_name(set, template, ordinal);
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
        let meta = object::meta_mut(&mut claim);
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), object::namespace(set).into());
        meta.remove("creationTimestamp");
        for (key, value) in set["spec"]["selector"]["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
        {
            pods::label(&mut claim, key, value.as_str().unwrap_or_default());
        }
        if let Some(claim) = claim.as_object_mut() {
            claim.remove("status");
        }
        claim
    });
    made.collect()
}

/// The pod with this number, of a revision's template.
pub(super) fn pod(set: &Value, template: &Value, revision: &str, ordinal: i64) -> Value {
    let mut pod = pods::of_template(template, set);
    let name = format!("{}-{ordinal}", object::name(set));
    object::meta_mut(&mut pod).insert("name".into(), name.as_str().into());
    pods::label(&mut pod, REVISION_LABEL, revision);
    identify(&mut pod, &name, ordinal);
    let spec = object::map_mut(&mut pod, "spec");
    spec.insert("hostname".into(), name.into());
    if let Some(service) = object::at(set, &["spec", "serviceName"]) {
        spec.insert("subdomain".into(), service.clone());
    }
    let templates = object::items(set, &["spec", "volumeClaimTemplates"]);
    let is_claimed = |volume: &Value| {
        templates
            .iter()
            .any(|one| object::name(one) == volume["name"])
    };
    let mut volumes: Vec<_> = templates
        .iter()
        .map(|one| {
            json!({"name": object::name(one),
                "persistentVolumeClaim": {"claimName": claim_name(set, one, ordinal)}})
        })
        .collect();
    let others = object::items(template, &["spec", "volumes"]).iter();
    volumes.extend(others.filter(|one| !is_claimed(one)).cloned());
    if !volumes.is_empty() {
        spec.insert("volumes".into(), volumes.into());
    }
    pod
}

fn identify(pod: &mut Value, name: &str, ordinal: i64) {
    pods::label(pod, NAME_LABEL, name);
    pods::label(pod, INDEX_LABEL, &ordinal.to_string());
}

/// The pod with its identity mended, if it has lost it.
pub(super) fn mended(pod: &Value, ordinal: i64) -> Option<Value> {
    let mut mended = pod.clone();
    identify(&mut mended, object::name(pod), ordinal);
    (mended != *pod).then_some(mended)
}

/// Who takes a claim along when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Nobody,
    Set,
    Pod,
}

/// A claim with the owner that the set's retention policy wants, if it has another. `pod` is the
/// one that goes, if it goes because there are fewer.
pub(super) fn retained(set: &Value, claim: &Value, condemned: Option<&Value>) -> Option<Value> {
    let policy = |when: &str| {
        let path = ["spec", "persistentVolumeClaimRetentionPolicy", when];
        object::text(set, &path) == "Delete"
    };
    let keeper = match (policy("whenDeleted"), policy("whenScaled"), condemned) {
        (_, true, Some(_)) => Keeper::Pod,
        (true, _, _) => Keeper::Set,
        (false, _, _) => Keeper::Nobody,
    };
    let (set_uid, set_name) = (object::uid(set), object::name(set));
    let references = object::items(claim, &["metadata", "ownerReferences"]);
    let is_ours = |one: &&Value| {
        let name = object::text(one, &["name"]);
        let is_pod = one["kind"] == "Pod" && name.starts_with(&format!("{set_name}-"));
        is_pod || object::text(one, &["uid"]) == set_uid
    };
    let wanted = match (keeper, condemned) {
        (Keeper::Set, _) => Some(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "name": set_name, "uid": set_uid, "controller": true})),
        (Keeper::Pod, Some(pod)) => Some(json!({"apiVersion": "v1", "kind": "Pod",
            "name": object::name(pod), "uid": object::uid(pod), "controller": true})),
        (Keeper::Nobody | Keeper::Pod, _) => None,
    };
    let others = references.iter().filter(|one| !is_ours(one)).cloned();
    let all: Vec<_> = others.chain(wanted).collect();
    let same = |a: &Value, b: &Value| a["uid"] == b["uid"] && a["kind"] == b["kind"];
    if all.len() == references.len() && all.iter().all(|a| references.iter().any(|b| same(a, b))) {
        return None;
    }
    let mut claim = claim.clone();
    let meta = object::meta_mut(&mut claim);
    if all.is_empty() {
        meta.remove("ownerReferences");
    } else {
        meta.insert("ownerReferences".into(), all.into());
    }
    Some(claim)
}

/// The claim goes with a former pod of this name.
pub(super) fn is_stale(claim: &Value, pod: &str, uid: Option<&str>) -> bool {
    let references = object::items(claim, &["metadata", "ownerReferences"]).iter();
    let mut of_pod = references.filter(|one| one["kind"] == "Pod" && one["name"] == pod);
    of_pod.any(|one| Some(object::text(one, &["uid"])) != uid)
}
