//! What controllers ask of a pod, and how they make one of a template. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::owner;
use super::workloads::victims;
use crate::object;

pub(super) use super::workloads::is_active;
pub(super) use super::workloads::victims::is_ready;

pub(super) fn phase(pod: &Value) -> &str {
    object::text(pod, &["status", "phase"])
}

/// It has run to its end, whichever.
pub(super) fn is_finished(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod has been ready for long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Available {
    Yes,
    /// It will be, unless something happens to it.
    In(Duration),
    No,
}

pub(super) fn available(pod: &Value, min_ready_s: i64, now: Timestamp) -> Available {
    if !is_ready(pod) {
        return Available::No;
    }
    if min_ready_s <= 0 {
        return Available::Yes;
    }
    let since = victims::ready_since(pod).unwrap_or(now);
    let left = (since + SignedDuration::from_secs(min_ready_s)).duration_since(now);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Available::In(left),
        Ok(_) | Err(_) => Available::Yes,
    }
}

/// The sooner of two times to look again.
pub(super) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The pod that a template describes, controlled by `owner`. Its name is still missing.
pub(super) fn of_template(template: &Value, owner: &Value) -> Value {
    let mut meta = json!({
        "generateName": format!("{}-", object::name(owner)),
        "namespace": object::namespace(owner),
        "ownerReferences": [owner::reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = object::at(template, &["metadata", field]) {
            meta[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

/// `object` with a label.
pub(super) fn label(object: &mut Value, key: &str, value: &str) {
    let labels = object::map_mut(object::ensure_at(object, "metadata"), "labels");
    labels.insert(key.to_owned(), value.into());
}

/// `object` with an annotation.
pub(super) fn annotate(object: &mut Value, key: &str, value: &str) {
    let annotations = object::map_mut(object::ensure_at(object, "metadata"), "annotations");
    annotations.insert(key.to_owned(), value.into());
}

pub(super) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object::at(object, &["metadata", "annotations"])?
        .get(key)?
        .as_str()
}

pub(super) fn number(object: &Value, path: &[&str]) -> Option<i64> {
    object::at(object, path).and_then(Value::as_i64)
}

/// The condition of this type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object::items(object, &["status", "conditions"]);
    conditions.iter().find(|one| one["type"] == kind)
}

pub(super) fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|one| one["status"] == "True")
}
