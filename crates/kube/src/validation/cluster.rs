//! The rules of what governs the cluster: budgets, autoscalers, priorities, networks, webhooks.

use serde_json::{Value, json};

use super::names;
use crate::label_selector;
use crate::object;
use crate::quantity;
use crate::status::Cause;

/// Of priorities that users may give.
const PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn budget(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        causes.push(Cause::invalid("spec", spec, why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        causes.extend(amount(&format!("spec.{field}"), &spec[field]));
    }
    causes.extend(label_selector::faults(&spec["selector"], "spec.selector"));
    causes
}

/// A number that is not negative, or a percentage.
fn amount(at: &str, value: &Value) -> Option<Cause> {
    match value {
        Value::Number(number) if number.as_i64() < Some(0) => {
            let why = "must be greater than or equal to 0";
            Some(Cause::invalid(at, value, why))
        }
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            let is_percent = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_percent {
                let why = "a valid percent string must be a numeric string followed by an ending \
                           '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                return Some(Cause::invalid(at, value, why));
            }
            let is_too_much = digits.parse::<u32>().map_or(true, |percent| percent > 100);
            is_too_much.then(|| Cause::invalid(at, value, "must not be greater than 100%"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

pub(super) fn autoscaler(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    let number = |field: &str| spec[field].as_i64();
    let (min, max) = (
        number("minReplicas").unwrap_or(1),
        number("maxReplicas").unwrap_or(0),
    );
    if min < 1 {
        let why = "must be greater than or equal to 1";
        causes.push(Cause::invalid("spec.minReplicas", &json!(min), why));
    }
    if max == 0 {
        let why = "must be set and greater than 0";
        causes.push(Cause::required("spec.maxReplicas", why));
    } else if max < 1 {
        let why = "must be greater than 0";
        causes.push(Cause::invalid("spec.maxReplicas", &json!(max), why));
    }
    if max < min {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &json!(max), why));
    }
    for field in ["kind", "name"] {
        let at = format!("spec.scaleTargetRef.{field}");
        match object::text(spec, &["scaleTargetRef", field]) {
            "" => causes.push(Cause::required(at, "")),
            text => {
                if let Some(why) = names::path_segment_fault(text) {
                    causes.push(Cause::invalid(at, &json!(text), why));
                }
            }
        }
    }
    causes
}

/// What is scaled has a group; upstream asks this of new autoscalers only.
pub(super) fn scaled_group(object: &Value) -> Option<Cause> {
    let field = "spec.scaleTargetRef.apiVersion";
    let version = object::text(object, &["spec", "scaleTargetRef", "apiVersion"]);
    let why = "apiVersion must specify API group";
    (!version.contains('/')).then(|| Cause::invalid(field, &json!(version), why))
}

pub(super) fn priority_class(object: &Value) -> Vec<Cause> {
    let name = object::name(object);
    let value = object["value"].as_i64().unwrap_or(0);
    let is_system = matches!(name, "system-node-critical" | "system-cluster-critical");
    if name.starts_with("system-") && !is_system {
        let why = "priority class names with 'system-' prefix are reserved for system use only. \
                   error: ";
        let why = format!("{why}{name} is not a known system priority class");
        return vec![Cause::forbidden("metadata.name", &why)];
    }
    if !is_system && value > PRIORITY_MAX {
        let why = "maximum allowed value of a user defined priority is 1000000000";
        return vec![Cause::forbidden("value", why)];
    }
    let policies = ["Never", "PreemptLowerPriority"];
    let policy = object::text(object, &["preemptionPolicy"]);
    if !policies.contains(&policy) {
        let field = "preemptionPolicy";
        return vec![Cause::not_supported(field, &json!(policy), &policies)];
    }
    Vec::new()
}

pub(super) fn priority_change(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old["value"] != new["value"] {
        causes.push(Cause::forbidden(
            "value",
            "may not be changed in an update.",
        ));
    }
    if old["preemptionPolicy"] != new["preemptionPolicy"] {
        let why = "field is immutable";
        causes.push(Cause::invalid(
            "preemptionPolicy",
            &new["preemptionPolicy"],
            why,
        ));
    }
    causes
}

pub(super) fn ingress(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    let rules = object::items(spec, &["rules"]);
    if rules.is_empty() && spec.get("defaultBackend").is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", spec, why));
    }
    if let Some(backend) = spec.get("defaultBackend") {
        causes.extend(self::backend("spec.defaultBackend", backend));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        let host = object::text(rule, &["host"]);
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if let Some(why) = names::subdomain_fault(plain).filter(|_| !host.is_empty()) {
            causes.push(Cause::invalid(format!("{at}.host"), &json!(host), why));
        }
        for (index, path) in object::items(rule, &["http", "paths"]).iter().enumerate() {
            let at = format!("{at}.http.paths[{index}]");
            let all = ["Exact", "ImplementationSpecific", "Prefix"];
            let kind = object::text(path, &["pathType"]);
            if kind.is_empty() {
                let why = "pathType must be specified";
                causes.push(Cause::required(format!("{at}.pathType"), why));
            } else if !all.contains(&kind) {
                let field = format!("{at}.pathType");
                causes.push(Cause::not_supported(field, &json!(kind), &all));
            }
            let text = object::text(path, &["path"]);
            if matches!(kind, "Exact" | "Prefix") && !text.starts_with('/') {
                let why = "must be an absolute path";
                causes.push(Cause::invalid(format!("{at}.path"), &json!(text), why));
            }
            causes.extend(backend(&format!("{at}.backend"), &path["backend"]));
        }
    }
    causes
}

fn backend(at: &str, backend: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            let why = "cannot set both resource and service backends";
            causes.push(Cause::invalid(at, &json!(""), why));
        }
        (None, None) => {
            let why = "resource or service backend is required";
            causes.push(Cause::required(at, why));
        }
        (Some(service), None) => {
            if object::text(service, &["name"]).is_empty() {
                causes.push(Cause::required(format!("{at}.service.name"), ""));
            }
            let port = &service["port"];
            let (name, number) = (object::text(port, &["name"]), port["number"].as_i64());
            match (name, number.filter(|number| *number != 0)) {
                ("", None) => {
                    let why = "port name or number is required";
                    causes.push(Cause::required(at, why));
                }
                ("", Some(_)) | (_, None) => {}
                (_, Some(_)) => {
                    let why = "cannot set both port name & port number";
                    causes.push(Cause::invalid(at, &json!(""), why));
                }
            }
        }
        (None, Some(_)) => {}
    }
    causes
}

pub(super) fn network_policy(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = label_selector::faults(&spec["podSelector"], "spec.podSelector");
    for (index, kind) in object::items(spec, &["policyTypes"]).iter().enumerate() {
        let all = ["Egress", "Ingress"];
        if !kind.as_str().is_some_and(|kind| all.contains(&kind)) {
            let field = format!("spec.policyTypes[{index}]");
            causes.push(Cause::not_supported(field, kind, &all));
        }
    }
    causes
}

/// Quantities of a quota.
pub(super) fn quota(object: &Value) -> Vec<Cause> {
    let hard = object["spec"]["hard"].as_object().into_iter().flatten();
    let mut causes = Vec::new();
    for (resource, amount) in hard {
        let field = format!("spec.hard[{resource}]");
        if let Some(why) = names::qualified_fault(resource) {
            causes.push(Cause::invalid(&field, &json!(resource), &why));
        }
        let number = amount.as_str().and_then(quantity::parse);
        if number.is_some_and(|number| number < 0) {
            let why = "must be greater than or equal to 0";
            causes.push(Cause::invalid(field, amount, why));
        }
    }
    causes
}

pub(super) fn webhooks(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (index, webhook) in object::items(object, &["webhooks"]).iter().enumerate() {
        let at = |field: &str| format!("webhooks[{index}].{field}");
        let name = object::text(webhook, &["name"]);
        if let Some(why) = names::subdomain_fault(name) {
            causes.push(Cause::invalid(at("name"), &json!(name), why));
        } else if name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            causes.push(Cause::invalid(at("name"), &json!(name), why));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(at("name"), &json!(name)));
        }
        let versions = object::items(webhook, &["admissionReviewVersions"]);
        if versions.is_empty() {
            let why = "must specify one of v1, v1beta1";
            causes.push(Cause::required(at("admissionReviewVersions"), why));
        } else if !versions.iter().any(|one| one == "v1" || one == "v1beta1") {
            let why = "must include at least one of v1, v1beta1";
            let field = at("admissionReviewVersions");
            causes.push(Cause::invalid(field, &json!(versions), why));
        }
        let effects = object::text(webhook, &["sideEffects"]);
        let all = ["None", "NoneOnDryRun"];
        if effects.is_empty() {
            let why = "must specify one of None, NoneOnDryRun";
            causes.push(Cause::required(at("sideEffects"), why));
        } else if !all.contains(&effects) {
            causes.push(Cause::not_supported(
                at("sideEffects"),
                &json!(effects),
                &all,
            ));
        }
        let seconds = webhook["timeoutSeconds"].as_i64().unwrap_or(10);
        if !(1..=30).contains(&seconds) {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(Cause::invalid(at("timeoutSeconds"), &json!(seconds), why));
        }
        let client = &webhook["clientConfig"];
        if client.get("url").is_some() == client.get("service").is_some() {
            let why = "exactly one of url or service is required";
            causes.push(Cause::required(at("clientConfig"), why));
        }
    }
    causes
}

pub(super) fn api_service(object: &Value) -> Vec<Cause> {
    let text = |field: &str| object::text(object, &["spec", field]);
    let name = object::name(object);
    let wanted = format!("{}.{}", text("version"), text("group"));
    let mut causes = Vec::new();
    if name != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        causes.push(Cause::invalid("metadata.name", &json!(name), &why));
    }
    for (field, max, why) in [
        (
            "groupPriorityMinimum",
            20_000,
            "must be positive and less than 20000",
        ),
        (
            "versionPriority",
            1000,
            "must be positive and less than 1000",
        ),
    ] {
        let number = object["spec"][field].as_i64().unwrap_or(0);
        if !(1..=max).contains(&number) {
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(number), why));
        }
    }
    causes
}
