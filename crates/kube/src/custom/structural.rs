//! Whether the schema of a definition is structural: one that says of each field what it is.
//!
//! Upstream prunes, defaults and publishes by such schemas only, and so do we. The texts are
//! upstream's.

use serde_json::Value;

use super::schema::{Schema, Type, entries, regex};
use super::{prune, validate};
use crate::object;
use crate::status::Cause;

/// Faults that are told of one schema.
const CAUSES_MAX: usize = 50;

/// What OpenAPI knows and no structural schema may have.
const UNSUPPORTED: [&str; 7] = [
    "$ref",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "id",
    "$schema",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// What keeps `schema` from being structural; `path` is where it stands.
pub(crate) fn check(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, path, Level::Root, &mut causes);
    causes.truncate(CAUSES_MAX);
    causes
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn node(schema: &Value, path: &str, level: Level, causes: &mut Vec<Cause>) {
    if causes.len() >= CAUSES_MAX {
        return;
    }
    typed(schema, path, level, causes);
    unsupported(schema, path, causes);
    lists_and_maps(schema, path, causes);
    values(schema, path, causes);
    default(schema, path, causes);
    if level == Level::Root || flag(schema, "x-kubernetes-embedded-resource") {
        resource(schema, path, causes);
    }
    for (name, below) in entries(schema, "properties") {
        node(
            below,
            &format!("{path}.properties[{name}]"),
            Level::Field,
            causes,
        );
    }
    if let Some(below @ Value::Object(_)) = schema.get("additionalProperties") {
        node(
            below,
            &format!("{path}.additionalProperties"),
            Level::Field,
            causes,
        );
    }
    if let Some(below @ Value::Object(_)) = schema.get("items") {
        node(below, &format!("{path}.items"), Level::Item, causes);
    }
    // As upstream, which asks for the fields that restrictions name to be defined at the root only.
    let is_complete = level == Level::Root;
    restrictions(schema, schema, path, is_complete, causes);
}

/// What stands below `allOf` and the like.
fn restrictions(
    schema: &Value,
    structural: &Value,
    path: &str,
    is_complete: bool,
    causes: &mut Vec<Cause>,
) {
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in object::items(schema, &[name]).iter().enumerate() {
            let at = format!("{path}.{name}[{index}]");
            nested(below, structural, &at, is_complete, causes);
        }
    }
    if let Some(below) = schema.get("not") {
        nested(
            below,
            structural,
            &format!("{path}.not"),
            is_complete,
            causes,
        );
    }
}

/// Whether the schema has what no schema may have: then its type is not asked for as well.
fn is_refused(schema: &Value) -> bool {
    let has = |name: &&str| schema.get(*name).is_some_and(|one| !one.is_null());
    UNSUPPORTED.iter().any(has) || flag(schema, "uniqueItems")
}

fn typed(schema: &Value, path: &str, level: Level, causes: &mut Vec<Cause>) {
    let kind = object::text(schema, &["type"]);
    let at = format!("{path}.type");
    let is_free = flag(schema, "x-kubernetes-int-or-string")
        || flag(schema, "x-kubernetes-preserve-unknown-fields")
        || flag(schema, "x-kubernetes-embedded-resource")
        || is_refused(schema);
    if !kind.is_empty() && Type::parse(kind).is_none_or(|kind| kind == Type::Null) {
        let known: Vec<_> = Type::NAMES
            .iter()
            .copied()
            .filter(|name| *name != "null")
            .collect();
        causes.push(Cause::not_supported(&at, &Value::from(kind), &known));
        if kind == "null" {
            let why = "type cannot be set to null, use nullable as an alternative";
            causes.push(Cause::forbidden(&at, why));
        }
    }
    match (level, kind) {
        (Level::Root, "") => causes.push(Cause::required(&at, "must not be empty at the root")),
        (Level::Root, kind) if kind != "object" => {
            causes.push(Cause::invalid(
                &at,
                &Value::from(kind),
                "must be object at the root",
            ));
        }
        (Level::Field, "") if !is_free => {
            let why = "must not be empty for specified object fields";
            causes.push(Cause::required(&at, why));
        }
        (Level::Item, "") if !is_free => {
            let why = "must not be empty for specified array items";
            causes.push(Cause::required(&at, why));
        }
        (Level::Root | Level::Field | Level::Item, _) => {}
    }
    if level == Level::Root && flag(schema, "nullable") {
        let why = "nullable cannot be true at the root";
        causes.push(Cause::forbidden(format!("{path}.nullable"), why));
    }
    if kind == "array" && schema.get("items").is_none() {
        causes.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
}

fn unsupported(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for name in UNSUPPORTED {
        if name == "$schema" && !object::text(schema, &["id"]).is_empty() {
            continue;
        }
        let found = schema
            .get(name)
            .filter(|one| !one.is_null() && one.as_str() != Some(""));
        if found.is_some() {
            let why = format!("{name} is not supported");
            causes.push(Cause::forbidden(format!("{path}.{name}"), &why));
        }
    }
    if flag(schema, "uniqueItems") {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{path}.uniqueItems"), why));
    }
    match schema.get("additionalProperties") {
        Some(Value::Object(_) | Value::Bool(false))
            if entries(schema, "properties").next().is_some() =>
        {
            let why = "additionalProperties and properties are mutual exclusive";
            causes.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                why,
            ));
        }
        _ => {}
    }
    if schema.get("items").is_some_and(Value::is_array) {
        let why = "items must be a schema object and not an array";
        causes.push(Cause::forbidden(format!("{path}.items"), why));
    }
    if let Some(Value::Bool(false)) = schema.get("x-kubernetes-preserve-unknown-fields") {
        let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
        causes.push(Cause::invalid(
            at,
            &Value::from(false),
            "must be true or undefined",
        ));
    }
}

fn lists_and_maps(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let kind = object::text(schema, &["type"]);
    let map_type = object::text(schema, &["x-kubernetes-map-type"]);
    if !map_type.is_empty() {
        if kind != "object" {
            let why = "must be object if x-kubernetes-map-type is specified";
            causes.push(Cause::invalid(
                format!("{path}.type"),
                &Value::from(kind),
                why,
            ));
        }
        if !matches!(map_type, "atomic" | "granular") {
            let at = format!("{path}.x-kubernetes-map-type");
            let value = Value::from(map_type);
            causes.push(Cause::not_supported(at, &value, &["atomic", "granular"]));
        }
    }
    let list_type = object::text(schema, &["x-kubernetes-list-type"]);
    let keys = object::items(schema, &["x-kubernetes-list-map-keys"]);
    let keys_at = format!("{path}.x-kubernetes-list-map-keys");
    if !list_type.is_empty() && kind != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        causes.push(Cause::invalid(
            format!("{path}.type"),
            &Value::from(kind),
            why,
        ));
    }
    match list_type {
        "" | "atomic" | "set" if !keys.is_empty() => {
            let at = format!("{path}.x-kubernetes-list-type");
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            causes.push(match list_type {
                "" => Cause::required(at, why),
                _ => Cause::invalid(at, &Value::from(list_type), why),
            });
        }
        "" | "atomic" => {}
        "set" => set(schema, path, causes),
        "map" => list_map(schema, path, &keys_at, keys, causes),
        other => {
            let at = format!("{path}.x-kubernetes-list-type");
            let value = Value::from(other);
            causes.push(Cause::not_supported(at, &value, &["atomic", "set", "map"]));
        }
    }
}

/// What is in a set must be told apart as a whole.
fn set(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let items = &schema["items"];
    if flag(items, "nullable") {
        let why = "cannot be nullable when x-kubernetes-list-type is set";
        causes.push(Cause::forbidden(format!("{path}.items.nullable"), why));
    }
    let name = match object::text(items, &["type"]) {
        "object" => "x-kubernetes-map-type",
        "array" => "x-kubernetes-list-type",
        _ => return,
    };
    let is = items.get(name).unwrap_or(&Value::Null);
    let is_atomic = is == "atomic" || (is.is_null() && name == "x-kubernetes-list-type");
    if !is_atomic {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        causes.push(Cause::invalid(format!("{path}.items.{name}"), is, why));
    }
}

fn list_map(schema: &Value, path: &str, at: &str, keys: &[Value], causes: &mut Vec<Cause>) {
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        causes.push(Cause::required(at, why));
    }
    let items = &schema["items"];
    if object::text(items, &["type"]) != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        let kind = Value::from(object::text(items, &["type"]));
        causes.push(Cause::invalid(format!("{path}.items.type"), &kind, why));
        return;
    }
    let is_name = |key: &Value| {
        let name = key.as_str().unwrap_or_default();
        object::at(items, &["properties", name]).is_some()
    };
    let value = Value::from(keys.to_vec());
    if !keys.iter().all(is_name) {
        let why = "entries must all be names of item properties";
        causes.push(Cause::invalid(at, &value, why));
    }
    if (1..keys.len()).any(|index| keys[..index].contains(&keys[index])) {
        let why = "must not contain duplicate entries";
        causes.push(Cause::invalid(at, &value, why));
    }
    let required = object::items(items, &["required"]);
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let Some(property) = object::at(items, &["properties", name]) else {
            continue;
        };
        if keys[..index].contains(key) {
            continue;
        }
        if flag(property, "nullable") {
            let at = format!("{path}.items.properties[{name}].nullable");
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.push(Cause::forbidden(at, why));
        }
        if matches!(object::text(property, &["type"]), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            let at = format!("{path}.items.properties[{name}].type");
            causes.push(Cause::invalid(at, &property["type"], why));
        }
        if !required.contains(key) && property.get("default").is_none() {
            let at = format!("{path}.items.properties[{name}].default");
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default \
                       or be a required property";
            causes.push(Cause::required(at, why));
        }
    }
}

fn values(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let pattern = object::text(schema, &["pattern"]);
    if let Err(error) = regex(pattern) {
        let error = go_regexp(pattern, &error.to_string());
        let why = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(
            format!("{path}.pattern"),
            &Value::from(pattern),
            &why,
        ));
    }
}

/// The commonest faults of regular expressions as Go tells them.
fn go_regexp(pattern: &str, error: &str) -> String {
    let told = error.lines().last().unwrap_or_default().trim();
    if told.contains("unclosed group") {
        return format!("error parsing regexp: missing closing ): `{pattern}`");
    }
    if told.contains("unopened group") {
        return format!("error parsing regexp: unexpected ): `{pattern}`");
    }
    let look = ["(?=", "(?!", "(?<=", "(?<!"];
    let around = look.iter().find(|one| pattern.contains(**one));
    match around {
        Some(one) => format!("error parsing regexp: invalid or unsupported Perl syntax: `{one}`"),
        None => told.to_owned(),
    }
}

/// A default has to be a value of the field, with nothing in it that would be pruned.
fn default(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(default) = schema.get("default").filter(|one| !one.is_null()) else {
        return;
    };
    let at = format!("{path}.default");
    let parsed = Schema::parse(schema);
    let mut pruned = default.clone();
    let unknown = prune::prune_value(&parsed, &mut pruned);
    if !unknown.is_empty() {
        causes.push(Cause::invalid(&at, default, "must not have unknown fields"));
        return;
    }
    prune::default(&parsed, &mut pruned);
    for mut cause in validate::validate(&parsed, &pruned, None) {
        cause.field = match cause.field.as_str() {
            "<nil>" => at.clone(),
            field if field.starts_with('[') => format!("{at}{field}"),
            field => format!("{at}.{field}"),
        };
        causes.push(cause);
    }
}

/// An object with type and metadata: these are known, and may only be restricted.
fn resource(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if flag(schema, "x-kubernetes-embedded-resource") {
        if schema
            .get("additionalProperties")
            .is_some_and(Value::is_object)
        {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            causes.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                why,
            ));
        }
        if entries(schema, "properties").next().is_none()
            && !flag(schema, "x-kubernetes-preserve-unknown-fields")
        {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            causes.push(Cause::required(format!("{path}.properties"), why));
        }
        let kind = object::text(schema, &["type"]);
        let why = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "object" => {}
            "" => causes.push(Cause::required(format!("{path}.type"), why)),
            _ => causes.push(Cause::invalid(
                format!("{path}.type"),
                &Value::from(kind),
                why,
            )),
        }
    }
    for (name, wanted) in [
        ("apiVersion", "string"),
        ("kind", "string"),
        ("metadata", "object"),
    ] {
        let Some(property) = object::at(schema, &["properties", name]) else {
            continue;
        };
        let kind = object::text(property, &["type"]);
        if !kind.is_empty() && kind != wanted {
            let at = format!("{path}.properties[{name}].type");
            let why = format!("must be {wanted}");
            causes.push(Cause::invalid(at, &Value::from(kind), &why));
        }
    }
    if flag(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    reserved_defaults(schema, path, causes);
    if let Some(metadata) = object::at(schema, &["properties", "metadata"]) {
        let may_be = |name: &str| matches!(name, "name" | "generateName");
        let others = entries(metadata, "properties").any(|(name, _)| !may_be(name));
        let is_more = metadata.get("additionalProperties").is_some() || others;
        if is_more {
            let at = format!("{path}.properties[metadata]");
            let why = "must not specify anything other than name and generateName, but metadata is \
                       implicitly specified";
            causes.push(Cause::forbidden(at, why));
        }
    }
}

/// The type and metadata of an object are given by who makes it.
fn reserved_defaults(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for name in ["apiVersion", "kind", "metadata"] {
        let Some(property) = object::at(schema, &["properties", name]) else {
            continue;
        };
        let at = format!("{path}.properties[{name}]");
        let mut places = vec![(at.clone(), property)];
        let below = entries(property, "properties");
        places.extend(below.map(|(below, one)| (format!("{at}.properties[{below}]"), one)));
        for (at, one) in places {
            if one.get("default").is_some_and(|default| !default.is_null()) {
                let why = format!("must not be set in top-level {name}");
                causes.push(Cause::forbidden(format!("{at}.default"), &why));
            }
        }
    }
}

/// Whether the alternatives of int-or-string are spelled as upstream lets them be.
fn names_int_or_string(schema: &Value) -> bool {
    let spells = |one: &Value| {
        let types: Vec<_> = object::items(one, &["anyOf"])
            .iter()
            .map(|one| object::text(one, &["type"]))
            .collect();
        types == ["integer", "string"]
    };
    let first = object::items(schema, &["allOf"]).first();
    flag(schema, "x-kubernetes-int-or-string") && (spells(schema) || first.is_some_and(spells))
}

/// What only describes a field has no place among restrictions.
fn describing(schema: &Value, structural: &Value, path: &str, causes: &mut Vec<Cause>) {
    let is_int_or_string = names_int_or_string(structural);
    for name in [
        "additionalProperties",
        "default",
        "description",
        "nullable",
        "title",
        "type",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ] {
        let found = schema.get(name).filter(|one| {
            !one.is_null() && one.as_str() != Some("") && one.as_bool() != Some(false)
        });
        // The two alternatives of int-or-string may name their types.
        if found.is_some() && !(name == "type" && is_int_or_string) {
            let wanted = match name {
                "additionalProperties"
                | "default"
                | "x-kubernetes-list-type"
                | "x-kubernetes-map-type" => "undefined",
                "nullable"
                | "x-kubernetes-embedded-resource"
                | "x-kubernetes-int-or-string"
                | "x-kubernetes-preserve-unknown-fields" => "false",
                _ => "empty",
            };
            let why = format!("must be {wanted} to be structural");
            causes.push(Cause::forbidden(format!("{path}.{name}"), &why));
        }
    }
}

/// What stands below `allOf` and the like restricts values and describes no fields of its own.
fn nested(
    schema: &Value,
    structural: &Value,
    path: &str,
    is_complete: bool,
    causes: &mut Vec<Cause>,
) {
    if causes.len() >= CAUSES_MAX {
        return;
    }
    describing(schema, structural, path, causes);
    values(schema, path, causes);
    for (name, below) in entries(schema, "properties") {
        let at = format!("{path}.properties[{name}]");
        let known = object::at(structural, &["properties", name]);
        let known = known.or_else(|| {
            let more = structural.get("additionalProperties");
            more.filter(|more| more.is_object())
        });
        match known {
            Some(known) => nested(below, known, &at, is_complete, causes),
            None if is_complete => {
                let why = format!("because it is defined in {at}");
                causes.push(Cause::required(missing(path, name), &why));
            }
            None => nested(below, &Value::Null, &at, false, causes),
        }
    }
    if let Some(below) = schema.get("items").filter(|items| items.is_object()) {
        let at = format!("{path}.items");
        match structural.get("items") {
            Some(known) => nested(below, known, &at, is_complete, causes),
            None if is_complete => {
                let why = format!("because it is defined in {at}");
                causes.push(Cause::required(&at, &why));
            }
            None => nested(below, &Value::Null, &at, false, causes),
        }
    }
    restrictions(schema, structural, path, is_complete, causes);
}

/// Where the property would have to be defined: the path without its alternatives.
fn missing(path: &str, name: &str) -> String {
    let parts = path.split('.').filter(|part| {
        let word = part.split('[').next().unwrap_or_default();
        !matches!(word, "allOf" | "anyOf" | "oneOf" | "not")
    });
    let base: Vec<_> = parts.collect();
    format!("{}.properties[{name}]", base.join("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(schema: Value) -> Vec<String> {
        let causes = check(&schema, "schema");
        let texts = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message));
        texts.collect()
    }

    #[test]
    fn what_is_not_structural_is_told() {
        for (schema, expected) in [
            (
                json!({}),
                "schema.type: Required value: must not be empty at the root",
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "schema.properties[a].type: Required value: must not be empty for specified \
                 object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "schema.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "sting"}}}),
                "schema.properties[a].type: Unsupported value: \"sting\": supported values: \
                 \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
                "schema.properties[a].default: Invalid value: \"integer\":  in body must be of \
                 type string: \"integer\"",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
                "schema.properties[b]: Required value: because it is defined in \
                 schema.anyOf[0].properties[b]",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string",
                    "uniqueItems": true, "x-kubernetes-int-or-string": true}}}),
                "schema.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true \
                 since the runtime complexity becomes quadratic",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object",
                    "properties": {"name": {"type": "string", "default": "a"}}}}}),
                "schema.properties[metadata].properties[name].default: Forbidden: must not be set \
                 in top-level metadata",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "nullable": true}}}}),
                "schema.properties[a].items.nullable: Forbidden: cannot be nullable when \
                 x-kubernetes-list-type is set",
            ),
            (
                json!({"type": "object", "anyOf": [{"type": "object"}]}),
                "schema.anyOf[0].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array",
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}}}),
                "schema.properties[a].items.properties[k].default: Required value: this property \
                 is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                 property",
            ),
        ] {
            assert_eq!(texts(schema), [expected]);
        }
    }

    #[test]
    fn the_usual_forms_are_structural() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {
                "port": {"x-kubernetes-int-or-string": true,
                    "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "raw": {"x-kubernetes-preserve-unknown-fields": true},
                "more": {"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]},
                "closed": {"type": "object", "additionalProperties": false},
                "both": {"type": "string", "x-kubernetes-int-or-string": true},
                "names": {"type": "array", "items": {"type": "string"},
                    "x-kubernetes-list-type": "set"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"},
                    "default": {"a": "b"}},
            }, "oneOf": [{"required": ["port"]}, {"properties": {"raw": {"not": {}}}}]},
        }});
        assert_eq!(texts(schema), Vec::<String>::new());
    }
}
