//! The rules of roles and bindings.

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::status::Cause;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whose rules they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Namespace,
    Cluster,
}

pub(super) fn role(of: Of, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, rule) in object::items(object, &["rules"]).iter().enumerate() {
        let at = |field: &str| format!("rules[{index}].{field}");
        let has = |field: &str| !object::items(rule, &[field]).is_empty();
        if !has("verbs") {
            let why = "verbs must contain at least one value";
            causes.push(Cause::required(at("verbs"), why));
        }
        if has("nonResourceURLs") {
            if of == Of::Namespace {
                let why = "namespaced rules cannot apply to non-resource URLs";
                let urls = &rule["nonResourceURLs"];
                causes.push(Cause::invalid(at("nonResourceURLs"), urls, why));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                let urls = &rule["nonResourceURLs"];
                causes.push(Cause::invalid(at("nonResourceURLs"), urls, why));
            }
            continue;
        }
        if !has("apiGroups") {
            let why = "resource rules must supply at least one api group";
            causes.push(Cause::required(at("apiGroups"), why));
        }
        if !has("resources") {
            let why = "resource rules must supply at least one resource";
            causes.push(Cause::required(at("resources"), why));
        }
    }
    causes
}

pub(super) fn binding(of: Of, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let reference = |field: &str| object::text(object, &["roleRef", field]);
    if reference("apiGroup") != GROUP {
        let field = "roleRef.apiGroup";
        causes.push(Cause::not_supported(
            field,
            &json!(reference("apiGroup")),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = match of {
        Of::Namespace => &["Role", "ClusterRole"],
        Of::Cluster => &["ClusterRole"],
    };
    if !kinds.contains(&reference("kind")) {
        let field = "roleRef.kind";
        causes.push(Cause::not_supported(
            field,
            &json!(reference("kind")),
            kinds,
        ));
    }
    match reference("name") {
        "" => causes.push(Cause::required("roleRef.name", "")),
        name => {
            if let Some(why) = names::path_segment_fault(name) {
                causes.push(Cause::invalid("roleRef.name", &json!(name), why));
            }
        }
    }
    for (index, subject) in object::items(object, &["subjects"]).iter().enumerate() {
        causes.extend(self::subject(of, &format!("subjects[{index}]"), subject));
    }
    causes
}

fn subject(of: Of, at: &str, subject: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let text = |field: &str| object::text(subject, &[field]);
    if text("name").is_empty() {
        causes.push(Cause::required(format!("{at}.name"), ""));
    }
    let group = match text("kind") {
        "ServiceAccount" => {
            if of == Of::Cluster && text("namespace").is_empty() {
                causes.push(Cause::required(format!("{at}.namespace"), ""));
            }
            let name = text("name");
            if let Some(why) = names::subdomain_fault(name).filter(|_| !name.is_empty()) {
                causes.push(Cause::invalid(format!("{at}.name"), &json!(name), why));
            }
            ""
        }
        "User" | "Group" => GROUP,
        other => {
            let all = ["Group", "ServiceAccount", "User"];
            causes.push(Cause::not_supported(
                format!("{at}.kind"),
                &json!(other),
                &all,
            ));
            return causes;
        }
    };
    if text("apiGroup") != group {
        let field = format!("{at}.apiGroup");
        causes.push(Cause::not_supported(
            field,
            &json!(text("apiGroup")),
            &[group],
        ));
    }
    causes
}

pub(super) fn binding_change(old: &Value, new: &Value) -> Option<Cause> {
    (old["roleRef"] != new["roleRef"])
        .then(|| Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"))
}
