//! MutatingAdmissionPolicy: objects are changed by expressions.

use kube::resource::{
    CONFIG_MAPS, MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS, PODS,
};
use serde_json::{Value, json};

use super::world::{World, pod};

/// A policy about pods and ConfigMaps, bound everywhere.
async fn bound(world: &World, name: &str, mut spec: Value) {
    for (field, value) in [
        ("failurePolicy", json!("Fail")),
        ("reinvocationPolicy", json!("Never")),
        (
            "matchConstraints",
            json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["pods", "configmaps"]}]}),
        ),
    ] {
        if spec.get(field).is_none() {
            spec[field] = value;
        }
    }
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    world.made(&MUTATING_ADMISSION_POLICIES, policy).await;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    world
        .made(&MUTATING_ADMISSION_POLICY_BINDINGS, binding)
        .await;
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn an_apply_configuration_is_merged_and_what_it_adds_is_completed() {
    let world = World::new().await;
    let sidecar = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{
        name: 'mesh', image: 'mesh:1', restartPolicy: 'Always'}]}}";
    let spec = json!({"mutations": [apply(sidecar)], "matchConditions": [{"name": "none",
        "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh')"}],
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["pods"]}]}});
    bound(&world, "mesh.example.com", spec).await;
    let made = world.made(&PODS, pod("p", json!({}))).await;
    let containers = made["spec"]["initContainers"].as_array().expect("a list");
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(made["spec"]["containers"][0]["name"], "c");
}

#[tokio::test]
async fn operations_are_done_in_order_and_a_test_that_fails_leaves_all_as_it_is() {
    let world = World::new().await;
    let labels = "[JSONPatch{op: 'test', path: '/data/a', value: '1'},
        JSONPatch{op: 'add', path: '/metadata/labels', value: {}},
        JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/by'),
            value: variables.by}]";
    let spec = json!({"variables": [{"name": "by", "expression": "'policy-' + object.metadata.name"}],
        "mutations": [patch(labels)]});
    bound(&world, "labels", spec).await;
    let made = world.made(&CONFIG_MAPS, map("one")).await;
    assert_eq!(
        made["metadata"]["labels"],
        json!({"example.com/by": "policy-one"})
    );
    let mut other = map("two");
    other["data"]["a"] = "2".into();
    let made = world.made(&CONFIG_MAPS, other).await;
    assert!(made["metadata"].get("labels").is_none());
}

#[tokio::test]
async fn policies_see_what_others_left_and_may_be_asked_again() {
    let world = World::new().await;
    let count = "Object{data: {'seen': string(object.data.size())}}";
    let first = json!({"mutations": [apply(count)], "reinvocationPolicy": "IfNeeded"});
    bound(&world, "a-first", first).await;
    let add = json!({"mutations": [apply("Object{data: {'b': '2', 'c': '3'}}")]});
    bound(&world, "b-second", add).await;
    let made = world.made(&CONFIG_MAPS, map("m")).await;
    assert_eq!(
        made["data"],
        json!({"a": "1", "b": "2", "c": "3", "seen": "4"})
    );
}

#[tokio::test]
async fn a_policy_that_cannot_change_the_object_refuses_it_or_is_passed_over() {
    let world = World::new().await;
    let atomic = "Object{immutable: object.data.nothing == 'x'}";
    let spec = json!({"mutations": [apply(atomic)]});
    bound(&world, "strict", spec.clone()).await;
    assert_eq!(
        world.refused(&CONFIG_MAPS, map("m")).await,
        "configmaps \"m\" is forbidden: policy 'strict' with binding 'strict' denied request: \
         expression 'Object{immutable: object.data.nothing == 'x'}' resulted in error: no such \
         key: nothing"
    );
    let lenient = World::new().await;
    let mut spec = spec;
    spec["failurePolicy"] = "Ignore".into();
    bound(&lenient, "lenient", spec).await;
    lenient.made(&CONFIG_MAPS, map("m")).await;
    let atomic = World::new().await;
    let selector = "Object{spec: Object.spec{nodeSelector: {'a': 'b'}}}";
    bound(&atomic, "atomic", json!({"mutations": [apply(selector)]})).await;
    let refused = atomic.refused(&PODS, pod("p", json!({}))).await;
    let why = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
               .spec.nodeSelector";
    assert!(refused.ends_with(why), "{refused}");
}
