//! From client-side apply to server-side apply: `kubectl` kept what it applied in an annotation,
//! and owns it as an updater. Its first server-side apply may change those fields, and from then on
//! the annotation follows what is applied, so that it can go back.

use serde_json::{Map, Value};

use super::compare::compare;
use super::fields::Fields;
use super::owned;
use super::schema::Schema;
use crate::object;

/// Only kubectl's own name has this; others opt out by theirs.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Upstream's bound of all annotations of an object.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

fn annotation(object: &Value) -> Option<&str> {
    let text = object::at(object, &["metadata", "annotations", ANNOTATION])?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// The fields that client-side apply has set, and that nobody has changed since.
pub(super) fn allowed(schema: &dyn Schema, live: &Value, api_version: &str) -> Option<Fields> {
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if object::text(&last, &["apiVersion"]) != api_version {
        return None;
    }
    let change = compare(schema, &last, live);
    let mut fields = owned::of(schema, &last);
    for changed in [&change.modified, &change.added, &change.removed] {
        fields.remove(changed);
    }
    Some(fields)
}

/// Writes what is applied into the annotation, if the object has it.
pub(super) fn refresh(applied: &mut Value, wanted: &Value) {
    if annotation(applied).is_none() {
        return;
    }
    let mut last = wanted.clone();
    if let Some(annotations) = annotations_mut(&mut last) {
        annotations.remove(ANNOTATION);
        if annotations.is_empty() {
            object::meta_mut(&mut last).remove("annotations");
        }
    }
    let Some(annotations) = annotations_mut(applied) else {
        return;
    };
    annotations.insert(ANNOTATION.into(), format!("{last}\n").into());
    let bytes: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object
        .get_mut("metadata")?
        .get_mut("annotations")?
        .as_object_mut()
}
