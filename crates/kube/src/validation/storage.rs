//! The rules of volumes, claims and classes.

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::quantity;
use crate::status::Cause;

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
/// Fields of a volume that do not say what it is made of.
const NOT_A_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(spec: &Value, at: &str, why: &str) -> Vec<Cause> {
    let modes = object::items(spec, &["accessModes"]);
    let field = format!("{at}.accessModes");
    if modes.is_empty() {
        return vec![Cause::required(field, why)];
    }
    let is_wrong = |mode: &&Value| !mode.as_str().is_some_and(|mode| MODES.contains(&mode));
    let wrong = modes.iter().filter(is_wrong);
    let mut causes: Vec<_> = wrong
        .map(|mode| Cause::not_supported(&field, mode, &MODES))
        .collect();
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let why = "may not use ReadWriteOncePod with other access modes";
        causes.push(Cause::forbidden(field, why));
    }
    causes
}

fn amount(value: &Value, field: &str) -> Option<Cause> {
    if value.is_null() {
        return Some(Cause::required(field, ""));
    }
    let amount = value.as_str().and_then(quantity::parse).unwrap_or(0);
    (amount <= 0).then(|| Cause::invalid(field, value, "must be greater than zero"))
}

pub(super) fn claim(object: &Value) -> Vec<Cause> {
    claim_spec(&object["spec"], "spec")
}

pub(super) fn claim_spec(spec: &Value, at: &str) -> Vec<Cause> {
    let mut causes = access_modes(spec, at, "at least 1 access mode is required");
    let storage = &spec["resources"]["requests"]["storage"];
    causes.extend(amount(storage, &format!("{at}.resources[storage]")));
    let class = object::text(spec, &["storageClassName"]);
    if let Some(why) = names::subdomain_fault(class).filter(|_| !class.is_empty()) {
        let field = format!("{at}.storageClassName");
        causes.push(Cause::invalid(field, &json!(class), why));
    }
    causes
}

pub(super) fn claim_change(old: &Value, new: &Value) -> Option<Cause> {
    let fixed = |claim: &Value, other: &Value| {
        let mut spec = claim["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            map.remove("resources");
            map.remove("volumeAttributesClassName");
            // The binder writes it once; a class may be given once.
            for field in ["volumeName", "storageClassName"] {
                let was = object::text(old, &["spec", field]);
                if was.is_empty() && other["spec"].get(field) != claim["spec"].get(field) {
                    map.remove(field);
                }
            }
        }
        spec
    };
    if fixed(old, new) != fixed(new, old) {
        let why = "spec is immutable after creation except resources.requests and \
                   volumeAttributesClassName for bound claims";
        return Some(Cause::forbidden("spec", why));
    }
    let size = |claim: &Value| {
        let text = object::text(claim, &["spec", "resources", "requests", "storage"]);
        quantity::parse(text).unwrap_or(0)
    };
    if size(new) < size(old) {
        let why = "field can not be less than status.capacity";
        return Some(Cause::forbidden("spec.resources.requests.storage", why));
    }
    None
}

pub(super) fn volume(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = access_modes(spec, "spec", "");
    if spec["capacity"].is_null() {
        causes.push(Cause::required("spec.capacity", ""));
        let only = Cause::not_supported("spec.capacity", &Value::Null, &["storage"]);
        causes.push(only);
    } else {
        causes.extend(amount(
            &spec["capacity"]["storage"],
            "spec.capacity[storage]",
        ));
    }
    let fields = spec.as_object().into_iter().flatten();
    let sources = fields.filter(|(field, _)| !NOT_A_SOURCE.contains(&field.as_str()));
    match sources.collect::<Vec<_>>()[..] {
        [] => causes.push(Cause::required("spec", "must specify a volume type")),
        [_] => {}
        [_, (second, _), ..] => {
            let why = "may not specify more than 1 volume type";
            causes.push(Cause::forbidden(format!("spec.{second}"), why));
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = object::text(spec, &["persistentVolumeReclaimPolicy"]);
    if !policies.contains(&policy) {
        let field = "spec.persistentVolumeReclaimPolicy";
        causes.push(Cause::not_supported(field, &json!(policy), &policies));
    }
    causes
}

pub(super) fn volume_change(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let source = |volume: &Value| {
        let fields = volume["spec"].as_object().into_iter().flatten();
        let own = fields.filter(|(field, _)| !NOT_A_SOURCE.contains(&field.as_str()));
        own.map(|(field, value)| (field.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    if source(old) != source(new) {
        let why = "spec.persistentvolumesource is immutable after creation";
        causes.push(Cause::forbidden("spec.persistentvolumesource", why));
    }
    causes.extend(super::unchanged_below(old, new, "spec", &["volumeMode"]));
    causes
}

pub(super) fn class(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let provisioner = object::text(object, &["provisioner"]);
    if provisioner.is_empty() {
        causes.push(Cause::required("provisioner", ""));
    } else if let Some(why) = names::qualified_fault(&provisioner.to_lowercase()) {
        causes.push(Cause::invalid("provisioner", &json!(provisioner), &why));
    }
    for (field, all) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        let value = object::text(object, &[field]);
        if !all.contains(&value) {
            causes.push(Cause::not_supported(field, &json!(value), &all));
        }
    }
    causes
}

pub(super) fn class_change(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (field, why) in [
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ] {
        if old.get(field) != new.get(field) {
            causes.push(Cause::forbidden(field, why));
        }
    }
    causes.extend(super::unchanged(old, new, "volumeBindingMode"));
    causes
}
