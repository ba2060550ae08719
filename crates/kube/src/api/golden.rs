//! Writes as a genuine control plane of version 1.36 answered them: every answer whole, with its
//! owners of fields, but for what differs from run to run.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, Part, Patch, WriteOptions};
use crate::identity::User;
use crate::object;
use crate::resource::Row;
use crate::status::Status;

/// What the recorded answers are without: times, ids and revisions.
fn comparable(mut answer: Value) -> Value {
    if answer["kind"] == "Status" {
        return answer;
    }
    let meta = object::meta_mut(&mut answer);
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        meta.remove(field);
    }
    if let Some(entries) = meta.get_mut("managedFields").and_then(Value::as_array_mut) {
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
    }
    answer
}

async fn answer(api: &Api, row: &Row, name: &str, step: &Value) -> Result<(u16, Value), Status> {
    let namespace = Some("default");
    let body = step["body"].clone();
    let options = WriteOptions::default();
    let part = match object::text(step, &["subresource"]) {
        "/status" => Part::Status,
        _ => Part::Object,
    };
    let written = match object::text(step, &["method"]) {
        "POST" => api.create_with(row, namespace, body, options).await?,
        "PUT" => {
            api.update_with(row, part, namespace, name, body, options)
                .await?
        }
        _ => {
            let patch = match object::text(step, &["contentType"]) {
                "application/json-patch+json" => Patch::json(body)?,
                "application/merge-patch+json" => Patch::Merge(body),
                "application/strategic-merge-patch+json" => Patch::Strategic(body),
                _ => Patch::Apply { object: body },
            };
            api.patch_with(row, part, namespace, name, &patch, options)
                .await?
        }
    };
    let code = if written.is_new { 201 } else { 200 };
    Ok((code, written.object))
}

#[tokio::test]
async fn writes_are_answered_as_a_real_server_answered_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store::Store::open(&store::Config::new(dir.path().join("kube.db"))).expect("opens");
    let api = Api::new(store);
    api.bootstrap().await.expect("namespaces");
    let cases = include_str!("../../testdata/patch-apply-golden.json");
    // Our Services have IPv6 addresses; that server's had IPv4.
    let cases = cases
        .replace("IPv4", "IPv6")
        .replace("10.43.9.9", "fd00::9");
    let cases: Vec<Value> = serde_json::from_str(&cases).expect("JSON");
    let mut wrong = Vec::new();
    for case in &cases {
        let path: Vec<_> = object::text(case, &["collection"]).split('/').collect();
        let (group, version) = match path[..] {
            ["", "apis", group, version, ..] => (group, version),
            _ => ("", "v1"),
        };
        let plural = path.last().expect("a path");
        let row = api
            .resources()
            .find(group, version, plural)
            .expect("served");
        let steps = object::items(case, &["steps"]);
        let name = object::name(&steps[0]["body"]);
        for (number, step) in steps.iter().enumerate() {
            let query = object::text(step, &["query"]);
            let manager = query.strip_prefix("fieldManager=").unwrap_or("golden");
            let api = api.acting_as(Arc::new(User::server()), manager);
            let (code, answer) = match answer(&api, &row, name, step).await {
                Ok(answer) => answer,
                Err(status) => (status.code, status.to_json()),
            };
            let (expected, answer) = (comparable(step["result"].clone()), comparable(answer));
            if json!(code) != step["code"] || answer != expected {
                let case = object::text(case, &["name"]);
                wrong.push(format!(
                    "{case}, step {number}: {code}\n  expected {expected}\n  answered {answer}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
