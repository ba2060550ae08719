//! The OpenAPI document of this API, made of the table of routes and the types of its bodies.

use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use types::api::ErrorBody;

use super::not_built;
use super::routes::{self, Content, Route};

/// `GET /v1/openapi.json`
pub(super) async fn answer() -> impl IntoResponse {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| document().to_string().into());
    ([(CONTENT_TYPE, "application/json")], document.clone())
}

/// OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let operation = operation(&route, &mut generator);
        let method = route.method.as_str().to_ascii_lowercase();
        insert(&mut paths, route.path, &method, operation);
    }
    for (methods, path, feature) in not_built::PATHS {
        for method in methods.split(' ').filter(|method| *method != "ANY") {
            let method = method.to_ascii_lowercase();
            insert(&mut paths, path, &method, absent(path, feature));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Aerostat's Machines API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Paths, bodies and errors of apps and machines are those that Fly.io \
                publishes; the rest is Aerostat's own.",
        },
        "servers": [{"url": "http://127.0.0.1:4280"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {"Error": {
                "description": "What was asked for was not done",
                "content": {"application/json": {"schema": error}},
            }},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let methods = paths
        .entry(path)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(methods) = methods.as_object_mut() {
        methods.insert(method.to_owned(), operation);
    }
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let query = route.query.iter().map(|(name, what)| {
        json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}})
    });
    let headers = route.headers.iter().map(|(name, what)| {
        json!({"name": name, "in": "header", "description": what, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = names_in(route.path).chain(query).chain(headers).collect();
    let mut answers = Map::new();
    for (code, content) in &route.answers {
        let mut answer = json!({"description": "Done"});
        if let Some(content) = content {
            answer["content"] = media(*content, generator);
        }
        answers.insert(code.to_string(), answer);
    }
    answers.insert(
        "default".into(),
        json!({"$ref": "#/components/responses/Error"}),
    );
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": answers,
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({"content": media(body, generator)});
    }
    operation
}

fn media(content: Content, generator: &mut SchemaGenerator) -> Value {
    let schema = content.schema.map(|schema| schema(generator));
    let described = match schema {
        Some(schema) => json!({"schema": schema}),
        None => json!({}),
    };
    json!({content.media: described})
}

fn absent(path: &str, feature: &str) -> Value {
    json!({
        "summary": format!("Not built: {feature}"),
        "parameters": names_in(path).collect::<Vec<_>>(),
        "responses": {"501": {"$ref": "#/components/responses/Error"}},
        "x-not-built": true,
    })
}

/// What stands in braces in a path.
fn names_in(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.trim_start_matches('*'))
    });
    names.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    )
}
