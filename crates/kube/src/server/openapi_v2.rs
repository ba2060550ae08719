//! OpenAPI v2, for clients that ask for nothing newer: as JSON, and in the protobuf form of gnostic
//! that kubectl up to 1.28 asks for.
//!
//! It is made from the documents of version 3, which say more; what version 2 cannot say is left
//! out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::openapi;
use crate::api::Api;
use crate::resource::Snapshot;

/// What gnostic's protobuf is asked for by.
pub(super) const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document of everything that is served.
pub(super) fn document(api: &Api, served: &Snapshot) -> Value {
    let mut paths = Map::new();
    let mut definitions = BTreeMap::new();
    for (group, version) in served.group_versions() {
        let document = openapi::render(api, served, group, version);
        let Value::Object(mut document) = document else {
            continue;
        };
        if let Some(Value::Object(all)) = document.remove("paths") {
            paths.extend(all.into_iter().map(|(path, item)| (path, path_item(item))));
        }
        let schemas = document
            .remove("components")
            .map(|mut found| found["schemas"].take());
        if let Some(Value::Object(all)) = schemas {
            definitions.extend(all.into_iter().map(|(name, one)| (name, schema(one))));
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": openapi::VERSION},
        "paths": paths, "definitions": definitions,
    })
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else {
        return item;
    };
    let all = item
        .into_iter()
        .map(|(method, operation)| (method, self::operation(operation)));
    Value::Object(all.collect())
}

fn operation(mut operation: Value) -> Value {
    let Some(map) = operation.as_object_mut() else {
        return operation;
    };
    let mut parameters = Vec::new();
    if let Some(Value::Array(given)) = map.remove("parameters") {
        for mut parameter in given {
            parameter["type"] = "string".into();
            parameter["uniqueItems"] = true.into();
            if let Some(parameter) = parameter.as_object_mut() {
                parameter.remove("schema");
            }
            parameters.push(parameter);
        }
    }
    let content = |found: &Value| {
        let content = found.get("content")?.as_object()?;
        let media: Vec<_> = content.keys().cloned().collect();
        Some((media, content.values().next()?["schema"].clone()))
    };
    if let Some((media, body)) = map.remove("requestBody").as_ref().and_then(content) {
        map.insert("consumes".into(), json!(media));
        parameters.push(json!({"in": "body", "name": "body", "required": true,
            "schema": schema(body)}));
    }
    if let Some(responses) = map.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut() {
            let found = content(response);
            if let Some(response) = response.as_object_mut() {
                response.remove("content");
                if let Some((_, body)) = found {
                    response.insert("schema".into(), schema(body));
                }
            }
        }
    }
    map.insert("produces".into(), json!(["application/json"]));
    if !parameters.is_empty() {
        map.insert("parameters".into(), parameters.into());
    }
    operation
}

/// A schema without what version 2 does not have.
fn schema(source: Value) -> Value {
    let Value::Object(source) = source else {
        return source;
    };
    let is_nullable = source.get("nullable") == Some(&Value::Bool(true));
    let is_open = source.contains_key("x-kubernetes-preserve-unknown-fields");
    let mut out = Map::new();
    for (name, value) in source {
        let value = match (name.as_str(), value) {
            ("$ref", Value::String(text)) => text
                .replace("#/components/schemas/", "#/definitions/")
                .into(),
            // A reference that was wrapped to stand beside its description.
            ("allOf", Value::Array(mut all)) if all.len() == 1 && all[0].get("$ref").is_some() => {
                if let Value::Object(inner) = schema(all.remove(0)) {
                    out.extend(inner);
                }
                continue;
            }
            ("properties", Value::Object(map)) => {
                let all = map.into_iter().map(|(name, one)| (name, schema(one)));
                Value::Object(all.collect())
            }
            ("items" | "additionalProperties", value) => schema(value),
            // kubectl of that time takes them for the whole schema; upstream leaves them out too.
            ("oneOf" | "anyOf" | "allOf" | "not" | "nullable", _) => continue,
            // What may be null, or holds what is not told, cannot be held against its type.
            ("type", _) if is_nullable => continue,
            (_, value) => value,
        };
        out.insert(name, value);
    }
    if is_nullable || is_open {
        out.remove("items");
        out.remove("properties");
    }
    Value::Object(out)
}

/// The definitions of a document, in protobuf: all that kubectl reads of it.
pub(super) fn protobuf(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, "2.0");
    let mut info = Vec::new();
    text(&mut info, 1, "Kubernetes");
    text(&mut info, 2, openapi::VERSION);
    bytes(&mut out, 2, &info);
    bytes(&mut out, 8, &[]);
    let mut definitions = Vec::new();
    for (name, schema) in document["definitions"].as_object().into_iter().flatten() {
        bytes(&mut definitions, 1, &named(name, &encode(schema)));
    }
    bytes(&mut out, 9, &definitions);
    out
}

/// Tags are those of `openapi.v2.Schema` in gnostic's OpenAPIv2.proto.
fn encode(schema: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in schema.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("$ref", Value::String(value)) => text(&mut out, 1, value),
            ("format", Value::String(value)) => text(&mut out, 2, value),
            ("title", Value::String(value)) => text(&mut out, 3, value),
            ("description", Value::String(value)) => text(&mut out, 4, value),
            ("default", value) => bytes(&mut out, 5, &any(value)),
            ("required", Value::Array(all)) => {
                all.iter()
                    .filter_map(Value::as_str)
                    .for_each(|one| text(&mut out, 19, one));
            }
            ("enum", Value::Array(all)) => {
                all.iter().for_each(|one| bytes(&mut out, 20, &any(one)));
            }
            ("additionalProperties", Value::Bool(value)) => {
                bytes(&mut out, 21, &[2 << 3, u8::from(*value)]);
            }
            ("additionalProperties", value) => {
                let mut item = Vec::new();
                bytes(&mut item, 1, &encode(value));
                bytes(&mut out, 21, &item);
            }
            ("type", Value::String(value)) => {
                let mut item = Vec::new();
                text(&mut item, 1, value);
                bytes(&mut out, 22, &item);
            }
            ("items", value) => {
                let mut item = Vec::new();
                bytes(&mut item, 1, &encode(value));
                bytes(&mut out, 23, &item);
            }
            ("properties", Value::Object(map)) => {
                let mut all = Vec::new();
                for (name, value) in map {
                    bytes(&mut all, 1, &named(name, &encode(value)));
                }
                bytes(&mut out, 25, &all);
            }
            (name, value) if name.starts_with("x-") => {
                bytes(&mut out, 31, &named(name, &any(value)));
            }
            _ => {}
        }
    }
    out
}

/// `NamedSchema` and `NamedAny`.
fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, name);
    bytes(&mut out, 2, value);
    out
}

/// `Any`, whose value is YAML; JSON is.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 2, &value.to_string());
    out
}

fn text(out: &mut Vec<u8>, tag: u8, value: &str) {
    bytes(out, tag, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    varint(out, (usize::from(tag) << 3) | 2);
    varint(out, value.len());
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_what_it_can() {
        let source = json!({"type": "object", "properties": {
            "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}], "description": "m"},
            "maybe": {"type": "string", "nullable": true},
            "port": {"oneOf": [{"type": "integer"}], "x-kubernetes-int-or-string": true}}});
        assert_eq!(
            schema(source),
            json!({"type": "object", "properties": {
            "metadata": {"$ref": "#/definitions/Meta", "description": "m"},
            "maybe": {},
            "port": {"x-kubernetes-int-or-string": true}}})
        );
    }

    #[test]
    fn protobuf_is_tags_lengths_and_texts() {
        let document = json!({"definitions": {"A": {"type": "object", "x-a": [1]}}});
        let found = protobuf(&document);
        let schema = b"\xb2\x01\x08\x0a\x06object\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]";
        assert!(found.ends_with(schema), "{found:x?}");
    }
}
