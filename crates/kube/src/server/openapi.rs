//! OpenAPI v3, rendered from the schema table: for `kubectl explain`, and for `apply`, which finds
//! out there what the server can do.
//!
//! A document is rendered at every call: clients keep it by its hash, so that is once per client,
//! and a megabyte of text is not held for them.

mod custom;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::body::Body;
use super::query::Query;
use super::respond;
use crate::api::Api;
use crate::resource::{Resource, Snapshot};
use crate::schema::{self, Field, Kind, Scalar, Type};
use crate::status::Status;

pub const VERSION: &str = "v1.36.0";
pub(super) const MINOR: &str = "36";
/// Changes whenever the rendering below does, so that clients forget what they have kept.
const RENDERING: &str = "2";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

fn key(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Changes with all that a document depends on: the table, and the definitions of its rows.
fn hash(served: &Snapshot, group: &str, version: &str) -> String {
    let key = key(group, version);
    let seed = format!("{VERSION} {RENDERING} {} {key}", env!("CARGO_PKG_VERSION"));
    let mut digest = Sha256::new()
        .chain_update(seed)
        .chain_update(schema::fingerprint());
    for row in served.rows() {
        if (row.group, row.version) == (group, version)
            && let Some(kind) = &row.custom
        {
            digest.update(kind.fingerprint);
        }
    }
    let digest = digest.finalize();
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(super) fn index(served: &Snapshot) -> Value {
    let paths: Map<_, _> = served
        .group_versions()
        .into_iter()
        .map(|(group, version)| {
            let key = key(group, version);
            let url = format!("/openapi/v3/{key}?hash={}", hash(served, group, version));
            (key, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({ "paths": paths })
}

pub(super) fn document(
    api: &Api,
    served: &Snapshot,
    path: &str,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let found = served
        .group_versions()
        .into_iter()
        .find(|(group, version)| key(group, version) == path);
    let (group, version) = found.ok_or_else(Status::no_such_resource)?;
    let mut response = respond::json(StatusCode::OK, &render(api, served, group, version));
    if query.get("hash") == hash(served, group, version) {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    Ok(response)
}

pub(super) fn render(api: &Api, served: &Snapshot, group: &str, version: &str) -> Value {
    let rows = || {
        let all = served.rows().iter();
        all.filter(|row| (row.group, row.version) == (group, version))
    };
    let mut paths = Map::new();
    for row in rows() {
        operations(row, &mut paths);
    }
    let mut kinds: HashMap<&str, Vec<Value>> = HashMap::new();
    for row in rows() {
        if row.custom.is_none() {
            kinds.entry(row.schema).or_default().push(gvk(row));
        }
    }
    let mut renderer = Renderer {
        descriptions: schema::descriptions(),
        ..Renderer::default()
    };
    for row in rows() {
        renderer.include(row.schema);
    }
    renderer.include(super::options::DELETE_OPTIONS);
    if rows().any(|row| row.custom.is_some()) {
        renderer.include(&format!("{META}.ObjectMeta"));
    }
    let mut schemas = renderer.schemas;
    for row in rows().filter(|row| row.custom.is_some()) {
        schemas.extend(custom::schemas(api, row));
    }
    for (name, gvks) in kinds {
        if let Some(schema) = schemas.get_mut(name) {
            schema["x-kubernetes-group-version-kind"] = gvks.into();
        }
    }
    for (name, schema) in scalars() {
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn gvk(row: &Resource) -> Value {
    json!({"group": row.group, "version": row.version, "kind": row.kind})
}

/// The name of the type of a resource.
fn type_name(row: &Resource) -> Cow<'static, str> {
    match row.custom {
        Some(_) => custom::type_name(row).into(),
        None => row.schema.into(),
    }
}

/// The operations by which kubectl recognises kinds and their query parameters.
fn operations(row: &Resource, paths: &mut Map<String, Value>) {
    let root = format!("/{}", key(row.group, row.version));
    let body = json!({"$ref": format!("#/components/schemas/{}", type_name(row))});
    let answer = json!({"200": {"description": "OK",
        "content": {"application/json": {"schema": body}}}});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let operation = |action: &str, verb: &str, media: &[&str]| {
        let mut operation = json!({
            "operationId": format!("{action}{}{}{}", capital(row.group), capital(row.version), row.kind),
            "responses": answer, "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": gvk(row),
        });
        if !media.is_empty() {
            let content: Map<_, _> = media
                .iter()
                .map(|one| ((*one).to_owned(), json!({"schema": body})))
                .collect();
            operation["requestBody"] = json!({"required": true, "content": content});
            operation["parameters"] = ["dryRun", "fieldManager", "fieldValidation"]
                .map(parameter)
                .to_vec()
                .into();
        }
        operation
    };
    let json_body = &["application/json"][..];
    let patches = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ][..];
    // Custom resources have no patch strategies.
    let custom_patches = &[patches[0], patches[1], patches[3]][..];
    let patches = if row.custom.is_some() {
        custom_patches
    } else {
        patches
    };
    let has = |verb: &str| row.verbs.contains(&verb);
    let mut collection = Map::new();
    let mut item = Map::new();
    let add = |at: &mut Map<String, Value>, verb: &str, method: &str, media| {
        if has(verb) {
            at.insert(method.into(), operation(verb, verb, media));
        }
    };
    add(&mut collection, "list", "get", &[]);
    add(&mut collection, "create", "post", json_body);
    add(&mut item, "get", "get", &[]);
    add(&mut item, "update", "put", json_body);
    add(&mut item, "patch", "patch", patches);
    add(&mut item, "delete", "delete", &[]);
    let base = if row.is_namespaced() {
        format!("{root}/namespaces/{{namespace}}")
    } else {
        root.clone()
    };
    if row.is_namespaced() && has("list") {
        let all = json!({"get": operation("listForAllNamespaces", "list", &[])});
        paths.insert(format!("{root}/{}", row.plural), all);
    }
    paths.insert(format!("{base}/{}", row.plural), collection.into());
    if !item.is_empty() {
        paths.insert(format!("{base}/{}/{{name}}", row.plural), item.into());
    }
}

fn capital(text: &str) -> String {
    let text = text.split('.').next().unwrap_or_default();
    let text = if text.is_empty() { "core" } else { text };
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[derive(Default)]
struct Renderer {
    descriptions: HashMap<(String, String), String>,
    seen: HashSet<&'static str>,
    schemas: BTreeMap<String, Value>,
}

impl Renderer {
    /// Renders a type and all it refers to.
    fn include(&mut self, name: &str) {
        if let Some(found) = schema::type_named(name) {
            self.include_type(found.get());
        }
    }

    fn include_type(&mut self, found: &'static Type) {
        if !self.seen.insert(found.name) {
            return;
        }
        let mut properties = Map::new();
        for field in &found.fields {
            properties.insert(field.name.into(), self.property(found, field));
            if let Some(inner) = message_in(&field.kind) {
                self.include_type(inner);
            }
        }
        let mut rendered = json!({"type": "object"});
        if !properties.is_empty() {
            rendered["properties"] = properties.into();
        }
        let required: Vec<_> = found
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name)
            .collect();
        if !required.is_empty() {
            rendered["required"] = json!(required);
        }
        if found.atomic {
            rendered["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(text) = self.description(found.name, "") {
            rendered["description"] = text.into();
        }
        self.schemas.insert(found.name.to_owned(), rendered);
    }

    fn description(&self, owner: &str, field: &str) -> Option<&str> {
        let text = self
            .descriptions
            .get(&(owner.to_owned(), field.to_owned()))?;
        Some(text.as_str()).filter(|text| !text.is_empty())
    }

    fn property(&self, owner: &Type, field: &Field) -> Value {
        let mut rendered = kind(&field.kind);
        // What stands beside a reference is ignored, so it is wrapped.
        if rendered.get("$ref").is_some() {
            rendered = json!({ "allOf": [rendered] });
        }
        if let Some(text) = self.description(owner.name, field.name) {
            rendered["description"] = text.into();
        }
        if let Some((list_type, keys)) = field.list_type() {
            let is_list = matches!(field.kind, Kind::List(_));
            let marker = if is_list {
                "x-kubernetes-list-type"
            } else {
                "x-kubernetes-map-type"
            };
            rendered[marker] = list_type.into();
            if !keys.is_empty() {
                rendered["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
        if let Some(strategy) = field.patch_strategy() {
            rendered["x-kubernetes-patch-strategy"] = strategy.into();
        }
        if let Some(key) = field.merge_key() {
            rendered["x-kubernetes-patch-merge-key"] = key.into();
        }
        rendered
    }
}

fn message_in(kind: &Kind) -> Option<&'static Type> {
    match kind {
        Kind::Scalar(_) => None,
        Kind::Message(schema) => Some(schema.get()),
        Kind::List(item) | Kind::Map(item) => message_in(item),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn kind(shape: &Kind) -> Value {
    match shape {
        Kind::Message(schema) => reference(schema.get().name),
        Kind::List(item) => json!({"type": "array", "items": kind(item)}),
        Kind::Map(item) => json!({"type": "object", "additionalProperties": kind(item)}),
        Kind::Scalar(scalar) => match scalar {
            Scalar::String => json!({"type": "string"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Bool => json!({"type": "boolean"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
            Scalar::Double => json!({"type": "number", "format": "double"}),
            Scalar::IntOrString => reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Scalar::Quantity => reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Scalar::Time => reference(&format!("{META}.Time")),
            Scalar::MicroTime => reference(&format!("{META}.MicroTime")),
            Scalar::Fields => reference(&format!("{META}.FieldsV1")),
            Scalar::Raw => json!({"type": "object"}),
            // What upstream cannot say in OpenAPI either.
            Scalar::Json
            | Scalar::SchemaOrArray
            | Scalar::SchemaOrBool
            | Scalar::SchemaOrStrings => json!({}),
        },
    }
}

/// The special scalars, which are types of their own in OpenAPI.
fn scalars() -> [(String, Value); 5] {
    [
        (
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
            json!({"format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        (
            "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
            json!({"oneOf": [{"type": "string"}, {"type": "number"}],
                "description": "A fixed-point number with a suffix: 100m, 1.5, 2Gi."}),
        ),
        (
            format!("{META}.Time"),
            json!({"type": "string", "format": "date-time"}),
        ),
        (
            format!("{META}.MicroTime"),
            json!({"type": "string", "format": "date-time"}),
        ),
        (format!("{META}.FieldsV1"), json!({"type": "object"})),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> (tempfile::TempDir, Api) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = store::Config::new(dir.path().join("kube.db"));
        (dir, Api::new(store::Store::open(&config).expect("opens")))
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_of_every_document_resolves() {
        let (_dir, api) = api();
        let served = api.resources().snapshot();
        for (group, version) in served.group_versions() {
            let document = render(&api, &served, group, version);
            let mut found = Vec::new();
            references(&document, &mut found);
            for reference in found {
                let name = reference
                    .strip_prefix("#/components/schemas/")
                    .expect("local");
                assert!(
                    document["components"]["schemas"].get(name).is_some(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn kubectl_finds_kinds_and_patch_keys() {
        let (_dir, api) = api();
        let document = render(&api, &api.resources().snapshot(), "", "v1");
        let pod = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["get"];
        assert_eq!(pod["x-kubernetes-group-version-kind"]["kind"], "Pod");
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(
            spec["properties"]["containers"]["x-kubernetes-patch-merge-key"],
            "name"
        );
    }
}
