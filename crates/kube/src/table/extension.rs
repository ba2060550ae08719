//! Rows of what extends the API.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{count, created_ago, or};
use crate::label_selector;
use crate::object;

/// Rows of `admissionregistration.k8s.io`.
pub(super) fn admission(plural: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let (name, age) = (json!(object::name(object)), json!(created_ago(object, now)));
    let spec = &object["spec"];
    match plural {
        "validatingadmissionpolicies" => {
            vec![
                name,
                json!(count(&spec["validations"])),
                param_kind(spec),
                age,
            ]
        }
        "mutatingadmissionpolicies" => {
            vec![
                name,
                json!(count(&spec["mutations"])),
                param_kind(spec),
                age,
            ]
        }
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            vec![
                name,
                spec["policyName"].clone(),
                param(&spec["paramRef"]),
                age,
            ]
        }
        _ => vec![name, json!(count(&object["webhooks"])), age],
    }
}

fn param_kind(spec: &Value) -> Value {
    let text = |field: &str| object::text(spec, &["paramKind", field]);
    match spec.get("paramKind") {
        Some(_) => json!(format!("{}/{}", text("apiVersion"), text("kind"))),
        None => json!("<unset>"),
    }
}

fn param(reference: &Value) -> Value {
    let text = |field: &str| object::text(reference, &[field]);
    match text("name") {
        "" if reference.get("selector").is_some() => {
            json!(label_selector::format(&reference["selector"]))
        }
        "" => json!("<unset>"),
        name => json!(format!("{}/{name}", or(text("namespace"), "*"))),
    }
}

pub(super) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match object["spec"].get("service") {
        Some(service) => format!(
            "{}/{}",
            object::text(service, &["namespace"]),
            object::text(service, &["name"])
        ),
        None => "Local".to_owned(),
    };
    let mut conditions = object::items(object, &["status", "conditions"]).iter();
    let available = conditions
        .find(|one| one["type"] == "Available")
        .map(|one| {
            let (status, reason) = (
                object::text(one, &["status"]),
                object::text(one, &["reason"]),
            );
            if status == "True" || reason.is_empty() {
                status.to_owned()
            } else {
                format!("{status} ({reason})")
            }
        });
    vec![
        json!(object::name(object)),
        json!(service),
        json!(available.unwrap_or_else(|| "Unknown".to_owned())),
        json!(created_ago(object, now)),
    ]
}
