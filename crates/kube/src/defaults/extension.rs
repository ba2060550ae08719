//! Defaults of what extends the API: webhooks, policies, definitions of resources, API services.

use serde_json::{Map, Value, json};

use crate::object::{self, default, inner, map_mut, maps};

const HTTPS: u16 = 443;

/// Which webhooks they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Webhooks {
    Mutating,
    Validating,
}

pub(super) fn webhooks(kind: Webhooks, object: &mut Value) {
    for webhook in maps(object.get_mut("webhooks")) {
        default(webhook, "failurePolicy", "Fail");
        default(webhook, "timeoutSeconds", 10);
        matching(webhook, "rules");
        if kind == Webhooks::Mutating {
            default(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = inner(webhook, &["clientConfig", "service"]) {
            default(service, "port", HTTPS);
        }
    }
}

/// What webhooks and policies say in the same words.
fn matching(map: &mut Map<String, Value>, rules: &str) {
    default(map, "matchPolicy", "Equivalent");
    default(map, "namespaceSelector", json!({}));
    default(map, "objectSelector", json!({}));
    for rules in [rules, "excludeResourceRules"] {
        for rule in maps(map.get_mut(rules)) {
            default(rule, "scope", "*");
        }
    }
}

pub(super) fn policy(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "failurePolicy", "Fail");
    if let Some(constraints) = inner(spec, &["matchConstraints"]) {
        matching(constraints, "resourceRules");
    }
}

pub(super) fn binding(object: &mut Value) {
    if let Some(resources) = inner(map_mut(object, "spec"), &["matchResources"]) {
        matching(resources, "resourceRules");
    }
}

pub(super) fn definition(object: &mut Value) {
    let spec = map_mut(object, "spec");
    if let Some(names) = inner(spec, &["names"]) {
        let kind = names.get("kind").and_then(Value::as_str);
        let kind = kind.unwrap_or_default().to_owned();
        default(names, "singular", kind.to_lowercase());
        if !kind.is_empty() {
            default(names, "listKind", format!("{kind}List"));
        }
    }
    default(spec, "conversion", json!({"strategy": "None"}));
    if let Some(service) = inner(spec, &["conversion", "webhook", "clientConfig", "service"]) {
        default(service, "port", HTTPS);
    }
    let storage = object::items(object, &["spec", "versions"]).iter();
    let mut storage = storage.filter(|version| version["storage"] == true);
    if let Some(version) = storage.next().map(|version| version["name"].clone()) {
        default(
            map_mut(object, "status"),
            "storedVersions",
            json!([version]),
        );
    }
}

pub(super) fn api_service(object: &mut Value) {
    if let Some(service) = inner(map_mut(object, "spec"), &["service"]) {
        default(service, "port", HTTPS);
    }
}
