//! OpenAPI of custom resources: the schemas of their definitions, with the fields that every
//! object has.

use serde_json::{Map, Value, json};

use super::META;
use crate::api::Api;
use crate::object;
use crate::resource::{CUSTOM_RESOURCE_DEFINITIONS, Resource};

/// Levels of a schema that are published; deeper ones are told to be anything.
const LEVELS_MAX: usize = 100;

/// The name of a custom type: the group backwards, the version and the kind.
pub(super) fn type_name(row: &Resource) -> String {
    let mut words: Vec<_> = row.group.split('.').collect();
    words.reverse();
    format!("{}.{}.{}", words.join("."), row.version, row.kind)
}

/// The types of a custom resource: of an object and of a list, by their names.
pub(super) fn schemas(api: &Api, row: &Resource) -> Vec<(String, Value)> {
    let name = type_name(row);
    let kind = row.custom.as_ref();
    let definition = kind
        .and_then(|kind| {
            api.read(&CUSTOM_RESOURCE_DEFINITIONS, None, &kind.definition)
                .ok()
        })
        .unwrap_or_default();
    let versions = object::items(&definition, &["spec", "versions"]);
    let version = versions
        .iter()
        .find(|version| version["name"] == row.version);
    let source = version.map(|version| &version["schema"]["openAPIV3Schema"]);
    let gvk = |kind: &str| json!([{"group": row.group, "version": row.version, "kind": kind}]);
    let mut object = source.map_or_else(|| json!({"type": "object"}), |source| publish(source, 0));
    with_meta(&mut object);
    object["x-kubernetes-group-version-kind"] = gvk(row.kind);
    let list_kind = object::text(&definition, &["spec", "names", "listKind"]);
    let list = json!({
        "description": format!("{} is a list of {}", list_kind, row.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"allOf": [{"$ref": reference(&format!("{META}.ListMeta"))}],
                "description": "Standard list metadata."},
            "items": {"type": "array", "items": {"allOf": [{"$ref": reference(&name)}]},
                "description": format!("List of {}.", row.plural)},
        },
        "x-kubernetes-group-version-kind": gvk(list_kind),
    });
    let list_meta = (format!("{META}.ListMeta"), list_meta());
    vec![(format!("{name}List"), list), (name, object), list_meta]
}

/// Lists have no types in the schema table, so neither has their metadata.
fn list_meta() -> Value {
    json!({
        "description": "ListMeta describes metadata that synthetic resources must have, including \
                        lists and various status objects. A resource may have only one of \
                        {ObjectMeta, ListMeta}.",
        "type": "object",
        "properties": {
            "continue": {"type": "string"},
            "remainingItemCount": {"type": "integer", "format": "int64"},
            "resourceVersion": {"type": "string"},
            "selfLink": {"type": "string"},
        },
    })
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an \
    object. Servers should convert recognized schemas to the latest internal value, and may reject \
    unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. \
    Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In \
    CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// The fields that an object has, whatever its schema says.
fn with_meta(schema: &mut Value) {
    let properties = object::map_mut(schema, "properties");
    properties.insert(
        "apiVersion".into(),
        json!({"type": "string", "description": API_VERSION}),
    );
    properties.insert(
        "kind".into(),
        json!({"type": "string", "description": KIND}),
    );
    properties.insert(
        "metadata".into(),
        json!({"allOf": [{"$ref": reference(&format!("{META}.ObjectMeta"))}],
            "description": "Standard object's metadata. More info: \
                            https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"}),
    );
}

/// A schema as it is published: without what only the server needs, and without what is false.
fn publish(source: &Value, level: usize) -> Value {
    let Some(source) = source.as_object().filter(|_| level < LEVELS_MAX) else {
        return json!({});
    };
    let below = level + 1;
    let mut out = Map::new();
    for (name, value) in source {
        let value = match (name.as_str(), value) {
            (_, Value::Bool(false) | Value::Null) => continue,
            ("properties", Value::Object(map)) => {
                let all = map
                    .iter()
                    .map(|(name, one)| (name.clone(), publish(one, below)));
                Value::Object(all.collect())
            }
            ("items" | "not" | "additionalProperties", Value::Object(_)) => publish(value, below),
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                all.iter().map(|one| publish(one, below)).collect()
            }
            (_, value) => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    let mut out = Value::Object(out);
    if source.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        with_meta(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_false_is_left_out_and_embedded_objects_have_metadata() {
        let source = json!({"type": "object", "nullable": false, "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "string", "nullable": true}}}});
        let published = publish(&source, 0);
        assert!(published.get("nullable").is_none());
        assert_eq!(published["properties"]["list"]["items"]["nullable"], true);
        let template = &published["properties"]["template"]["properties"];
        assert_eq!(template["kind"]["type"], "string");
    }
}
