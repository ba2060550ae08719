//! Rows of volumes, claims, and the classes and drivers behind them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{count, created_ago, joined, or, text_or};
use crate::object;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// Access modes in upstream's order, with their short forms.
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

fn modes(modes: &Value) -> String {
    let has = |mode: &str| {
        modes
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == mode))
    };
    let shorts = MODES.iter().filter(|(mode, _)| has(mode));
    shorts
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

fn class(object: &Value) -> Value {
    let annotated = object::text(object, &["metadata", "annotations", CLASS_ANNOTATION]);
    json!(or(
        annotated,
        object::text(object, &["spec", "storageClassName"])
    ))
}

fn phase(object: &Value) -> Value {
    if object::is_terminating(object) {
        return json!("Terminating");
    }
    json!(object::text(object, &["status", "phase"]))
}

pub(super) fn volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &volume["spec"];
    let claim = match &spec["claimRef"] {
        Value::Object(_) => format!(
            "{}/{}",
            object::text(spec, &["claimRef", "namespace"]),
            object::text(spec, &["claimRef", "name"])
        ),
        _ => String::new(),
    };
    vec![
        json!(object::name(volume)),
        text_or(spec, &["capacity", "storage"], "0"),
        json!(modes(&spec["accessModes"])),
        json!(object::text(spec, &["persistentVolumeReclaimPolicy"])),
        phase(volume),
        json!(claim),
        class(volume),
        text_or(spec, &["volumeAttributesClassName"], "<unset>"),
        json!(object::text(volume, &["status", "reason"])),
        json!(created_ago(volume, now)),
        text_or(spec, &["volumeMode"], "<unset>"),
    ]
}

pub(super) fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let volume = object::text(spec, &["volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        (json!(""), String::new())
    } else {
        (
            text_or(status, &["capacity", "storage"], "0"),
            modes(&status["accessModes"]),
        )
    };
    vec![
        json!(object::name(claim)),
        phase(claim),
        json!(volume),
        capacity,
        json!(modes),
        class(claim),
        text_or(spec, &["volumeAttributesClassName"], "<unset>"),
        json!(created_ago(claim, now)),
        text_or(spec, &["volumeMode"], "<unset>"),
    ]
}

/// Rows of `storage.k8s.io`.
pub(super) fn row(plural: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let (name, age) = (json!(object::name(object)), json!(created_ago(object, now)));
    let spec = &object["spec"];
    let flag = |value: &Value, default: bool| json!(value.as_bool().unwrap_or(default));
    match plural {
        "storageclasses" => {
            let is_default = |annotation: &&str| {
                object::text(object, &["metadata", "annotations", annotation]) == "true"
            };
            let name = if DEFAULT_ANNOTATIONS.iter().any(is_default) {
                json!(format!("{} (default)", object::name(object)))
            } else {
                name
            };
            vec![
                name,
                object["provisioner"].clone(),
                text_or(object, &["reclaimPolicy"], "Delete"),
                text_or(object, &["volumeBindingMode"], "Immediate"),
                flag(&object["allowVolumeExpansion"], false),
                age,
            ]
        }
        "csidrivers" => {
            let audiences = spec["tokenRequests"].as_array().map(|requests| {
                let audiences = requests.iter().map(|one| object::text(one, &["audience"]));
                audiences.collect::<Vec<_>>().join(",")
            });
            vec![
                name,
                flag(&spec["attachRequired"], true),
                flag(&spec["podInfoOnMount"], false),
                flag(&spec["storageCapacity"], false),
                json!(audiences.unwrap_or_else(|| "<unset>".to_owned())),
                flag(&spec["requiresRepublish"], false),
                json!(or(&joined(&spec["volumeLifecycleModes"], ","), "<none>")),
                age,
            ]
        }
        "csinodes" => vec![name, json!(count(&spec["drivers"])), age],
        "volumeattachments" => vec![
            name,
            spec["attacher"].clone(),
            text_or(spec, &["source", "persistentVolumeName"], ""),
            spec["nodeName"].clone(),
            flag(&object["status"]["attached"], false),
            age,
        ],
        "volumeattributesclasses" => vec![name, object["driverName"].clone(), age],
        _ => vec![name, age],
    }
}
