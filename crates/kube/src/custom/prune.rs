//! Pruning and defaulting: what an object of a structural schema loses and gains before anybody
//! sees it. Pure.

use serde_json::{Map, Value};

use super::schema::{Additional, Schema};
use crate::schema::{self, TypeError};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Fields that each object has, whatever its schema says.
const TYPE_META: [&str; 2] = ["apiVersion", "kind"];

/// Takes out of an object what its schema does not know, and returns the paths of that. Metadata
/// is that of all objects; its types have to fit.
pub(crate) fn prune_root(schema: &Schema, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut unknown = Vec::new();
    if let Some(map) = object.as_object_mut() {
        resource(schema, map, "", &mut unknown)?;
    }
    Ok(unknown)
}

/// An object with type and metadata: the whole one, or one that is embedded.
fn resource(
    schema: &Schema,
    map: &mut Map<String, Value>,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), TypeError> {
    let metadata = map.remove("metadata");
    fields(schema, map, path, true, unknown)?;
    let Some(mut metadata) = metadata else {
        return Ok(());
    };
    if let Some(found) = schema::type_named(META).filter(|_| !metadata.is_null()) {
        for below in schema::decode(found.get(), &mut metadata)? {
            unknown.push(join(path, &format!("metadata.{below}")));
        }
    }
    map.insert("metadata".into(), metadata);
    Ok(())
}

fn fields(
    schema: &Schema,
    map: &mut Map<String, Value>,
    path: &str,
    is_resource: bool,
    unknown: &mut Vec<String>,
) -> Result<(), TypeError> {
    if !schema.preserve_unknown && !matches!(schema.additional, Additional::Any) {
        let is_known =
            |name: &str| schema.knows(name) || (is_resource && TYPE_META.contains(&name));
        map.retain(|name, _| {
            if !is_known(name) {
                unknown.push(join(path, name));
            }
            is_known(name)
        });
    }
    for (name, value) in map.iter_mut() {
        if let Some(below) = schema.field(name) {
            prune(below, value, &join(path, name), unknown)?;
        }
    }
    Ok(())
}

fn prune(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), TypeError> {
    match value {
        Value::Object(map) if schema.embedded => resource(schema, map, path, unknown),
        Value::Object(map) => fields(schema, map, path, false, unknown),
        Value::Array(items) => {
            let Some(below) = &schema.items else {
                return Ok(());
            };
            for (index, item) in items.iter_mut().enumerate() {
                prune(below, item, &format!("{path}[{index}]"), unknown)?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// [`prune_root`] of a part of an object. A type that does not fit is for validation to tell.
pub(crate) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    match prune(schema, value, "", &mut unknown) {
        Ok(()) | Err(_) => unknown,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Fills in defaults. A null where none is allowed counts as nothing: it becomes the default, or
/// goes.
pub(crate) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                !value.is_null()
                    || schema.field(name).is_none_or(|below| {
                        below.nullable
                            || below.default.is_some()
                            || (below.kind.is_none() && below.preserve_unknown)
                    })
            });
            if schema.has_defaults {
                for (name, below) in &schema.properties {
                    let Some(wanted) = &below.default else {
                        continue;
                    };
                    let found = map.get(&**name);
                    if found.is_none_or(|found| found.is_null() && !below.nullable) {
                        map.insert(name.to_string(), wanted.clone());
                    }
                }
                if let Additional::Schema(below) = &schema.additional
                    && let Some(wanted) = below.default.as_ref().filter(|_| !below.nullable)
                {
                    let named = |name: &str| schema.properties.contains_key(name);
                    let nulls = map
                        .iter_mut()
                        .filter(|(name, one)| one.is_null() && !named(name));
                    nulls.for_each(|(_, one)| *one = wanted.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(below) = schema.field(name) {
                    default(below, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                items.iter_mut().for_each(|item| default(below, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "maybe": {"type": "string", "nullable": true, "default": "x"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "port": {"type": "integer", "default": 80}}}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": {"spec": {"type": "object", "properties": {}}}},
            }},
        }}))
    }

    #[test]
    fn unknown_fields_go_and_are_told() {
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "nme": "b"}, "extra": 1,
            "spec": {"size": 1, "siez": 2, "free": {"a": 1, "known": {"b": 1}},
                "labels": {"a": "b"}, "list": [{"name": "a"}, {"nam": "b"}],
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "q": 1},
                    "spec": {"z": 1}, "other": 1}},
        });
        let mut unknown = prune_root(&schema(), &mut object).expect("fits");
        unknown.sort();
        let expected = [
            "extra",
            "metadata.nme",
            "spec.free.known.b",
            "spec.list[1].nam",
            "spec.siez",
            "spec.template.metadata.q",
            "spec.template.other",
            "spec.template.spec.z",
        ];
        assert_eq!(unknown, expected);
        assert_eq!(object["spec"]["free"]["a"], 1);
        assert_eq!(object["spec"]["template"]["kind"], "Pod");
        let mut again = object.clone();
        assert_eq!(prune_root(&schema(), &mut again), Ok(Vec::new()));
        assert_eq!(again, object);
    }

    #[test]
    fn defaults_come_where_nothing_is_and_nulls_go_where_none_is_allowed() {
        let mut object = json!({"spec": {
            "size": null, "maybe": null, "labels": null, "list": [{"name": "a"}, {"port": 1}],
        }});
        default(&schema(), &mut object);
        assert_eq!(
            object,
            json!({"spec": {
                "size": 3, "maybe": null, "list": [{"name": "a", "port": 80}, {"port": 1}],
            }})
        );
        // An object that is not there gets no defaults below it.
        let mut object = json!({});
        default(&schema(), &mut object);
        assert_eq!(object, json!({}));
    }
}
