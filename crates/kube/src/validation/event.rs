//! The rules of events. Those of the core group are few, for old clients do not know the others.

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::status::Cause;

/// Bytes that the short texts of an event may have, and its note.
const TEXT_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

pub(super) fn of_core(object: &Value) -> Vec<Cause> {
    let mut causes = about(object, "involvedObject");
    if !object["eventTime"].is_null() {
        causes.extend(texts(object, "reportingComponent", "message"));
    }
    causes
}

pub(super) fn of_events(object: &Value) -> Vec<Cause> {
    let mut causes = about(object, "regarding");
    // An event of old reads as one without a time, and may be changed as it is.
    let is_old = ["deprecatedFirstTimestamp", "deprecatedCount"]
        .iter()
        .any(|field| !object[*field].is_null());
    if is_old {
        return causes;
    }
    if object["eventTime"].is_null() {
        causes.push(Cause::required("eventTime", ""));
    } else {
        causes.extend(texts(object, "reportingController", "note"));
    }
    let kind = object::text(object, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        let why = format!("has invalid value: {kind}");
        causes.push(Cause::invalid("type", &json!(kind), &why));
    }
    causes
}

fn about(object: &Value, field: &str) -> Vec<Cause> {
    let about = object::text(object, &[field, "namespace"]);
    let own = object::namespace(object).unwrap_or_default();
    // Events about cluster objects live in `default`.
    if about == own || (about.is_empty() && own == "default") {
        return Vec::new();
    }
    let why = "does not match event.namespace";
    let at = "involvedObject.namespace";
    vec![Cause::invalid(at, &json!(about), why)]
}

/// The rules of an event that has a time of its own.
fn texts(object: &Value, reporter: &str, note: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let text = |field: &str| object::text(object, &[field]);
    match text(reporter) {
        "" => causes.push(Cause::required(reporter, "")),
        name => {
            if let Some(why) = names::qualified_fault(name) {
                causes.push(Cause::invalid(reporter, &json!(name), &why));
            }
        }
    }
    for field in ["reportingInstance", "action", "reason"] {
        if text(field).is_empty() {
            causes.push(Cause::required(field, ""));
        } else if text(field).len() > TEXT_BYTES_MAX {
            let why = format!("can have at most {TEXT_BYTES_MAX} characters");
            causes.push(Cause::invalid(field, &json!(""), &why));
        }
    }
    if text(note).len() > NOTE_BYTES_MAX {
        let why = format!("can have at most {NOTE_BYTES_MAX} characters");
        causes.push(Cause::invalid("message", &json!(""), &why));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_event_says_when_and_by_whom_and_an_old_one_need_not() {
        let fields = |causes: Vec<Cause>| -> Vec<String> {
            causes.into_iter().map(|cause| cause.field).collect()
        };
        let meta = json!({"name": "e", "namespace": "default"});
        let empty = json!({"metadata": meta});
        assert_eq!(fields(of_core(&empty)), [""; 0]);
        assert_eq!(fields(of_events(&empty)), ["eventTime", "type"]);
        let timed = json!({"metadata": meta, "eventTime": "1970-01-01T00:00:00.000000Z",
            "type": "Normal", "action": "A", "reason": "R", "reportingInstance": "i"});
        assert_eq!(fields(of_events(&timed)), ["reportingController"]);
        let old = json!({"metadata": meta, "deprecatedCount": 2});
        assert_eq!(fields(of_events(&old)), [""; 0]);
    }
}
