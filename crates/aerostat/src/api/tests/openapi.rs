//! The documents: ours knows every route, and every path of Fly's is answered here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fixture::server;
use super::schema::Document;
use crate::api::openapi::document;
use crate::api::{not_built, routes};

/// What Fly.io publishes.
pub(super) fn official() -> Document {
    let text = include_str!("../../../tests/data/fly-machines-openapi.json");
    Document(serde_json::from_str(text).unwrap())
}

#[test]
fn our_document_has_every_route_and_every_reference_leads_somewhere() {
    let ours = Document(document());
    for route in routes::all() {
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &ours.0["paths"][route.path][&method];
        assert_eq!(
            operation["summary"], route.summary,
            "{method} {}",
            route.path
        );
        assert!(!route.answers.is_empty(), "{method} {}", route.path);
    }
    ours.check_references();
    let built: BTreeSet<_> = routes::all()
        .iter()
        .map(|route| (route.method.to_string(), route.path))
        .collect();
    for (methods, path, _) in not_built::PATHS {
        for method in methods.split(' ') {
            assert!(
                !built.contains(&(method.to_owned(), *path)),
                "{method} {path} is built"
            );
        }
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let server = server().await;
    let (status, answer) = server.ask("GET", "/v1/openapi.json", "").await;
    assert_eq!((status, &answer["openapi"]), (200, &Value::from("3.1.0")));
    assert!(answer["components"]["schemas"]["Machine"].is_object());
}

#[tokio::test]
async fn every_path_of_fly_s_document_is_built_or_said_to_be_absent() {
    let server = server().await;
    let app = server.app("web").await;
    let machine = server.started(&app, "one").await;
    let official = official();
    let mut asked = 0;
    for (template, operations) in official.0["paths"].as_object().unwrap() {
        let path = template
            .replace("{app_name}", "web")
            .replace("{machine_id}", machine.id.as_str())
            .replace("{org_slug}", "personal");
        let path = path.replace(['{', '}'], "");
        for method in operations.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            // Without what it needs: an answer that refuses is an answer, and nothing changes.
            let (status, body) = server.ask(&method, &format!("/v1{path}"), "[]").await;
            let word = body["status"].as_str().unwrap_or_default();
            let absent = ["no_such_path", "no_such_method"].contains(&word);
            assert!(
                !absent,
                "{method} {template} is answered with {status} {body}"
            );
            assert_eq!(
                status == 501,
                word == "not_built",
                "{method} {template}: {body}"
            );
            asked += 1;
        }
    }
    assert_eq!(asked, 76);
}
