//! The rules of a CustomResourceDefinition, in upstream's words.

use serde_json::{Map, Value, json};

use super::jsonpath::simple;
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
        "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
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
    let may_be_named = |old: &Value| {
        // What may not change is told as such.
        let same = |path: &[&str]| object::at(old, path) == object::at(definition, path);
        same(&["spec", "group"]) && same(&["spec", "names", "plural"])
    };
    if !name.is_empty() && name != format!("{plural}.{group}") && old.is_none_or(may_be_named) {
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
    versions(definition, old, &mut causes);
    all_names(&spec["names"], &mut causes);
    hoisted(definition, old, &mut causes);
    conversion(&spec["conversion"], &mut causes);
    stored_versions(definition, &mut causes);
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

/// What versions have of their own, and where upstream's errors say that it stands if all of them
/// have the same: a definition was once of one version only.
const HOISTED: [(&str, &str); 4] = [
    ("schema", "spec.validation"),
    ("subresources", "spec.subresources"),
    ("additionalPrinterColumns", "spec.additionalPrinterColumns"),
    ("selectableFields", "spec.selectableFields"),
];

/// Whether all versions have the same there.
fn is_hoisted(versions: &[Value], field: &str) -> bool {
    versions
        .windows(2)
        .all(|pair| pair[0].get(field) == pair[1].get(field))
}

fn versions(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let versions = items(definition, &["spec", "versions"]);
    let at = "spec.versions";
    for (index, version) in versions.iter().enumerate() {
        if object::at(version, &["schema", "openAPIV3Schema"]).is_none_or(Value::is_null) {
            let at = format!("{at}[{index}].schema.openAPIV3Schema");
            causes.push(Cause::required(at, ""));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let name = text(version, &["name"]);
        if let Some(why) = names::label_1035_fault(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &json!(name), why));
        }
        deprecation(version, &at, causes);
        if is_as_before(version, old) {
            continue;
        }
        for (field, _) in HOISTED {
            if !is_hoisted(versions, field) {
                part(version, field, &format!("{at}.{field}"), causes);
            }
        }
    }
    let name = |index: usize| text(&versions[index], &["name"]);
    let is_twice = |index: usize| (0..index).any(|before| name(before) == name(index));
    if (0..versions.len()).any(is_twice) {
        let why = "must contain unique version names";
        causes.push(Cause::invalid(at, &json!(versions), why));
    }
    let storage = versions.iter().filter(|version| version["storage"] == true);
    if storage.count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(at, &json!(versions), why));
    }
    if let Some(first) = versions.first()
        && let Some(why) = names::label_1035_fault(text(first, &["name"]))
    {
        causes.push(Cause::invalid("spec.version", &first["name"], why));
    }
}

/// Whether a version was let through like this once: rules may have become stricter since.
fn is_as_before(version: &Value, old: Option<&Value>) -> bool {
    let mut before = old
        .into_iter()
        .flat_map(|old| items(old, &["spec", "versions"]));
    before.any(|one| one == version)
}

/// What all versions have alike is told once.
fn hoisted(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let versions = items(definition, &["spec", "versions"]);
    let Some(first) = versions.first().filter(|one| !is_as_before(one, old)) else {
        return;
    };
    for (field, at) in HOISTED {
        if is_hoisted(versions, field) {
            part(first, field, at, causes);
        }
    }
}

/// One part of a version, which errors say stands at `at`.
fn part(version: &Value, field: &str, at: &str, causes: &mut Vec<Cause>) {
    match field {
        "schema" => schema(version, &format!("{at}.openAPIV3Schema"), causes),
        "subresources" => subresources(&version["subresources"], at, causes),
        "additionalPrinterColumns" => columns(version, at, causes),
        _ => selectable(version, at, causes),
    }
}

fn schema(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let schema = object::at(version, &["schema", "openAPIV3Schema"]);
    let Some(schema) = schema.filter(|schema| !schema.is_null()) else {
        return;
    };
    let found = structural::check(schema, at);
    let is_structural = found.is_empty();
    causes.extend(found);
    if is_structural {
        causes.extend(rules::check(schema, at));
    }
}

fn deprecation(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    const CHARACTERS_MAX: usize = 256;
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let at = format!("{at}.deprecationWarning");
    let mut invalid = |why: &str| causes.push(Cause::invalid(&at, &json!(warning), why));
    if version["deprecated"] != true {
        invalid("can only be set for deprecated versions");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    } else if warning.chars().count() > CHARACTERS_MAX {
        invalid(&format!("must be <= {CHARACTERS_MAX} characters long"));
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        invalid(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {index}"
        ));
    }
}

fn stored_versions(definition: &Value, causes: &mut Vec<Cause>) {
    let at = "status.storedVersions";
    let versions = items(definition, &["spec", "versions"]);
    let stored = items(definition, &["status", "storedVersions"]);
    if stored.is_empty() {
        let why = "must have at least one stored version";
        causes.push(Cause::invalid(at, &Value::Null, why));
        return;
    }
    for (index, stored) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let why = "must appear in spec.versions";
            causes.push(Cause::invalid(format!("{at}[{index}]"), stored, why));
        }
    }
}

fn columns(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    for (index, column) in items(version, &["additionalPrinterColumns"])
        .iter()
        .enumerate()
    {
        let at = format!("{at}[{index}]");
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
        let at = format!("{at}.JSONPath");
        if path.is_empty() {
            causes.push(Cause::required(at, ""));
        } else if !path.starts_with('.') {
            let why = "must be a simple json path starting with .";
            causes.push(Cause::invalid(at, &json!(path), why));
        }
    }
}

fn subresources(subresources: &Value, at: &str, causes: &mut Vec<Cause>) {
    let Some(scale) = subresources.get("scale") else {
        return;
    };
    let at = format!("{at}.scale");
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
            None if !path.starts_with('.') => {
                let why = "must be a simple json path starting with .";
                causes.push(Cause::invalid(at, &value, why));
            }
            None => {
                let why = format!("should be a json path under {where_}");
                causes.push(Cause::invalid(at, &value, &why));
            }
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
    let has_more = fields.len() > SELECTABLE_MAX;
    let distinct: std::collections::HashSet<_> = fields
        .iter()
        .map(|field| text(field, &["jsonPath"]))
        .collect();
    if has_more && distinct.len() > SELECTABLE_MAX {
        causes.push(Cause::too_many(
            at,
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
        if !path.starts_with('.') {
            let why = format!(
                "is an invalid path: expected [ or . but got: {}",
                first_word(path)
            );
            causes.push(Cause::invalid(at, &value, &why));
            continue;
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let keys = simple(path).filter(|keys| keys[0] != "metadata");
        let found = keys.and_then(|keys| {
            let below = |schema: &'_ Value, key: &String| -> Option<Value> {
                Some(schema.get("properties")?.get(key)?.clone())
            };
            keys.iter()
                .try_fold(schema.clone(), |schema, key| below(&schema, key))
        });
        match found.as_ref().map(|schema| text(schema, &["type"])) {
            Some("string" | "boolean" | "integer") => {}
            Some(_) => {
                let why = "must point to a field of type string, boolean or integer. Enum string \
                           fields and strings with formats are allowed.";
                causes.push(Cause::invalid(at, &value, why));
            }
            None => {
                let why = "is an invalid path: does not refer to a valid field";
                causes.push(Cause::invalid(at, &value, why));
            }
        }
    }
}

/// As upstream's parser of paths shows what it met.
fn first_word(path: &str) -> &str {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    &path[..end]
}

fn conversion(conversion: &Value, causes: &mut Vec<Cause>) {
    let at = "spec.conversion";
    match text(conversion, &["strategy"]) {
        "" => causes.push(Cause::required(format!("{at}.strategy"), "")),
        "None" => {
            if conversion.get("webhook").is_some() {
                let why = "should not be set when strategy is not set to Webhook";
                for field in ["webhookClientConfig", "conversionReviewVersions"] {
                    causes.push(Cause::forbidden(format!("{at}.{field}"), why));
                }
            }
        }
        "Webhook" => webhook(&conversion["webhook"], at, causes),
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
    let at_config = format!("{at}.webhookClientConfig");
    match webhook.get("clientConfig") {
        None => {
            let why = "required when strategy is set to Webhook";
            causes.push(Cause::required(&at_config, why));
        }
        Some(config) => client_config(config, &at_config, causes),
    }
    let versions = items(webhook, &["conversionReviewVersions"]);
    let at = format!("{at}.conversionReviewVersions");
    if versions.is_empty() {
        causes.push(Cause::required(at, ""));
        return;
    }
    review_versions(versions, &at, causes);
    if !versions.iter().any(|one| one == "v1" || one == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(at, &json!(versions), why));
    }
}

/// Versions of reviews have to be names of versions, each once.
pub(crate) fn review_versions(versions: &[Value], at: &str, causes: &mut Vec<Cause>) {
    for (index, version) in versions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if versions[..index].contains(version) {
            causes.push(Cause::invalid(at, version, "duplicate version"));
        } else if let Some(why) = names::label_1035_fault(version.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(at, version, why));
        }
    }
}

/// Where a webhook is: an URL, or a Service.
pub(crate) fn client_config(config: &Value, at: &str, causes: &mut Vec<Cause>) {
    match (config.get("url"), config.get("service")) {
        (Some(_), Some(_)) | (None, None) => {
            let why = "exactly one of url or service is required";
            causes.push(Cause::required(at, why));
        }
        (Some(_), None) | (None, Some(_)) => client_address(config, at, causes),
    }
}

/// [`client_config`], if it is one of both.
pub(crate) fn client_address(config: &Value, at: &str, causes: &mut Vec<Cause>) {
    match (config.get("url"), config.get("service")) {
        (Some(_), Some(_)) | (None, None) => {}
        (Some(url), None) => {
            webhook_url(
                url.as_str().unwrap_or_default(),
                &format!("{at}.url"),
                causes,
            );
        }
        (None, Some(service)) => webhook_service(service, &format!("{at}.service"), causes),
    }
}

fn webhook_url(url: &str, at: &str, causes: &mut Vec<Cause>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut invalid = |value: &str, why: String| {
        causes.push(Cause::invalid(at, &json!(value), &why));
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return invalid("", format!("'https' is the only allowed URL scheme{FORM}"));
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        invalid(
            scheme,
            format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    if host.is_empty() {
        invalid(host, format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        invalid(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        invalid(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        invalid(
            query,
            "query parameters are not permitted in the URL".into(),
        );
    }
}

fn webhook_service(service: &Value, at: &str, causes: &mut Vec<Cause>) {
    for field in ["name", "namespace"] {
        if text(service, &[field]).is_empty() {
            causes.push(Cause::required(format!("{at}.{field}"), ""));
        }
    }
    if let Some(port) = service.get("port").filter(|port| !port.is_null())
        && !port
            .as_i64()
            .is_some_and(|port| (1..=65535).contains(&port))
    {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        causes.push(Cause::invalid(format!("{at}.port"), port, why));
    }
    let path = text(service, &["path"]);
    let at = format!("{at}.path");
    if path.is_empty() || path == "/" {
        return;
    }
    let mut invalid = |why: &str| causes.push(Cause::invalid(&at, &json!(path), why));
    if !path.starts_with('/') {
        invalid("must start with a '/'");
    }
    let segments = path.strip_prefix('/').unwrap_or(path);
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    for (index, segment) in segments.split('/').enumerate() {
        if segment.is_empty() {
            invalid(&format!("segment[{index}] may not be empty"));
        } else if let Some(why) = names::subdomain_fault(segment) {
            invalid(&format!("segment[{index}]: {why}"));
        }
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
