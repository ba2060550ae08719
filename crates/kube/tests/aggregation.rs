//! Groups that another API server answers for, as clients of ours see them.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use common::tls::{OnLoopback, TlsServer};
use common::{TestServer, kubectls};
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, StatusCode};
use kube::api::{DeleteOptions, Selector};
use kube::resource::API_SERVICES;
use serde_json::{Value, json};

/// A server of `flowers.example.com/v1`, and what it was asked.
async fn flowers() -> (TlsServer, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let asked: Arc<Mutex<Vec<_>>> = Arc::default();
    let heard = asked.clone();
    let server = TlsServer::start(&["flowers.default.svc"], move |request| {
        let answer = answer(&request);
        let seen = (request.uri().path().to_owned(), request.headers().clone());
        heard.lock().expect("no panic").push(seen);
        std::future::ready(answer)
    });
    (server.await, asked)
}

fn answer(request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let rose = json!({"kind": "Flower", "apiVersion": "flowers.example.com/v1",
        "metadata": {"name": "rose", "namespace": "default"}});
    let value = match request.uri().path() {
        "/apis/flowers.example.com/v1" => json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "flowers.example.com/v1", "resources": [
                {"name": "flowers", "singularName": "flower", "namespaced": true, "kind": "Flower",
                    "verbs": ["get", "list"], "shortNames": ["fl"]}]}),
        "/apis/flowers.example.com/v1/namespaces/default/flowers/rose" => rose,
        _ => Value::Null,
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    if value.is_null() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

async fn available(server: &TestServer, name: &str) -> String {
    let found = server.api.get(&API_SERVICES, None, name).await;
    let object = found.unwrap_or_default();
    let condition = &object["status"]["conditions"][0];
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    format!("{} {}", text("status"), text("reason"))
}

async fn eventually(server: &TestServer, name: &str, expected: &str) {
    for _ in 0..600 {
        if available(server, name).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is {}", available(server, name).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_servers_group_is_found_asked_and_missed_when_it_is_gone() {
    let (flowers, asked) = flowers().await;
    let port = flowers.port;
    let server = TestServer::start_with(|api| {
        let resolver = Arc::new(OnLoopback(port));
        api.with_services(resolver, None).expect("fine")
    })
    .await;
    eventually(&server, "v1.apps", "True Local").await;
    let name = "v1.flowers.example.com";
    let service = json!({"metadata": {"name": name}, "spec": {
        "group": "flowers.example.com", "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 10,
        "caBundle": flowers.bundle(),
        "service": {"namespace": "default", "name": "flowers", "port": 443}}});
    server
        .api
        .create(&API_SERVICES, None, service)
        .await
        .expect("created");
    eventually(&server, name, "True Passed").await;
    let Some(kubectl) = kubectls().pop() else {
        eprintln!("SKIPPED: another_servers_group: no kubectl");
        return;
    };
    let resources = server.ok(&kubectl, &["api-resources"]).await;
    assert!(resources.contains("flowers.example.com/v1"), "{resources}");
    let path = "/apis/flowers.example.com/v1/namespaces/default/flowers/rose";
    let rose = server.ok(&kubectl, &["get", "--raw", path]).await;
    assert!(rose.contains("\"rose\""), "{rose}");
    let all = asked.lock().expect("no panic").clone();
    let (_, headers) = all.iter().find(|(asked, _)| asked == path).expect("asked");
    assert_eq!(headers["x-remote-user"], "kubernetes-admin");
    let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
    assert!(groups.contains(&&hyper::header::HeaderValue::from_static("system:masters")));
    let mut gone = server
        .api
        .get(&API_SERVICES, None, name)
        .await
        .expect("there");
    gone["spec"]["caBundle"] = json!(BASE64_STANDARD.encode("nonsense"));
    server
        .api
        .update(&API_SERVICES, None, gone)
        .await
        .expect("changed");
    eventually(&server, name, "False FailedDiscoveryCheck").await;
    let error = server.fails(&kubectl, &["get", "--raw", path]).await;
    assert!(
        error.contains("currently unable to handle the request")
            || error.contains("service unavailable"),
        "{error}"
    );
    let now = DeleteOptions::now();
    server
        .api
        .delete(&API_SERVICES, None, name, &now)
        .await
        .expect("gone");
    let (left, _) = server
        .api
        .list(&API_SERVICES, None, &Selector::default())
        .await
        .expect("list");
    assert!(left.len() > 10, "our own stay");
    server.stop().await;
}
