//! The ReplicaSets of a Deployment: one per template, told apart by a hash, counted by revisions.
//! Pure.

use serde_json::{Map, Value, json};

use crate::controllers::workloads::owner;
use crate::object;
use crate::rollout::Limits;

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(in crate::controllers::workloads) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not its ReplicaSets'.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

pub(super) fn number(object: &Value, path: &[&str]) -> i64 {
    object::at(object, path)
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

/// Pods that a workload wants.
pub(super) fn wanted(object: &Value) -> i64 {
    number(object, &["spec", "replicas"])
}

pub(super) fn available(set: &Value) -> i64 {
    number(set, &["status", "availableReplicas"])
}

pub(super) fn total(sets: &[Value]) -> i64 {
    sets.iter().map(wanted).sum()
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object::at(object, &["metadata", "annotations", key])?.as_str()
}

pub(super) fn revision(set: &Value) -> i64 {
    let text = annotation(set, REVISION).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// The template without the label that the Deployment added.
fn template(workload: &Value) -> Value {
    let mut template = workload["spec"]["template"].clone();
    let labels = object::map_mut(object::ensure_at(&mut template, "metadata"), "labels");
    labels.remove(HASH_LABEL);
    template
}

/// The oldest ReplicaSet that has the Deployment's template.
pub(super) fn find_new<'a>(deployment: &Value, sets: &'a [Value]) -> Option<&'a Value> {
    let wanted = template(deployment);
    let same = sets.iter().filter(|set| template(set) == wanted);
    same.min_by_key(|set| by_age(set))
}

/// Oldest first.
pub(super) fn by_age(set: &Value) -> (String, String) {
    let created = object::meta(set, "creationTimestamp").unwrap_or_default();
    (created.to_owned(), object::name(set).to_owned())
}

/// A label value that stands for the template. FNV-1a over its canonical JSON, in the alphabet of
/// generated names; how often it has collided changes it.
pub(super) fn hash(deployment: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = template(deployment).to_string();
    let collisions = number(deployment, &["status", "collisionCount"]);
    if collisions > 0 {
        text += &collisions.to_string();
    }
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let digits = hash.to_string().into_bytes();
    digits
        .into_iter()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// The ReplicaSet for the Deployment's template.
pub(super) fn make(deployment: &Value, revision: i64, replicas: i64) -> Value {
    let hash = hash(deployment);
    let with_hash = |map: &Value| {
        let mut map = map.as_object().cloned().unwrap_or_default();
        map.insert(HASH_LABEL.into(), hash.as_str().into());
        map
    };
    let mut template = deployment["spec"]["template"].clone();
    let labels = with_hash(&template["metadata"]["labels"]);
    object::meta_mut(&mut template).insert("labels".into(), labels.clone().into());
    let mut selector = deployment["spec"]["selector"].clone();
    let match_labels = with_hash(&selector["matchLabels"]);
    if let Some(selector) = selector.as_object_mut() {
        selector.insert("matchLabels".into(), match_labels.into());
    }
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "namespace": object::namespace(deployment), "labels": labels,
            "ownerReferences": [owner::reference(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    let min_ready = number(deployment, &["spec", "minReadySeconds"]);
    if min_ready > 0 {
        set["spec"]["minReadySeconds"] = min_ready.into();
    }
    annotate(deployment, revision, &mut set);
    scaled(deployment, &set, replicas)
}

/// The new ReplicaSet as the Deployment and its revision want it annotated.
pub(super) fn refreshed(deployment: &Value, revision: i64, set: &Value) -> Value {
    let mut set = set.clone();
    annotate(deployment, revision, &mut set);
    let spec = object::map_mut(&mut set, "spec");
    match number(deployment, &["spec", "minReadySeconds"]) {
        0 => drop(spec.remove("minReadySeconds")),
        seconds => drop(spec.insert("minReadySeconds".into(), seconds.into())),
    }
    set
}

fn annotations(set: &mut Value) -> &mut Map<String, Value> {
    object::map_mut(object::ensure_at(set, "metadata"), "annotations")
}

fn annotate(deployment: &Value, revision: i64, set: &mut Value) {
    let old = annotation(set, REVISION).unwrap_or_default().to_owned();
    let annotations = annotations(set);
    let own = deployment["metadata"]["annotations"].as_object();
    for (key, value) in own.into_iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if old.parse().unwrap_or(0) < revision {
        annotations.insert(REVISION.into(), revision.to_string().into());
        if !old.is_empty() {
            let history = annotations.get(HISTORY).and_then(Value::as_str);
            let history = history.map_or(old.clone(), |history| format!("{history},{old}"));
            annotations.insert(HISTORY.into(), history.into());
        }
    }
}

/// The set with this many pods wanted, and with what the Deployment wanted then.
pub(super) fn scaled(deployment: &Value, set: &Value, replicas: i64) -> Value {
    let mut set = set.clone();
    object::map_mut(&mut set, "spec").insert("replicas".into(), replicas.into());
    let (desired, surge) = (wanted(deployment), Limits::of(deployment).surge);
    let annotations = annotations(&mut set);
    annotations.insert(DESIRED.into(), desired.to_string().into());
    annotations.insert(MAX.into(), (desired + surge).to_string().into());
    set
}

/// The Deployment's number has changed since the set was scaled.
pub(super) fn is_outdated(deployment: &Value, set: &Value) -> bool {
    let desired = annotation(set, DESIRED).and_then(|text| text.parse::<i64>().ok());
    wanted(set) > 0 && desired.is_some_and(|desired| desired != wanted(deployment))
}

/// The most pods that all sets together were to have when this one was scaled.
pub(super) fn max_then(deployment: &Value, set: &Value) -> i64 {
    let max = annotation(set, MAX).and_then(|text| text.parse().ok());
    max.filter(|max| *max > 0)
        .unwrap_or_else(|| number(deployment, &["status", "replicas"]).max(1))
}
