//! The rules of what decides about requests: expressions and match rules of webhooks, policies in
//! CEL and their bindings. Expressions are compiled when they are written, so that a mistake is
//! told to who made it and not to whom it hits later.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::names;
use crate::cel::check::{Scope, Wanted, check};
use crate::custom::definition::{client_address, review_versions};
use crate::object;
use crate::status::Cause;

const CONDITIONS_MAX: usize = 64;
const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// What webhooks have beside their address.
pub(super) fn webhooks(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let scope = Scope::of_request().with("authorizer");
    for (index, webhook) in object::items(object, &["webhooks"]).iter().enumerate() {
        let at = format!("webhooks[{index}]");
        for (index, one) in object::items(webhook, &["rules"]).iter().enumerate() {
            causes.extend(rule(one, &format!("{at}.rules[{index}]")));
        }
        let config = &webhook["clientConfig"];
        client_address(config, &format!("{at}.clientConfig"), &mut causes);
        let versions = object::items(webhook, &["admissionReviewVersions"]);
        let versions_at = format!("{at}.admissionReviewVersions");
        review_versions(versions, &versions_at, &mut causes);
        causes.extend(one_of(webhook, &at, "failurePolicy", &["Fail", "Ignore"]));
        causes.extend(one_of(
            webhook,
            &at,
            "matchPolicy",
            &["Equivalent", "Exact"],
        ));
        causes.extend(one_of(
            webhook,
            &at,
            "reinvocationPolicy",
            &["IfNeeded", "Never"],
        ));
        causes.extend(conditions(webhook, &at, &scope));
    }
    causes
}

/// Who refuses by the rules.
pub(super) fn validating_policy(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = policy(spec);
    let mut scope = scope_of(spec);
    causes.extend(variables(spec, &mut scope));
    let validations = object::items(spec, &["validations"]);
    let annotations = object::items(spec, &["auditAnnotations"]);
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        for field in ["spec.validations", "spec.auditAnnotations"] {
            causes.push(Cause::required(field, why));
        }
    }
    for (index, one) in validations.iter().enumerate() {
        let at = format!("spec.validations[{index}]");
        causes.extend(validation(one, &at, spec, &scope));
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        causes.push(Cause::invalid(
            "spec.auditAnnotations",
            &json!(annotations),
            &why,
        ));
    }
    let mut seen = HashSet::new();
    for (index, one) in annotations.iter().enumerate() {
        let at = format!("spec.auditAnnotations[{index}]");
        causes.extend(annotation(one, &at, object::name(object), &scope));
        let key = object::text(one, &["key"]);
        if !seen.insert(key) {
            causes.push(Cause::duplicate(format!("{at}.key"), &json!(key)));
        }
    }
    causes
}

/// Who changes objects by the rules.
pub(super) fn mutating_policy(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = policy(spec);
    causes.extend(no_deletions(spec, "matchConstraints"));
    let mut scope = scope_of(spec).with_variables();
    causes.extend(variables(spec, &mut scope));
    let mutations = object::items(spec, &["mutations"]);
    if mutations.is_empty() {
        let why = "mutations must contain at least one item";
        causes.push(Cause::required("spec.mutations", why));
    }
    for (index, one) in mutations.iter().enumerate() {
        causes.extend(mutation(one, &format!("spec.mutations[{index}]"), &scope));
    }
    let field = "reinvocationPolicy";
    if object::text(spec, &[field]).is_empty() {
        causes.push(Cause::required(format!("spec.{field}"), ""));
    }
    causes.extend(one_of(spec, "spec", field, &["IfNeeded", "Never"]));
    causes
}

/// Where a policy counts, and with which parameters.
pub(super) fn binding(object: &Value, is_validating: bool) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    let name = object::text(spec, &["policyName"]);
    if name.is_empty() {
        causes.push(Cause::required("spec.policyName", ""));
    } else if let Some(why) = names::subdomain_fault(name) {
        causes.push(Cause::invalid("spec.policyName", &json!(name), why));
    }
    causes.extend(parameters(&spec["paramRef"]));
    causes.extend(match_resources(
        &spec["matchResources"],
        "spec.matchResources",
    ));
    if is_validating {
        causes.extend(actions(object::items(spec, &["validationActions"])));
    } else {
        causes.extend(no_deletions(spec, "matchResources"));
    }
    causes
}

/// What both kinds of policies have.
fn policy(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    causes.extend(one_of(spec, "spec", "failurePolicy", &["Fail", "Ignore"]));
    causes.extend(parameter_kind(&spec["paramKind"]));
    let constraints = &spec["matchConstraints"];
    let at = "spec.matchConstraints";
    if constraints.is_object() {
        causes.extend(match_resources(constraints, at));
        if object::items(constraints, &["resourceRules"]).is_empty() {
            causes.push(Cause::required(format!("{at}.resourceRules"), ""));
        }
    } else {
        causes.push(Cause::required(at, ""));
    }
    let mut scope = Scope::of_request().with("authorizer");
    if spec["paramKind"].is_object() {
        scope = scope.with("params");
    }
    causes.extend(conditions(spec, "spec", &scope));
    causes
}

/// What expressions of a policy may name.
fn scope_of(spec: &Value) -> Scope {
    let mut scope = Scope::of_request().with("authorizer");
    if spec["paramKind"].is_object() {
        scope = scope.with("params");
    }
    if !object::items(spec, &["variables"]).is_empty() {
        scope = scope.with_variables();
    }
    scope
}

fn parameter_kind(kind: &Value) -> Vec<Cause> {
    if !kind.is_object() {
        return Vec::new();
    }
    let text = |field: &str| object::text(kind, &[field]);
    let mut causes = Vec::new();
    let at = "spec.paramKind.apiVersion";
    let given = json!(text("apiVersion"));
    match text("apiVersion").split('/').collect::<Vec<_>>()[..] {
        [""] => causes.push(Cause::required(at, "")),
        [version] | ["", version] => causes.extend(version_fault(at, version)),
        [group, version] => {
            if let Some(why) = names::subdomain_fault(group) {
                causes.push(Cause::invalid(at, &json!(group), why));
            }
            causes.extend(version_fault(at, version));
        }
        _ => {
            let why = format!("unexpected GroupVersion string: {}", text("apiVersion"));
            causes.push(Cause::invalid(at, &given, &why));
        }
    }
    let at = "spec.paramKind.kind";
    if text("kind").is_empty() {
        causes.push(Cause::required(at, ""));
    } else if let Some(why) = names::label_1035_fault(&text("kind").to_lowercase()) {
        let why = format!("may have mixed case, but should otherwise match: {why}");
        causes.push(Cause::invalid(at, &json!(text("kind")), &why));
    }
    causes
}

fn version_fault(at: &str, version: &str) -> Option<Cause> {
    if version.is_empty() {
        let why = "version must be specified";
        return Some(Cause::invalid(at, &json!(version), why));
    }
    let why = names::label_1035_fault(version)?;
    Some(Cause::invalid(at, &json!(version), why))
}

fn match_resources(of: &Value, at: &str) -> Vec<Cause> {
    if !of.is_object() {
        return Vec::new();
    }
    let mut causes: Vec<_> = one_of(of, at, "matchPolicy", &["Equivalent", "Exact"])
        .into_iter()
        .collect();
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, one) in object::items(of, &[list]).iter().enumerate() {
            let at = format!("{at}.{list}[{index}]");
            let mut seen = HashSet::new();
            let names = object::items(one, &["resourceNames"]);
            for (index, name) in names.iter().enumerate() {
                let at = format!("{at}.resourceNames[{index}]");
                let text = name.as_str().unwrap_or_default();
                if let Some(why) = names::path_segment_fault(text) {
                    causes.push(Cause::invalid(&at, name, why));
                }
                if !seen.insert(text) {
                    causes.push(Cause::duplicate(&at, name));
                }
            }
            causes.extend(rule(one, &at));
        }
    }
    causes
}

/// Operations, groups, versions and resources that are matched.
fn rule(rule: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let list = |field: &str| object::items(rule, &[field]);
    for (field, what) in [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
    ] {
        let items = list(field);
        let at = format!("{at}.{field}");
        if items.is_empty() {
            causes.push(Cause::required(&at, ""));
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") {
            let why = format!("if '*' is present, must not specify other {what}");
            causes.push(Cause::invalid(&at, &json!(items), &why));
        }
        for (index, item) in items.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let text = item.as_str().unwrap_or_default();
            match field {
                "operations" if !OPERATIONS.contains(&text) => {
                    causes.push(Cause::not_supported(at, item, &OPERATIONS));
                }
                "apiVersions" if text.is_empty() => causes.push(Cause::required(at, "")),
                _ => {}
            }
        }
    }
    causes.extend(resources(list("resources"), &format!("{at}.resources")));
    causes.extend(one_of(rule, at, "scope", &["*", "Cluster", "Namespaced"]));
    causes
}

fn resources(resources: &[Value], at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if resources.is_empty() {
        causes.push(Cause::required(at, ""));
    }
    let (mut whole, mut parts) = (HashSet::new(), HashSet::new());
    let mut has_plain = false;
    for (index, resource) in resources.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let text = resource.as_str().unwrap_or_default();
        let Some((of, part)) = text.split_once('/') else {
            if text.is_empty() {
                causes.push(Cause::required(at, ""));
            }
            has_plain |= !matches!(text, "" | "*");
            continue;
        };
        if whole.contains(of) {
            let why = format!("if '{of}/*' is present, must not specify {text}");
            causes.push(Cause::invalid(&at, resource, &why));
        }
        if parts.contains(part) {
            let why = format!("if '*/{part}' is present, must not specify {text}");
            causes.push(Cause::invalid(&at, resource, &why));
        }
        if part == "*" {
            whole.insert(of);
        }
        if of == "*" {
            parts.insert(part);
        }
    }
    if resources.len() > 1 && resources.iter().any(|one| one == "*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        causes.push(Cause::invalid(at, &json!(resources), why));
    }
    if has_plain && resources.iter().any(|one| one == "*") {
        let why = "if '*' is present, must not specify other resources without subresources";
        causes.push(Cause::invalid(at, &json!(resources), why));
    }
    causes
}

/// A deleted object cannot be changed.
fn no_deletions(spec: &Value, part: &str) -> Vec<Cause> {
    let rules = object::items(spec, &[part, "resourceRules"]).iter();
    let operations = rules.flat_map(|rule| object::items(rule, &["operations"]));
    let wrong = operations.filter(|one| {
        let text = one.as_str().unwrap_or_default();
        !MUTATING_OPERATIONS.contains(&text)
    });
    let at = format!("spec.{part}.resourceRules.operations");
    wrong
        .map(|one| Cause::not_supported(&at, one, &MUTATING_OPERATIONS))
        .collect()
}

fn conditions(of: &Value, at: &str, scope: &Scope) -> Vec<Cause> {
    let conditions = object::items(of, &["matchConditions"]);
    let at = format!("{at}.matchConditions");
    let mut causes = Vec::new();
    if conditions.len() > CONDITIONS_MAX {
        let count = u64::try_from(conditions.len()).unwrap_or(u64::MAX);
        causes.push(Cause::too_many(&at, count, CONDITIONS_MAX as u64));
    }
    let mut seen = HashSet::new();
    // What is above the bound is not compiled.
    for (index, condition) in conditions.iter().take(CONDITIONS_MAX).enumerate() {
        let at = format!("{at}[{index}]");
        let expression = object::text(condition, &["expression"]).trim();
        match expression {
            "" => causes.push(Cause::required(format!("{at}.expression"), "")),
            expression => causes.extend(compiled(
                expression,
                format!("{at}.expression"),
                scope,
                Wanted::Bool,
            )),
        }
        let name = object::text(condition, &["name"]);
        let at = format!("{at}.name");
        if name.is_empty() {
            causes.push(Cause::required(at, ""));
            continue;
        }
        if let Some(why) = names::qualified_fault(name) {
            causes.push(Cause::invalid(&at, &json!(name), &why));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&at, &json!(name)));
        }
    }
    causes
}

fn compiled(source: &str, at: String, scope: &Scope, wanted: Wanted) -> Option<Cause> {
    let why = check(source, scope, wanted).err()?;
    Some(Cause::invalid(at, &json!(source), &why))
}

fn variables(spec: &Value, scope: &mut Scope) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, variable) in object::items(spec, &["variables"]).iter().enumerate() {
        let at = |field: &str| format!("spec.variables[{index}].{field}");
        let text = |field: &str| object::text(variable, &[field]);
        let name = text("name");
        if name.trim().is_empty() {
            causes.push(Cause::required(at("name"), "name is not specified"));
        } else if !is_identifier(name) {
            let why = "must be a valid CEL identifier";
            causes.push(Cause::invalid(at("name"), &json!(name), why));
        }
        match text("expression") {
            source if source.trim().is_empty() => {
                let why = "expression is not specified";
                causes.push(Cause::required(at("expression"), why));
            }
            source => {
                causes.extend(compiled(source, at("expression"), scope, Wanted::Anything));
            }
        }
        scope.declare(name, text("expression"));
    }
    causes
}

fn is_identifier(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn validation(validation: &Value, at: &str, spec: &Value, scope: &Scope) -> Vec<Cause> {
    let text = |field: &str| object::text(validation, &[field]);
    let at = |field: &str| format!("{at}.{field}");
    let mut causes = Vec::new();
    match text("expression") {
        source if source.trim().is_empty() => {
            let why = "expression is not specified";
            causes.push(Cause::required(at("expression"), why));
        }
        source => causes.extend(compiled(source, at("expression"), scope, Wanted::Bool)),
    }
    let empty = "must be non-empty if specified";
    match text("messageExpression") {
        "" => {}
        source if source.trim().is_empty() => {
            causes.push(Cause::invalid(
                at("messageExpression"),
                &json!(source),
                empty,
            ));
        }
        source => {
            // A message does not ask what somebody may do.
            let mut without = Scope::of_request();
            if spec["paramKind"].is_object() {
                without = without.with("params");
            }
            for variable in object::items(spec, &["variables"]) {
                without.declare(
                    object::text(variable, &["name"]),
                    object::text(variable, &["expression"]),
                );
            }
            causes.extend(compiled(
                source,
                at("messageExpression"),
                &without,
                Wanted::Text,
            ));
        }
    }
    match text("message") {
        "" => {}
        message if message.trim().is_empty() => {
            causes.push(Cause::invalid(at("message"), &json!(message), empty));
        }
        message if message.trim().contains(['\n', '\r']) => {
            let why = "must not contain line breaks";
            causes.push(Cause::invalid(at("message"), &json!(message), why));
        }
        _ => {}
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    let reason = text("reason");
    // Some releases took this one too, and its policies are still evaluated.
    if !reason.is_empty() && !reasons.contains(&reason) {
        causes.push(Cause::not_supported(at("reason"), &json!(reason), &reasons));
    }
    causes
}

fn annotation(annotation: &Value, at: &str, policy: &str, scope: &Scope) -> Vec<Cause> {
    let mut causes = Vec::new();
    let key = object::text(annotation, &["key"]);
    let qualified = format!("{policy}/{key}");
    if let Some(why) = names::qualified_fault(&qualified) {
        causes.push(Cause::invalid(format!("{at}.key"), &json!(qualified), &why));
    }
    let at = format!("{at}.valueExpression");
    let source = object::text(annotation, &["valueExpression"]).trim();
    if source.is_empty() {
        causes.push(Cause::required(at, "valueExpression is not specified"));
    } else if source.len() > ANNOTATION_BYTES_MAX {
        let why = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
        causes.push(Cause::required(at, &why));
    } else {
        causes.extend(compiled(source, at, scope, Wanted::TextOrNull));
    }
    causes
}

fn mutation(mutation: &Value, at: &str, scope: &Scope) -> Vec<Cause> {
    let kinds = [
        ("ApplyConfiguration", "applyConfiguration", Wanted::Object),
        ("JSONPatch", "jsonPatch", Wanted::List),
    ];
    let given = object::text(mutation, &["patchType"]);
    if given.is_empty() {
        return vec![Cause::required(format!("{at}.patchType"), "")];
    }
    if !kinds.iter().any(|(kind, ..)| *kind == given) {
        let all = kinds.map(|(kind, ..)| kind);
        let cause = Cause::not_supported(format!("{at}.patchType"), &json!(given), &all);
        return vec![cause];
    }
    let mut causes = Vec::new();
    for (kind, field, wanted) in kinds {
        let part = &mutation[field];
        let at = format!("{at}.{field}");
        match (kind == given, part.is_object()) {
            (true, false) => {
                let why = format!("must be specified when patchType is {given}");
                causes.push(Cause::required(at, &why));
            }
            (false, true) => {
                let why = format!("must not be specified when patchType is {given}");
                causes.push(Cause::invalid(at, &json!(format!("{{{field}}}")), &why));
            }
            (true, true) => match object::text(part, &["expression"]).trim() {
                "" => causes.push(Cause::required(format!("{at}.expression"), "")),
                source => {
                    causes.extend(compiled(source, format!("{at}.expression"), scope, wanted));
                }
            },
            (false, false) => {}
        }
    }
    causes
}

fn parameters(reference: &Value) -> Vec<Cause> {
    if !reference.is_object() {
        return Vec::new();
    }
    let at = |field: &str| format!("spec.paramRef{field}");
    let mut causes = Vec::new();
    let name = object::text(reference, &["name"]);
    let has_selector = reference["selector"].is_object();
    if let Some(why) = names::path_segment_fault(name).filter(|_| !name.is_empty()) {
        causes.push(Cause::invalid(at(".name"), &json!(name), why));
    }
    match (name.is_empty(), has_selector) {
        (false, true) => {
            let why = "name and selector are mutually exclusive";
            for field in [".name", ".selector"] {
                causes.push(Cause::forbidden(at(field), why));
            }
        }
        (true, false) => {
            causes.push(Cause::required(
                at(""),
                "one of name or selector must be specified",
            ));
        }
        (false, false) | (true, true) => {}
    }
    let field = "parameterNotFoundAction";
    if object::text(reference, &[field]).is_empty() {
        causes.push(Cause::required(at(".parameterNotFoundAction"), ""));
    }
    causes.extend(one_of(
        reference,
        "spec.paramRef",
        field,
        &["Deny", "Allow"],
    ));
    causes
}

fn actions(actions: &[Value]) -> Vec<Cause> {
    let at = "spec.validationActions";
    let all = ["Audit", "Deny", "Warn"];
    let mut causes = Vec::new();
    for (index, action) in actions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if !action.as_str().is_some_and(|action| all.contains(&action)) {
            causes.push(Cause::not_supported(&at, action, &all));
        }
        if actions[..index].contains(action) {
            causes.push(Cause::duplicate(&at, action));
        }
    }
    let has = |one: &str| actions.iter().any(|action| action == one);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure \
                   information in the API response and headers serves no purpose)";
        causes.push(Cause::invalid(at, &json!(actions), why));
    }
    if actions.is_empty() {
        let why = "at least one validation action is required";
        causes.push(Cause::required(at, why));
    }
    causes
}

/// A text that is one of a few where it is given.
fn one_of(of: &Value, at: &str, field: &str, all: &[&str]) -> Option<Cause> {
    let given = object::text(of, &[field]);
    let is_fine = given.is_empty() || all.contains(&given);
    (!is_fine).then(|| Cause::not_supported(format!("{at}.{field}"), &json!(given), all))
}

#[cfg(test)]
mod tests;
