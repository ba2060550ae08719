//! Webhooks as the API meets them: what conformance asks of them beside what `tests/admission`
//! shows in one process.

use serde_json::{Value, json};

use super::http::{Answer, Http, Sent};
use crate::common::TestServer;
use crate::hook::{Hook, patch};
use crate::kubelet;

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SHOPS: &str = "/apis/example.org/v1/namespaces/default/shops";

struct World {
    server: TestServer,
    http: Http,
}

impl World {
    async fn start() -> Self {
        let server = TestServer::start().await;
        kubelet::start(&server.api);
        let http = Http::new(&server);
        Self { server, http }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.http.send(&Sent::new(method, path, &body)).await
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let answer = self.send("POST", path, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    /// Why something is not let in.
    async fn refused(&self, method: &str, path: &str, body: &Value) -> String {
        let answer = self.send(method, path, body).await;
        assert!(
            answer.status >= 400,
            "{method} {path} was let in: {}",
            answer.text
        );
        let message = answer.json()["message"].clone();
        message.as_str().unwrap_or_default().to_owned()
    }

    /// A definition of shops whose versions have the fields `color` and `size` in their data, once
    /// they are served.
    async fn shops(&self, stored: &str) {
        let version = |name: &str| {
            json!({"name": name, "served": true, "storage": name == stored, "schema":
                {"openAPIV3Schema": {"type": "object", "properties": {"data": {"type": "object",
                    "properties": {"color": {"type": "string"}, "size": {"type": "string"}}}}}}})
        };
        let definition = json!({"metadata": {"name": "shops.example.org"}, "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "shops", "singular": "shop", "kind": "Shop"},
            "versions": [version("v1"), version("v2")]}});
        self.made(DEFINITIONS, definition).await;
        for _ in 0..300 {
            if self.send("GET", SHOPS, &Value::Null).await.status == 200 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("shops are not served");
    }
}

fn webhook(name: &str, hook: &Hook, group: &str, resource: &str) -> Value {
    json!({"name": format!("{name}.example.com"), "clientConfig": hook.by_url(),
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
        "rules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
            "operations": ["*"]}]})
}

fn configuration(name: &str, webhook: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"set": "s"}}, "webhooks": [webhook]})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

/// Denies what says that it is bad, and the deletion of what says that it stays.
fn guard(request: &Value) -> Value {
    let is_bad = request["object"]["data"]["color"] == "bad"
        || (request["operation"] == "DELETE" && request["oldObject"]["data"]["size"] == "stays");
    json!({"allowed": !is_bad, "status": {"message": "the custom resource data is bad"}})
}

fn denies(_: &Value) -> Value {
    json!({"allowed": false, "status": {"message": "not here"}})
}

fn marks(request: &Value) -> Value {
    if !request["object"]["data"].is_object() {
        return json!({"allowed": true});
    }
    patch(
        &json!([{"op": "add", "path": "/data/color", "value": "marked"},
        {"op": "add", "path": "/data/unknown", "value": "pruned"}]),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_to_a_pod_may_be_denied() {
    let world = World::start().await;
    let hook = Hook::start(denies).await;
    let mut webhook = webhook("attach", &hook, "", "pods/attach");
    webhook["rules"][0]["operations"] = json!(["CONNECT"]);
    world
        .made(VALIDATING, configuration("attach", webhook))
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i"}]}});
    for _ in 0..100 {
        // Until its service account is there.
        if world.send("POST", pods, &pod).await.status == 201 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let path = format!("{pods}/p/attach?container=c&stdout=true");
    let message = world.refused("GET", &path, &Value::Null).await;
    let expected = "admission webhook \"attach.example.com\" denied the request: not here";
    assert_eq!(message, expected);
    let asked = &hook.asked()[0];
    assert_eq!(
        (
            &asked["operation"],
            &asked["subResource"],
            &asked["object"]["kind"]
        ),
        (
            &json!("CONNECT"),
            &json!("attach"),
            &json!("PodAttachOptions")
        )
    );
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_may_be_denied_when_they_come_change_and_go() {
    let world = World::start().await;
    world.shops("v1").await;
    let hook = Hook::start(guard).await;
    let webhook = webhook("shops", &hook, "example.org", "shops");
    world
        .made(VALIDATING, configuration("shops", webhook))
        .await;
    let shop = |name: &str, data: Value| {
        json!({"apiVersion": "example.org/v1", "kind": "Shop", "metadata": {"name": name},
            "data": data})
    };
    let bad = shop("bad", json!({"color": "bad"}));
    let expected = "admission webhook \"shops.example.com\" denied the request: the custom resource data is \
         bad";
    assert_eq!(world.refused("POST", SHOPS, &bad).await, expected);
    world
        .made(SHOPS, shop("stays", json!({"size": "stays"})))
        .await;
    let path = format!("{SHOPS}/stays");
    let change = json!({"data": {"color": "bad"}});
    assert_eq!(world.refused("PATCH", &path, &change).await, expected);
    assert_eq!(world.refused("DELETE", &path, &Value::Null).await, expected);
    let change = json!({"data": {"size": "goes"}});
    assert_eq!(world.send("PATCH", &path, &change).await.status, 200);
    assert_eq!(world.send("DELETE", &path, &Value::Null).await.status, 200);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_may_be_denied() {
    let world = World::start().await;
    let hook = Hook::start(denies).await;
    let webhook = webhook(
        "crd",
        &hook,
        "apiextensions.k8s.io",
        "customresourcedefinitions",
    );
    world.made(VALIDATING, configuration("crd", webhook)).await;
    let definition = json!({"metadata": {"name": "shops.example.org"}, "spec": {
        "group": "example.org", "scope": "Namespaced",
        "names": {"plural": "shops", "singular": "shop", "kind": "Shop"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema":
            {"openAPIV3Schema": {"type": "object"}}}]}});
    let message = world.refused("POST", DEFINITIONS, &definition).await;
    assert_eq!(
        message,
        "admission webhook \"crd.example.com\" denied the request: not here"
    );
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_are_listed_and_deleted_together() {
    let world = World::start().await;
    let (guarding, marking) = (Hook::start(denies).await, Hook::start(marks).await);
    for (path, hook) in [(VALIDATING, &guarding), (MUTATING, &marking)] {
        for name in ["one", "two"] {
            let webhook = webhook(name, hook, "", "configmaps");
            world.made(path, configuration(name, webhook)).await;
        }
        let selected = format!("{path}?labelSelector=set%3Ds");
        let listed = world.send("GET", &selected, &Value::Null).await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    }
    world.refused("POST", MAPS, &map("denied")).await;
    let selected = format!("{VALIDATING}?labelSelector=set%3Ds");
    assert_eq!(
        world.send("DELETE", &selected, &Value::Null).await.status,
        200
    );
    let marked = world.made(MAPS, map("marked")).await;
    assert_eq!(marked["data"]["color"], "marked");
    let selected = format!("{MUTATING}?labelSelector=set%3Ds");
    assert_eq!(
        world.send("DELETE", &selected, &Value::Null).await.status,
        200
    );
    let plain = world.made(MAPS, map("plain")).await;
    assert_eq!(plain["data"], json!({"a": "1"}));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_configuration_counts_from_the_next_request_on() {
    let world = World::start().await;
    let (guarding, marking) = (Hook::start(denies).await, Hook::start(marks).await);
    let operations = |only: &str| json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": [only]}]);
    for (path, hook) in [(VALIDATING, &guarding), (MUTATING, &marking)] {
        let webhook = webhook("maps", hook, "", "configmaps");
        let mut made = world.made(path, configuration("maps", webhook)).await;
        let path = format!("{path}/maps");
        // By a PUT nothing is asked when something is made, by a patch it is again.
        made["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        assert_eq!(world.send("PUT", &path, &made).await.status, 200);
    }
    let plain = world.made(MAPS, map("plain")).await;
    assert_eq!(plain["data"], json!({"a": "1"}));
    let again = |path: &str| {
        let mut sent = Sent::new("PATCH", &format!("{path}/maps"), "");
        sent.body = operations("CREATE").to_string();
        sent.media = "application/json-patch+json".to_owned();
        sent
    };
    assert_eq!(world.http.send(&again(MUTATING)).await.status, 200);
    let marked = world.made(MAPS, map("marked")).await;
    assert_eq!(marked["data"]["color"], "marked");
    assert_eq!(world.http.send(&again(VALIDATING)).await.status, 200);
    let message = world.refused("POST", MAPS, &map("denied")).await;
    assert_eq!(
        message,
        "admission webhook \"maps.example.com\" denied the request: not here"
    );
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_changed_and_pruned_in_any_of_their_versions() {
    let world = World::start().await;
    world.shops("v1").await;
    let hook = Hook::start(marks).await;
    let webhook = webhook("shops", &hook, "example.org", "shops");
    world.made(MUTATING, configuration("shops", webhook)).await;
    let shop = json!({"apiVersion": "example.org/v1", "kind": "Shop",
        "metadata": {"name": "one"}, "data": {"size": "s"}});
    let made = world.made(SHOPS, shop).await;
    // What the schema does not know is taken out of what a webhook adds, too.
    assert_eq!(made["data"], json!({"color": "marked", "size": "s"}));
    // Another version is stored from now on; the webhook still speaks the first.
    let definition = format!("{DEFINITIONS}/shops.example.org");
    let mut sent = Sent::new("PATCH", &definition, "");
    sent.body = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}])
    .to_string();
    sent.media = "application/json-patch+json".to_owned();
    assert_eq!(world.http.send(&sent).await.status, 200);
    let path = format!("{SHOPS}/one");
    let change = json!({"data": {"size": "m", "color": "own"}});
    let changed = world.send("PATCH", &path, &change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let expected = json!({"color": "marked", "size": "m"});
    assert_eq!(changed.json()["data"], expected);
    let other = "/apis/example.org/v2/namespaces/default/shops/one";
    let shown = world.send("GET", other, &Value::Null).await.json();
    assert_eq!(
        (&shown["apiVersion"], &shown["data"]),
        (&json!("example.org/v2"), &expected)
    );
    world.server.stop().await;
}
