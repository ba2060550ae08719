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
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in object::items(schema, &[name]).iter().enumerate() {
            nested(below, schema, &format!("{path}.{name}[{index}]"), causes);
        }
    }
    if let Some(below) = schema.get("not") {
        nested(below, schema, &format!("{path}.not"), causes);
    }
}

fn typed(schema: &Value, path: &str, level: Level, causes: &mut Vec<Cause>) {
    let kind = object::text(schema, &["type"]);
    let at = format!("{path}.type");
    let is_free = flag(schema, "x-kubernetes-int-or-string")
        || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if !kind.is_empty() && Type::parse(kind).is_none_or(|kind| kind == Type::Null) {
        let known: Vec<_> = Type::NAMES
            .iter()
            .copied()
            .filter(|name| *name != "null")
            .collect();
        causes.push(Cause::not_supported(&at, &Value::from(kind), &known));
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
    if flag(schema, "x-kubernetes-int-or-string") && !kind.is_empty() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        causes.push(Cause::forbidden(&at, why));
    }
    if flag(schema, "x-kubernetes-preserve-unknown-fields") && !matches!(kind, "" | "object") {
        let why = "must be object if x-kubernetes-preserve-unknown-fields is true";
        causes.push(Cause::invalid(&at, &Value::from(kind), why));
    }
}

fn unsupported(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for name in [
        "$ref",
        "definitions",
        "dependencies",
        "patternProperties",
        "additionalItems",
        "id",
        "$schema",
    ] {
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
        Some(Value::Bool(false)) => {
            let why = "additionalProperties cannot be set to false";
            causes.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                why,
            ));
        }
        Some(Value::Object(_) | Value::Bool(true))
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
            causes.push(Cause::invalid(at, &Value::from(list_type), why));
        }
        "" | "atomic" => {}
        "set" => {
            let items = &schema["items"];
            let is_atomic = match object::text(items, &["type"]) {
                "object" => object::text(items, &["x-kubernetes-map-type"]) == "atomic",
                "array" => {
                    matches!(
                        object::text(items, &["x-kubernetes-list-type"]),
                        "" | "atomic"
                    )
                }
                _ => true,
            };
            if !is_atomic {
                let why = "items of a set must be scalars, or lists and maps that are atomic";
                let at = format!("{path}.items");
                causes.push(Cause::invalid(at, &Value::from("object"), why));
            }
        }
        "map" => list_map(schema, path, &keys_at, keys, causes),
        other => {
            let at = format!("{path}.x-kubernetes-list-type");
            let value = Value::from(other);
            causes.push(Cause::not_supported(at, &value, &["atomic", "map", "set"]));
        }
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
    }
    let required = object::items(items, &["required"]);
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let at = format!("{at}[{index}]");
        let Some(property) = object::at(items, &["properties", name]) else {
            let why = "entries in x-kubernetes-list-map-keys must all be names of item properties";
            causes.push(Cause::invalid(at, key, why));
            continue;
        };
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
        let first = error.to_string();
        let first = first.lines().last().unwrap_or_default().trim();
        let why = format!("must be a valid regular expression, but isn't: {first}");
        causes.push(Cause::invalid(
            format!("{path}.pattern"),
            &Value::from(pattern),
            &why,
        ));
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
        let kind = object::text(schema, &["type"]);
        if kind != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            causes.push(Cause::invalid(
                format!("{path}.type"),
                &Value::from(kind),
                why,
            ));
        }
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

/// What stands below `allOf` and the like restricts values and describes no fields of its own.
fn nested(schema: &Value, structural: &Value, path: &str, causes: &mut Vec<Cause>) {
    if causes.len() >= CAUSES_MAX {
        return;
    }
    let is_int_or_string = flag(structural, "x-kubernetes-int-or-string");
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
            let why = "must be empty to be structural";
            causes.push(Cause::forbidden(format!("{path}.{name}"), why));
        }
    }
    values(schema, path, causes);
    for (name, below) in entries(schema, "properties") {
        let at = format!("{path}.properties[{name}]");
        let known = object::at(structural, &["properties", name]);
        let known = known.or_else(|| {
            let more = structural.get("additionalProperties");
            more.filter(|more| more.is_object())
        });
        match known {
            Some(known) => nested(below, known, &at, causes),
            None => {
                let start = path.find("openAPIV3Schema").unwrap_or(0);
                let why = format!("because it is defined in {}", &at[start..]);
                causes.push(Cause::required(missing(path, name), &why));
            }
        }
    }
    if let Some(below) = schema.get("items").filter(|items| items.is_object()) {
        match structural.get("items") {
            Some(known) => nested(below, known, &format!("{path}.items"), causes),
            None => {
                let why = format!("because it is defined in {path}.items");
                causes.push(Cause::required(format!("{path}.items"), &why));
            }
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in object::items(schema, &[name]).iter().enumerate() {
            nested(
                below,
                structural,
                &format!("{path}.{name}[{index}]"),
                causes,
            );
        }
    }
    if let Some(below) = schema.get("not") {
        nested(below, structural, &format!("{path}.not"), causes);
    }
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
                "names": {"type": "array", "items": {"type": "string"},
                    "x-kubernetes-list-type": "set"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"},
                    "default": {"a": "b"}},
            }, "oneOf": [{"required": ["port"]}, {"properties": {"raw": {"not": {}}}}]},
        }});
        assert_eq!(texts(schema), Vec::<String>::new());
    }
}
