//! Strategic merges that took long, went wrong, or are refused.

use serde_json::json;

use super::*;

fn patched(mut pod: Value, patch: &Value) -> Value {
    let schema = crate::schema::type_named("io.k8s.api.core.v1.Pod").expect("served");
    apply(schema.get(), &mut pod, patch).expect("applies");
    pod
}

/// A few hundred thousand fit a body. Looking each of them up in the others took minutes.
#[test]
fn the_longest_lists_are_merged_before_the_client_gives_up() {
    const ITEMS: usize = 40_000;
    let named = |range: std::ops::Range<usize>| -> Vec<Value> {
        range
            .map(|number| json!({"name": number.to_string()}))
            .collect()
    };
    let gone = (0..ITEMS / 2).map(|number| json!({"name": number.to_string(), "$patch": "delete"}));
    let finalizers: Vec<_> = (0..ITEMS).collect();
    let mut kept = finalizers
        .iter()
        .map(|number| json!(number))
        .collect::<Vec<_>>();
    kept.push("containers".into());
    let patch = json!({
        "metadata": {"finalizers": finalizers},
        "spec": {
            "$retainKeys": kept,
            "containers": named(0..ITEMS).into_iter().chain(gone).collect::<Vec<_>>(),
            "$setElementOrder/containers": named(0..ITEMS),
        },
    });
    let pod = json!({"metadata": {"finalizers": finalizers}, "spec": {}});
    let pod = patched(pod, &patch);
    assert_eq!(pod["metadata"]["finalizers"], json!(finalizers));
    assert_eq!(pod["spec"]["containers"], json!(named(ITEMS / 2..ITEMS)));
}

#[test]
fn a_deletion_takes_all_items_with_its_key() {
    let ports = json!([
        {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"},
        {"containerPort": 80},
    ]);
    let pod = json!({"spec": {"containers": [{"name": "dns", "ports": ports}]}});
    let gone = json!([{"containerPort": 53, "$patch": "delete"}]);
    let patch = json!({"spec": {"containers": [{"name": "dns", "ports": gone}]}});
    let left = &patched(pod, &patch)["spec"]["containers"][0]["ports"];
    assert_eq!(*left, json!([{"containerPort": 80}]));
}

#[test]
fn what_is_wrong_with_a_patch_is_told_in_upstreams_words() {
    let schema = crate::schema::type_named("io.k8s.api.core.v1.Pod").expect("served");
    let containers = |item: Value| json!({"spec": {"containers": [item]}});
    for (patch, code, expected) in [
        (
            json!({"spec": {"$patch": "x"}}),
            500,
            "unknown patch type: x in map: map[$patch:x]",
        ),
        (
            json!({"spec": {"$retainKeys": "x"}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}),
            400,
            "invalid patch format of primitive list",
        ),
        (
            json!({"metadata": {"$setElementOrder/finalizers": "x"}}),
            500,
            "expected a []interface {}, but received a string",
        ),
        (
            containers(json!({"name": "a", "$patch": "merge"})),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            containers(json!({"$patch": "delete"})),
            500,
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}],
                "containers": [{"name": "a"}]}}),
            500,
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n\
             [map[name:b]]\n",
        ),
    ] {
        let mut pod = json!({"metadata": {"finalizers": ["x"]}, "spec": {"containers": []}});
        let status = apply(schema.get(), &mut pod, &patch).expect_err("refused");
        assert_eq!(
            (status.code, status.message.as_str()),
            (code, expected),
            "{patch}"
        );
    }
}

#[test]
fn a_map_that_is_deleted_stays_empty_where_there_was_one() {
    let pod = json!({"spec": {"nodeSelector": {"a": "1"}}});
    let gone = json!({"$patch": "delete"});
    let patch = json!({"spec": {"nodeSelector": gone, "securityContext": gone}});
    assert_eq!(patched(pod, &patch), json!({"spec": {"nodeSelector": {}}}));
}
