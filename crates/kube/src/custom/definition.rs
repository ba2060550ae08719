//! The rules of a CustomResourceDefinition, in upstream's words.

use serde_json::{Map, Value, json};

use super::jsonpath::{Path, simple};
use super::rules;
use super::structural;
use crate::object::{self, items, text};
use crate::status::Cause;
use crate::validation::names;

/// Fields of a kind that lists can select by.
const SELECTABLE_MAX: usize = 8;
/// Approves definitions in groups that belong to Kubernetes.
const APPROVED: &str = "api-approved.kubernetes.io";

/// The status that a new definition begins with.
pub(crate) fn first_status(definition: &Value) -> Value {
    let stored = storage_version(definition).into_iter().collect::<Vec<_>>();
    json!({
        "conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
    })
}

/// The name of the version that objects are stored in.
pub(crate) fn storage_version(definition: &Value) -> Option<String> {
    let mut versions = items(definition, &["spec", "versions"]).iter();
    let storage = versions.find(|version| version["storage"] == true)?;
    Some(text(storage, &["name"]).to_owned())
}

/// A new storage version joins those that objects may be stored in.
pub(crate) fn remember_storage(definition: &mut Value) {
    let Some(storage) = storage_version(definition) else {
        return;
    };
    let status = object::map_mut(definition, "status");
    let stored = status.entry("storedVersions").or_insert(json!([]));
    if let Some(stored) = stored.as_array_mut()
        && !stored.contains(&json!(storage))
    {
        stored.push(storage.into());
    }
}

/// What is wrong with a definition.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    let name = object::name(definition);
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    self::group(definition, group, &mut causes);
    match text(spec, &["scope"]) {
        "" => causes.push(Cause::required("spec.scope", "")),
        "Namespaced" | "Cluster" => {}
        other => {
            let supported = ["Cluster", "Namespaced"];
            causes.push(Cause::not_supported(
                "spec.scope",
                &json!(other),
                &supported,
            ));
        }
    }
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        causes.push(Cause::invalid(
            "spec.preserveUnknownFields",
            &json!(true),
            why,
        ));
    }
    all_names(&spec["names"], &mut causes);
    versions(definition, old, &mut causes);
    conversion(&spec["conversion"], &mut causes);
    if let Some(old) = old {
        changes(old, definition, &mut causes);
    }
    causes
}

fn group(definition: &Value, group: &str, causes: &mut Vec<Cause>) {
    let at = "spec.group";
    let value = json!(group);
    if group.is_empty() {
        causes.push(Cause::required(at, ""));
    } else if let Some(why) = names::subdomain_fault(group) {
        causes.push(Cause::invalid(at, &value, why));
    } else if !group.contains('.') {
        causes.push(Cause::invalid(
            at,
            &value,
            "should be a domain with at least one dot",
        ));
    }
    let is_protected = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    if is_protected("k8s.io") || is_protected("kubernetes.io") {
        let approved = text(definition, &["metadata", "annotations", APPROVED]);
        let at = format!("metadata.annotations[{APPROVED}]");
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        if approved.is_empty() {
            let why = format!("protected groups must have approval annotation {APPROVED:?}, {see}");
            causes.push(Cause::required(at, &why));
        } else if !approved.starts_with("unapproved") && !approved.contains("://") {
            let why = format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or \
                 a reason starting with \"unapproved\", {see}"
            );
            causes.push(Cause::invalid(at, &json!(approved), &why));
        }
    }
}

fn all_names(spoken: &Value, causes: &mut Vec<Cause>) {
    let mut label = |at: String, value: &str, is_kind: bool| {
        let lower = value.to_lowercase();
        let checked = if is_kind { &lower } else { value };
        if let Some(why) = names::label_1035_fault(checked) {
            let why = match is_kind {
                true => format!("may have mixed case, but should otherwise match: {why}"),
                false => why.to_owned(),
            };
            causes.push(Cause::invalid(at, &json!(value), &why));
        }
    };
    for (field, is_kind) in [
        ("plural", false),
        ("singular", false),
        ("kind", true),
        ("listKind", true),
    ] {
        let value = text(spoken, &[field]);
        if !value.is_empty() {
            label(format!("spec.names.{field}"), value, is_kind);
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, one) in items(spoken, &[field]).iter().enumerate() {
            let at = format!("spec.names.{field}[{index}]");
            label(at, one.as_str().unwrap_or_default(), false);
        }
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(spoken, &[field]).is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        }
    }
    if text(spoken, &["kind"]) == text(spoken, &["listKind"]) && !text(spoken, &["kind"]).is_empty()
    {
        let why = "kind and listKind may not be the same";
        causes.push(Cause::invalid(
            "spec.names.listKind",
            &spoken["listKind"],
            why,
        ));
    }
}

fn versions(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let versions = items(definition, &["spec", "versions"]);
    let at = "spec.versions";
    if versions.is_empty() {
        causes.push(Cause::required(at, "must have at least one version"));
        return;
    }
    let mut seen = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let name = text(version, &["name"]);
        if seen.contains(&name) {
            let why = "must contain unique version names";
            causes.push(Cause::invalid("spec.versions", &json!(name), why));
        }
        seen.push(name);
        if let Some(why) = names::label_1035_fault(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &json!(name), why));
        }
        let mut before = old
            .into_iter()
            .flat_map(|old| items(old, &["spec", "versions"]));
        // What was let through once is not looked at again: rules may have become stricter.
        if before.any(|one| one == version) {
            continue;
        }
        self::version(version, &at, causes);
    }
    let storage = versions.iter().filter(|version| version["storage"] == true);
    if storage.count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(at, &json!(versions), why));
    }
    for (index, stored) in items(definition, &["status", "storedVersions"])
        .iter()
        .enumerate()
    {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let at = format!("status.storedVersions[{index}]");
            let why = "must appear in spec.versions";
            causes.push(Cause::invalid(at, stored, why));
        }
    }
}

fn version(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let schema_at = format!("{at}.schema.openAPIV3Schema");
    match object::at(version, &["schema", "openAPIV3Schema"]) {
        Some(schema) => {
            let found = structural::check(schema, &schema_at);
            let is_structural = found.is_empty();
            causes.extend(found);
            if is_structural {
                causes.extend(rules::check(schema, &schema_at));
            }
        }
        None => causes.push(Cause::required(schema_at, "schemas are required")),
    }
    if !text(version, &["deprecationWarning"]).is_empty() && version["deprecated"] != true {
        let at = format!("{at}.deprecationWarning");
        let why = "can only be set for deprecated versions";
        causes.push(Cause::invalid(at, &version["deprecationWarning"], why));
    }
    columns(version, at, causes);
    subresources(&version["subresources"], at, causes);
    selectable(version, at, causes);
}

fn columns(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 10] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
        "binary",
        "name",
    ];
    for (index, column) in items(version, &["additionalPrinterColumns"])
        .iter()
        .enumerate()
    {
        let at = format!("{at}.additionalPrinterColumns[{index}]");
        if text(column, &["name"]).is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        let types = TYPES.join(",");
        match text(column, &["type"]) {
            "" => {
                let why = format!("must be one of {types}");
                causes.push(Cause::required(format!("{at}.type"), &why));
            }
            kind if !TYPES.contains(&kind) => {
                let why = format!("must be one of {types}");
                causes.push(Cause::invalid(format!("{at}.type"), &json!(kind), &why));
            }
            _ => {}
        }
        let format = text(column, &["format"]);
        if !format.is_empty() && !FORMATS.contains(&format) {
            let why = format!("must be one of {}", FORMATS.join(","));
            causes.push(Cause::invalid(format!("{at}.format"), &json!(format), &why));
        }
        let path = text(column, &["jsonPath"]);
        if path.is_empty() {
            causes.push(Cause::required(format!("{at}.jsonPath"), ""));
        } else if let Err(error) = Path::parse(path) {
            let at = format!("{at}.jsonPath");
            causes.push(Cause::invalid(at, &json!(path), &error.to_string()));
        }
    }
}

fn subresources(subresources: &Value, at: &str, causes: &mut Vec<Cause>) {
    let Some(scale) = subresources.get("scale") else {
        return;
    };
    let at = format!("{at}.subresources.scale");
    for (field, roots, is_required, where_) in [
        ("specReplicasPath", &["spec"][..], true, ".spec"),
        ("statusReplicasPath", &["status"], true, ".status"),
        (
            "labelSelectorPath",
            &["spec", "status"],
            false,
            "either .spec or .status",
        ),
    ] {
        let at = format!("{at}.{field}");
        let path = text(scale, &[field]);
        if path.is_empty() {
            if is_required {
                causes.push(Cause::required(at, ""));
            }
            continue;
        }
        let value = json!(path);
        match simple(path) {
            None => causes.push(Cause::invalid(at, &value, "is not a simple json path")),
            Some(keys) if keys.len() < 2 || !roots.contains(&keys[0].as_str()) => {
                let why = format!("should be a json path under {where_}");
                causes.push(Cause::invalid(at, &value, &why));
            }
            Some(_) => {}
        }
    }
}

fn selectable(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let fields = items(version, &["selectableFields"]);
    let at = format!("{at}.selectableFields");
    if fields.len() > SELECTABLE_MAX {
        causes.push(Cause::too_many(
            &at,
            fields.len() as u64,
            SELECTABLE_MAX as u64,
        ));
    }
    let mut seen = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{at}[{index}].jsonPath");
        let path = text(field, &["jsonPath"]);
        let value = json!(path);
        if path.is_empty() {
            causes.push(Cause::required(at, ""));
            continue;
        }
        if seen.contains(&path) {
            causes.push(Cause::duplicate(&at, &value));
        }
        seen.push(path);
        let Some(keys) = simple(path) else {
            causes.push(Cause::invalid(at, &value, "is an invalid path"));
            continue;
        };
        if keys[0] == "metadata" {
            let why = "must not point to fields in metadata";
            causes.push(Cause::invalid(at, &value, why));
            continue;
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let found = keys
            .iter()
            .try_fold(schema, |schema, key| schema.get("properties")?.get(key));
        match found.map(|schema| text(schema, &["type"])) {
            Some("string" | "boolean" | "integer") => {}
            Some(_) => {
                let why = "must point to a field of type string, boolean or integer. Enum string \
                           fields and strings with formats are allowed.";
                causes.push(Cause::invalid(at, &value, why));
            }
            None => causes.push(Cause::invalid(at, &value, "field does not exist in schema")),
        }
    }
}

fn conversion(conversion: &Value, causes: &mut Vec<Cause>) {
    let at = "spec.conversion";
    match text(conversion, &["strategy"]) {
        "" => causes.push(Cause::required(format!("{at}.strategy"), "")),
        "None" => {
            if conversion.get("webhook").is_some() {
                let why = "should not be set when strategy is not set to Webhook";
                causes.push(Cause::forbidden(format!("{at}.webhook"), why));
            }
        }
        "Webhook" => webhook(&conversion["webhook"], &format!("{at}.webhook"), causes),
        other => {
            let at = format!("{at}.strategy");
            causes.push(Cause::not_supported(
                at,
                &json!(other),
                &["None", "Webhook"],
            ));
        }
    }
}

fn webhook(webhook: &Value, at: &str, causes: &mut Vec<Cause>) {
    let config = &webhook["clientConfig"];
    let at_config = format!("{at}.clientConfig");
    match (config.get("url"), config.get("service")) {
        (Some(_), Some(_)) | (None, None) => {
            let why = "exactly one of url or service is required";
            causes.push(Cause::required(&at_config, why));
        }
        (Some(url), None) => {
            let is_https = url.as_str().is_some_and(|url| url.starts_with("https://"));
            if !is_https {
                let why = "'https' is the only allowed URL scheme; desired format: \
                           https://host[/path]";
                causes.push(Cause::invalid(format!("{at_config}.url"), url, why));
            }
        }
        (None, Some(service)) => {
            for field in ["namespace", "name"] {
                if text(service, &[field]).is_empty() {
                    let why = format!("service {field} is required");
                    causes.push(Cause::required(
                        format!("{at_config}.service.{field}"),
                        &why,
                    ));
                }
            }
        }
    }
    let versions = items(webhook, &["conversionReviewVersions"]);
    let at = format!("{at}.conversionReviewVersions");
    if versions.is_empty() {
        causes.push(Cause::required(at, ""));
    } else if !versions.iter().any(|one| one == "v1" || one == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(at, &json!(versions), why));
    }
}

fn changes(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let mut fields: Vec<&[&str]> = vec![&["spec", "group"], &["spec", "names", "plural"]];
    if is_condition(old, "Established") {
        fields.extend([&["spec", "scope"][..], &["spec", "names", "kind"]]);
    }
    for path in fields {
        let value = object::at(new, path).unwrap_or(&Value::Null);
        if object::at(old, path).unwrap_or(&Value::Null) != value {
            causes.push(Cause::invalid(path.join("."), value, "field is immutable"));
        }
    }
}

/// Whether a condition of a definition is true.
pub(crate) fn is_condition(definition: &Value, kind: &str) -> bool {
    let mut conditions = items(definition, &["status", "conditions"]).iter();
    conditions.any(|one| one["type"] == kind && one["status"] == "True")
}

/// Names of a definition: what the server calls its resource.
pub(crate) fn names_of(spec: &Value) -> Map<String, Value> {
    let names = spec.get("names").and_then(Value::as_object);
    names.cloned().unwrap_or_default()
}
