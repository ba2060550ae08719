//! ValidatingAdmissionPolicies with bindings, parameters and actions.

use kube::resource::{
    CONFIG_MAPS, DEPLOYMENTS, VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS,
};
use serde_json::{Value, json};

use super::world::{World, pod};

async fn policy(world: &World, spec: Value) {
    let mut whole = json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["deployments"]}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let object = json!({"metadata": {"name": "p"}, "spec": whole});
    world.made(&VALIDATING_ADMISSION_POLICIES, object).await;
}

async fn bind(world: &World, name: &str, more: Value) {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let object = json!({"metadata": {"name": name}, "spec": spec});
    world
        .made(&VALIDATING_ADMISSION_POLICY_BINDINGS, object)
        .await;
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({}))["spec"]}}})
}

#[tokio::test]
async fn a_bound_policy_refuses_and_an_unbound_one_does_nothing() {
    let world = World::new().await;
    policy(
        &world,
        json!({"validations": [{"expression": "object.spec.replicas <= 2"}]}),
    )
    .await;
    world.made(&DEPLOYMENTS, deployment("before", 3)).await;
    bind(&world, "b", json!({})).await;
    let refusal = world
        .create(&DEPLOYMENTS, deployment("after", 3))
        .await
        .expect_err("refused");
    assert_eq!(
        (refusal.code, refusal.reason, refusal.message.as_str()),
        (
            422,
            "Invalid",
            "deployments.apps \"after\" is forbidden: ValidatingAdmissionPolicy 'p' with binding \
             'b' denied request: failed expression: object.spec.replicas <= 2"
        )
    );
    world.made(&DEPLOYMENTS, deployment("small", 2)).await;
}

#[tokio::test]
async fn variables_messages_reasons_and_annotations_are_as_written() {
    let world = World::new().await;
    policy(&world, json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "odd", "expression": "variables.replicas % 2 == 1"}],
        "matchConditions": [{"name": "not-one", "expression": "object.metadata.name != 'one'"}],
        "validations": [{"expression": "variables.odd", "reason": "Forbidden",
            "messageExpression": "'replicas is ' + string(variables.replicas) + ' in ' + namespaceObject.metadata.name"}],
        "auditAnnotations": [{"key": "replicas", "valueExpression": "string(variables.replicas)"}],
    })).await;
    bind(&world, "b", json!({})).await;
    let refusal = world
        .create(&DEPLOYMENTS, deployment("two", 2))
        .await
        .expect_err("refused");
    assert_eq!(refusal.code, 403);
    assert!(
        refusal
            .message
            .ends_with("denied request: replicas is 2 in default"),
        "{}",
        refusal.message
    );
    assert_eq!(world.notes.annotations()["p/replicas"], "2");
    world.made(&DEPLOYMENTS, deployment("three", 3)).await;
    world.made(&DEPLOYMENTS, deployment("one", 2)).await;
}

#[tokio::test]
async fn parameters_come_from_objects_and_their_absence_is_decided_on() {
    let world = World::new().await;
    policy(
        &world,
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "object.spec.replicas <= int(params.data.max)",
                "message": "too many"}],
        }),
    )
    .await;
    let reference =
        json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    bind(&world, "b", json!({"paramRef": reference})).await;
    let message = world.refused(&DEPLOYMENTS, deployment("d", 1)).await;
    assert!(
        message.contains("no params found for policy binding with `Deny`"),
        "{message}"
    );
    world
        .made(
            &CONFIG_MAPS,
            json!({"metadata": {"name": "limits"}, "data": {"max": "2"}}),
        )
        .await;
    world.made(&DEPLOYMENTS, deployment("d", 2)).await;
    assert!(
        world
            .refused(&DEPLOYMENTS, deployment("e", 3))
            .await
            .ends_with("denied request: too many")
    );
}

#[tokio::test]
async fn a_binding_may_only_warn_or_only_note() {
    let world = World::new().await;
    policy(
        &world,
        json!({"validations": [{"expression": "object.spec.replicas > 5", "message": "few"}]}),
    )
    .await;
    bind(
        &world,
        "soft",
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    world.made(&DEPLOYMENTS, deployment("d", 1)).await;
    assert_eq!(
        world.notes.warnings(),
        ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'soft': few"]
    );
    let annotations = world.notes.annotations();
    assert!(
        annotations["validation.policy.admission.k8s.io/validation_failure"].contains("\"few\"")
    );
}

#[tokio::test]
async fn an_expression_without_value_refuses_unless_the_policy_lets_it_pass() {
    let world = World::new().await;
    policy(
        &world,
        json!({"validations": [{"expression": "object.spec.nope == 1"}]}),
    )
    .await;
    bind(&world, "b", json!({})).await;
    let message = world.refused(&DEPLOYMENTS, deployment("d", 1)).await;
    assert!(
        message.ends_with(
            "denied request: expression 'object.spec.nope == 1' resulted in error: no such key: nope"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn a_hostile_expression_ends_by_its_budget() {
    let world = World::new().await;
    let loops = "[1,2,3,4,5,6,7,8,9,10]";
    let mut hostile = "true".to_owned();
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        hostile = format!("{loops}.all({name}, {hostile})");
    }
    policy(&world, json!({"validations": [{"expression": hostile}]})).await;
    bind(&world, "b", json!({})).await;
    let message = world.refused(&DEPLOYMENTS, deployment("d", 1)).await;
    assert!(
        message.ends_with("operation cancelled: actual cost limit exceeded"),
        "{message}"
    );
}
