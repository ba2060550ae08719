//! Defaults of volumes, claims, and the classes and drivers behind them.

use serde_json::{Map, Value, json};

use crate::object::{default, inner, map_mut, maps};

pub(super) fn claim(object: &mut Value) {
    claim_spec(map_mut(object, "spec"));
    default(map_mut(object, "status"), "phase", "Pending");
}

pub(super) fn claim_spec(spec: &mut Map<String, Value>) {
    default(spec, "volumeMode", "Filesystem");
    // Older clients write the source in one place only; both are told.
    if let Some(source) = spec.get("dataSource").cloned() {
        let is_local = source.get("namespace").is_none();
        if is_local {
            default(spec, "dataSourceRef", source);
        }
    } else if let Some(source) = spec.get("dataSourceRef").cloned()
        && source.get("namespace").is_none()
    {
        default(spec, "dataSource", source);
    }
}

pub(super) fn volume(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "persistentVolumeReclaimPolicy", "Retain");
    default(spec, "volumeMode", "Filesystem");
    volume_source(spec);
    default(map_mut(object, "status"), "phase", "Pending");
}

pub(super) fn new_volume(object: &mut Value) {
    let created = object["metadata"]["creationTimestamp"].clone();
    object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": created});
}

/// Defaults of the sources that volumes of pods and persistent volumes have in common.
pub(super) fn volume_source(source: &mut Map<String, Value>) {
    if let Some(path) = inner(source, &["hostPath"]) {
        default(path, "type", "");
    }
    for (kind, fields) in [
        ("iscsi", &[("iscsiInterface", "default")][..]),
        (
            "rbd",
            &[
                ("pool", "rbd"),
                ("user", "admin"),
                ("keyring", "/etc/ceph/keyring"),
            ],
        ),
        (
            "scaleIO",
            &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")],
        ),
        (
            "azureDisk",
            &[
                ("cachingMode", "ReadWrite"),
                ("fsType", "ext4"),
                ("kind", "Shared"),
            ],
        ),
    ] {
        if let Some(source) = inner(source, &[kind]) {
            for (field, value) in fields {
                default(source, field, *value);
            }
        }
    }
    if let Some(disk) = inner(source, &["azureDisk"]) {
        default(disk, "readOnly", false);
    }
}

pub(super) fn class(object: &mut Value) {
    if let Some(class) = object.as_object_mut() {
        default(class, "reclaimPolicy", "Delete");
        default(class, "volumeBindingMode", "Immediate");
    }
}

/// Go writes the keys of a driver even where it has none.
pub(super) fn node(object: &mut Value) {
    for driver in maps(map_mut(object, "spec").get_mut("drivers")) {
        default(driver, "topologyKeys", Value::Null);
    }
}

pub(super) fn driver(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "attachRequired", true);
    for field in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
    ] {
        default(spec, field, false);
    }
    default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    default(spec, "volumeLifecycleModes", json!(["Persistent"]));
}
