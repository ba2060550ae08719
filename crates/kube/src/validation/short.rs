//! Kinds whose rules are a line or two.

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::status::Cause;

/// The field must be there, and not empty.
fn wanted(object: &Value, path: &[&str], why: &str) -> Option<Cause> {
    let is_there = match object::at(object, path) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => true,
    };
    (!is_there).then(|| Cause::required(path.join("."), why))
}

/// The field must be an RFC 1123 subdomain.
fn subdomain(object: &Value, path: &[&str]) -> Option<Cause> {
    let text = object::text(object, path);
    names::subdomain_fault(text).map(|why| Cause::invalid(path.join("."), &json!(text), why))
}

fn all(causes: impl IntoIterator<Item = Option<Cause>>) -> Vec<Cause> {
    causes.into_iter().flatten().collect()
}

pub(super) fn runtime_class(object: &Value) -> Vec<Cause> {
    let handler = object::text(object, &["handler"]);
    match (handler, names::label_fault(handler)) {
        ("", _) => vec![Cause::required("handler", "")],
        (_, Some(why)) => vec![Cause::invalid("handler", &json!(handler), why)],
        (_, None) => Vec::new(),
    }
}

pub(super) fn ingress_class(object: &Value) -> Vec<Cause> {
    all([wanted(object, &["spec", "controller"], "")])
}

pub(super) fn ip_address(object: &Value) -> Vec<Cause> {
    let parent = &["spec", "parentRef"];
    if let Some(cause) = wanted(object, parent, "") {
        return vec![cause];
    }
    all(["resource", "name"].map(|field| wanted(object, &["spec", "parentRef", field], "")))
}

pub(super) fn service_cidr(object: &Value) -> Vec<Cause> {
    let why = "at least one CIDR required";
    all([wanted(object, &["spec", "cidrs"], why)])
}

pub(super) fn capacity(object: &Value) -> Vec<Cause> {
    all([subdomain(object, &["storageClassName"])])
}

pub(super) fn attachment(object: &Value) -> Vec<Cause> {
    let source = ["inlineVolumeSpec", "persistentVolumeName"]
        .map(|field| wanted(object, &["spec", "source", field], "").is_none());
    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let several = (source == [true, true]).then(|| {
        let source = &object["spec"]["source"];
        Cause::invalid("spec.source", source, why)
    });
    all([
        wanted(object, &["spec", "attacher"], ""),
        (source == [false, false]).then(|| Cause::required("spec.source", why)),
        several,
        subdomain(object, &["spec", "nodeName"]),
    ])
}

pub(super) fn attributes_class(object: &Value) -> Vec<Cause> {
    let why = "must contain at least one key/value pair";
    all([
        wanted(object, &["driverName"], ""),
        wanted(object, &["parameters"], why),
    ])
}

pub(super) fn flow_schema(object: &Value) -> Vec<Cause> {
    let level = ["spec", "priorityLevelConfiguration", "name"];
    all([wanted(object, &level, "must reference a priority level")])
}

pub(super) fn priority_level(object: &Value) -> Vec<Cause> {
    let kinds = ["Exempt", "Limited"];
    let kind = object::text(object, &["spec", "type"]);
    let is_known = kinds.contains(&kind);
    let limits = if kind == "Limited" && object["spec"]["limited"].is_null() {
        let why = "must not be empty when type is Limited";
        Some(Cause::required("spec.limited", why))
    } else {
        None
    };
    let unknown = (!is_known).then(|| Cause::not_supported("spec.type", &json!(kind), &kinds));
    all([unknown, limits])
}

pub(super) fn revision(object: &Value) -> Vec<Cause> {
    let is_there = object.get("data").is_some_and(|data| !data.is_null());
    all([(!is_there).then(|| Cause::required("data", "data is mandatory"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_and_what_is_there_is_not() {
        let empty = json!({});
        for (rule, full, fields) in [
            (
                runtime_class as fn(&Value) -> Vec<Cause>,
                json!({"handler": "h"}),
                &["handler"][..],
            ),
            (
                ingress_class,
                json!({"spec": {"controller": "a/b"}}),
                &["spec.controller"],
            ),
            (
                ip_address,
                json!({"spec": {"parentRef": {"resource": "services", "name": "a"}}}),
                &["spec.parentRef"],
            ),
            (
                service_cidr,
                json!({"spec": {"cidrs": ["fd00::/64"]}}),
                &["spec.cidrs"],
            ),
            (
                capacity,
                json!({"storageClassName": "a"}),
                &["storageClassName"],
            ),
            (
                attachment,
                json!({"spec": {"attacher": "a", "nodeName": "n",
                    "source": {"persistentVolumeName": "p"}}}),
                &["spec.attacher", "spec.source", "spec.nodeName"],
            ),
            (
                attributes_class,
                json!({"driverName": "d", "parameters": {"a": "b"}}),
                &["driverName", "parameters"],
            ),
            (
                flow_schema,
                json!({"spec": {"priorityLevelConfiguration": {"name": "a"}}}),
                &["spec.priorityLevelConfiguration.name"],
            ),
            (
                priority_level,
                json!({"spec": {"type": "Limited", "limited": {}}}),
                &["spec.type"],
            ),
            (revision, json!({"data": 0}), &["data"]),
        ] {
            let told: Vec<_> = rule(&empty).into_iter().map(|cause| cause.field).collect();
            assert_eq!(told, fields);
            assert_eq!(rule(&full), [], "{full}");
        }
    }
}
