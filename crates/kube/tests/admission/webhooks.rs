//! Webhooks: real servers on loopback, asked over TLS.

use std::sync::Arc;

use kube::api::{DeleteOptions, Part, Patch};
use kube::resource::{
    CONFIG_MAPS, MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, PODS, Resource,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
};
use serde_json::{Value, json};

use super::hook::{Hook, patch};
use super::world::{HERE, World, pod};
use crate::common::tls::OnLoopback;

/// A configuration of one webhook about configMaps, with more fields.
fn configuration(name: &str, client: &Value, more: &Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "*"}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        webhook[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "webhooks": [webhook]})
}

async fn register(world: &World, resource: &Resource, name: &str, hook: &Hook, more: Value) {
    world
        .made(resource, configuration(name, &hook.by_url(), &more))
        .await;
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn denies_bad(request: &Value) -> Value {
    let is_bad =
        request["object"]["data"]["bad"] == "yes" || request["oldObject"]["data"]["keep"] == "yes";
    json!({"allowed": !is_bad, "status": {"code": 403, "message": "it is bad", "reason": "Forbidden"},
        "warnings": ["looked at"], "auditAnnotations": {"seen": "yes"}})
}

#[tokio::test]
async fn a_validating_webhook_sees_the_request_and_may_refuse_it() {
    let world = World::new().await;
    let hook = Hook::start(denies_bad).await;
    register(
        &world,
        &VALIDATING_WEBHOOK_CONFIGURATIONS,
        "guard",
        &hook,
        json!({}),
    )
    .await;
    world.made(&CONFIG_MAPS, config_map("fine")).await;
    let mut bad = config_map("bad");
    bad["data"]["bad"] = json!("yes");
    assert_eq!(
        world.refused(&CONFIG_MAPS, bad).await,
        "admission webhook \"guard.example.com\" denied the request: it is bad"
    );
    assert_eq!(world.notes.warnings(), ["looked at"]);
    assert_eq!(world.notes.annotations()["guard.example.com/seen"], "yes");
    let asked = &hook.asked()[0];
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        asked["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(
        (&asked["operation"], &asked["name"], &asked["namespace"]),
        (&json!("CREATE"), &json!("fine"), &json!("default"))
    );
    assert_eq!(asked["userInfo"]["username"], "system:apiserver");
    assert_eq!(
        (&asked["oldObject"], &asked["dryRun"]),
        (&json!(null), &json!(false))
    );
    assert_eq!(asked["options"]["kind"], "CreateOptions");
    assert_eq!(hook.connections(), 1, "the connection is used again");
}

#[tokio::test]
async fn a_webhook_may_keep_an_object_from_being_deleted() {
    let world = World::new().await;
    let hook = Hook::start(denies_bad).await;
    register(
        &world,
        &VALIDATING_WEBHOOK_CONFIGURATIONS,
        "guard",
        &hook,
        json!({}),
    )
    .await;
    let mut kept = config_map("kept");
    kept["data"]["keep"] = json!("yes");
    world.made(&CONFIG_MAPS, kept).await;
    let refusal = world
        .api
        .delete(&CONFIG_MAPS, HERE, "kept", &DeleteOptions::now())
        .await;
    assert_eq!(refusal.expect_err("refused").code, 403);
    let asked = hook.asked();
    let last = asked.last().expect("asked");
    assert_eq!(
        (&last["operation"], &last["object"]),
        (&json!("DELETE"), &json!(null))
    );
    assert_eq!(last["oldObject"]["data"]["keep"], "yes");
}

#[tokio::test]
async fn mutating_webhooks_work_on_what_those_before_them_left_and_may_be_asked_again() {
    let world = World::new().await;
    let label = |name: &'static str| {
        move |request: &Value| {
            let labels = &request["object"]["metadata"]["labels"];
            if labels[name].is_string() {
                return json!({"allowed": true});
            }
            let path = format!("/metadata/labels/{name}");
            patch(&json!([{"op": "add", "path": path, "value": "x"}]))
        }
    };
    let (first, second) = (Hook::start(label("a")).await, Hook::start(label("b")).await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let mutating = &MUTATING_WEBHOOK_CONFIGURATIONS;
    register(&world, mutating, "1-first", &first, again).await;
    register(&world, mutating, "2-second", &second, json!({})).await;
    let mut object = config_map("c");
    object["metadata"]["labels"] = json!({"own": "x"});
    let made = world.made(&CONFIG_MAPS, object).await;
    assert_eq!(
        made["metadata"]["labels"],
        json!({"own": "x", "a": "x", "b": "x"})
    );
    assert_eq!(second.asked()[0]["object"]["metadata"]["labels"]["a"], "x");
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    assert_eq!(first.asked()[1]["object"]["metadata"]["labels"]["b"], "x");
}

#[tokio::test]
async fn what_a_webhook_adds_to_a_pod_is_completed() {
    let world = World::with_accounts().await;
    let account = json!({"metadata": {"name": "default"}});
    world.made(&kube::resource::SERVICE_ACCOUNTS, account).await;
    let hook = Hook::start(|_| {
        patch(&json!([{"op": "add", "path": "/spec/containers/-",
            "value": {"name": "sidecar", "image": "proxy", "nope": 1}}]))
    })
    .await;
    let rules = json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"],
        "operations": ["CREATE"]}]});
    register(
        &world,
        &MUTATING_WEBHOOK_CONFIGURATIONS,
        "inject",
        &hook,
        rules,
    )
    .await;
    let made = world.made(&PODS, pod("p", json!({}))).await;
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!(sidecar["imagePullPolicy"], "Always");
    assert!(sidecar.get("nope").is_none());
    assert_eq!(
        sidecar["volumeMounts"][0]["name"],
        made["spec"]["volumes"][0]["name"]
    );
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_refuses_or_is_passed_over_as_it_says() {
    let world = World::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let gone = json!({"url": format!("https://127.0.0.1:{port}/x")});
    let validating = &VALIDATING_WEBHOOK_CONFIGURATIONS;
    let ignore = json!({"failurePolicy": "Ignore"});
    world
        .made(validating, configuration("lax", &gone, &ignore))
        .await;
    world.made(&CONFIG_MAPS, config_map("passes")).await;
    world
        .made(validating, configuration("strict", &gone, &json!({})))
        .await;
    assert_eq!(
        world.refused(&CONFIG_MAPS, config_map("fails")).await,
        format!(
            "Internal error occurred: failed calling webhook \"strict.example.com\": failed to \
             call webhook: Post \"https://127.0.0.1:{port}/x?timeout=5s\": dial tcp \
             127.0.0.1:{port}: connect: connection refused"
        )
    );
}

#[tokio::test]
async fn a_webhook_that_is_slow_or_speaks_nonsense_has_failed() {
    let world = World::new().await;
    let slow = Hook::start(|_| json!({"allowed": true, "delay_ms": 5000})).await;
    let validating = &VALIDATING_WEBHOOK_CONFIGURATIONS;
    register(
        &world,
        validating,
        "slow",
        &slow,
        json!({"timeoutSeconds": 1}),
    )
    .await;
    let message = world.refused(&CONFIG_MAPS, config_map("a")).await;
    assert!(
        message.ends_with("/hook?timeout=1s\": context deadline exceeded"),
        "{message}"
    );
    world
        .api
        .delete(validating, None, "slow", &DeleteOptions::now())
        .await
        .expect("gone");
    let odd = Hook::start(|_| json!({"raw": "hello"})).await;
    register(&world, validating, "odd", &odd, json!({})).await;
    let message = world.refused(&CONFIG_MAPS, config_map("b")).await;
    assert!(
        message.contains("failed calling webhook \"odd.example.com\""),
        "{message}"
    );
    world
        .api
        .delete(validating, None, "odd", &DeleteOptions::now())
        .await
        .expect("gone");
    let stranger = Hook::start(|_| json!({"allowed": true})).await;
    let mut client = stranger.by_url();
    client["caBundle"] = odd.by_url()["caBundle"].clone();
    world
        .made(validating, configuration("stranger", &client, &json!({})))
        .await;
    let message = world.refused(&CONFIG_MAPS, config_map("c")).await;
    assert!(message.contains("tls: "), "{message}");
}

#[tokio::test]
async fn webhooks_of_services_are_asked_where_the_resolver_says() {
    let hook = Hook::start(denies_bad).await;
    let mut world = World::new().await;
    let validating = &VALIDATING_WEBHOOK_CONFIGURATIONS;
    world
        .made(
            validating,
            configuration("svc", &hook.by_service(), &json!({})),
        )
        .await;
    let message = world.refused(&CONFIG_MAPS, config_map("a")).await;
    assert!(
        message.contains(
            "Post \"https://hook.default.svc:443/hook?timeout=5s\": this API server has no way"
        ),
        "{message}"
    );
    let resolver = Arc::new(OnLoopback(hook.port()));
    world.api = world
        .api
        .clone()
        .with_services(resolver, None)
        .expect("fine");
    world.made(&CONFIG_MAPS, config_map("a")).await;
    assert_eq!(hook.asked().len(), 1);
}

#[tokio::test]
async fn selectors_and_conditions_choose_the_requests() {
    let world = World::new().await;
    world.namespace("asked", json!({"webhooks": "yes"})).await;
    let hook = Hook::start(|_| json!({"allowed": false})).await;
    let more = json!({
        "namespaceSelector": {"matchLabels": {"webhooks": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "matchConditions": [{"name": "big", "expression": "object.data.a == '1'"}],
    });
    register(
        &world,
        &VALIDATING_WEBHOOK_CONFIGURATIONS,
        "choosy",
        &hook,
        more,
    )
    .await;
    world.made(&CONFIG_MAPS, config_map("elsewhere")).await;
    let there = Some("asked");
    let mut skipped = config_map("skipped");
    skipped["metadata"]["labels"] = json!({"skip": "x"});
    world
        .api
        .create(&CONFIG_MAPS, there, skipped)
        .await
        .expect("not selected");
    let other = json!({"metadata": {"name": "other"}, "data": {"a": "2"}});
    world
        .api
        .create(&CONFIG_MAPS, there, other)
        .await
        .expect("not wanted");
    assert_eq!(hook.asked().len(), 0);
    let refusal = world.api.create(&CONFIG_MAPS, there, config_map("c")).await;
    assert_eq!(
        refusal.expect_err("refused").message,
        "admission webhook \"choosy.example.com\" denied the request without explanation"
    );
    let empty = json!({"metadata": {"name": "empty"}});
    let refusal = world
        .api
        .create(&CONFIG_MAPS, there, empty)
        .await
        .expect_err("a condition fails");
    assert_eq!(refusal.code, 403);
    assert!(
        refusal.message.contains("no such key: data"),
        "{}",
        refusal.message
    );
}

#[tokio::test]
async fn subresources_are_asked_about_where_rules_name_them() {
    let world = World::new().await;
    let hook =
        Hook::start(|_| json!({"allowed": false, "status": {"message": "not the status"}})).await;
    let rules = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/status"], "operations": ["*"]}]});
    register(
        &world,
        &VALIDATING_WEBHOOK_CONFIGURATIONS,
        "status",
        &hook,
        rules,
    )
    .await;
    let mut made = world.made(&PODS, pod("p", json!({}))).await;
    made["status"]["phase"] = json!("Running");
    let refusal = world
        .api
        .update_status(&PODS, HERE, made)
        .await
        .expect_err("refused");
    assert!(
        refusal
            .message
            .ends_with("denied the request: not the status")
    );
    assert_eq!(hook.asked()[0]["subResource"], "status");
    let label = Patch::merge(json!({"metadata": {"labels": {"a": "b"}}}));
    world
        .api
        .patch(&PODS, Part::Object, HERE, "p", &label)
        .await
        .expect("not asked about");
}

#[tokio::test]
async fn webhooks_have_no_say_in_what_webhooks_there_are() {
    let world = World::new().await;
    let hook = Hook::start(|_| json!({"allowed": false})).await;
    let rules = json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
        "operations": ["*"]}]});
    let validating = &VALIDATING_WEBHOOK_CONFIGURATIONS;
    register(&world, validating, "all", &hook, rules).await;
    world.refused(&CONFIG_MAPS, config_map("c")).await;
    world
        .refused(&NAMESPACES, json!({"metadata": {"name": "n"}}))
        .await;
    let now = DeleteOptions::now();
    world
        .api
        .delete(validating, None, "all", &now)
        .await
        .expect("not asked about");
    world.made(&CONFIG_MAPS, config_map("c")).await;
}
