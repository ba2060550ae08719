//! Custom resources in process: definitions come and go, and their objects behave as upstream's.

mod custom_common;

use std::time::{Duration, Instant};

use custom_common::{CRDS, convertible, define, established, start};
use kube::api::{Api, DeleteOptions, EventKind, Part, Patch, Selector};
use kube::resource::Row;
use serde_json::{Value, json};

const HERE: Option<&str> = Some("default");

fn crontab() -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"],
                "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                        "image": {"type": "string", "default": "cron:1"},
                        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
                        "color": {"type": "string"},
                        "tags": {"type": "array", "x-kubernetes-list-type": "set",
                            "items": {"type": "string"}},
                    }},
                    "status": {"type": "object", "properties": {
                        "replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}},
                }}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            }],
        },
    })
}

fn object(name: &str, color: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cronSpec": "* * * * */5", "replicas": 1,
        "color": color}})
}

async fn served(api: &Api, definition: Value) -> Row {
    let name = definition["metadata"]["name"]
        .as_str()
        .expect("named")
        .to_owned();
    define(api, definition).await;
    established(api, &name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_served_soon_and_its_objects_are_pruned_defaulted_and_checked() {
    let (api, _dir, _stop) = start().await;
    let started = Instant::now();
    let row = served(&api, crontab()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    eprintln!("established after {took:?}");
    let definition = api
        .get(&CRDS, None, "crontabs.stable.example.com")
        .await
        .expect("there");
    assert_eq!(definition["spec"]["names"]["listKind"], "CronTabList");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(definition["status"]["acceptedNames"]["singular"], "crontab");

    let mut wanted = object("a", "red");
    wanted["spec"]["extra"] = json!({"x": 1});
    wanted["status"] = json!({"replicas": 7});
    let made = api.create(&row, HERE, wanted).await.expect("created");
    assert_eq!(made["spec"]["image"], "cron:1");
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["spec"].get("extra").is_none() && made.get("status").is_none());

    let mut wrong = object("b", "red");
    wrong["spec"]["cronSpec"] = "often".into();
    wrong["spec"]["replicas"] = 99.into();
    let refused = api.create(&row, HERE, wrong).await.expect_err("refused");
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message
            .contains("should be less than or equal to 10"),
        "{refused}"
    );
    assert!(
        refused
            .message
            .contains("spec.cronSpec in body should match"),
        "{refused}"
    );

    // The status is written apart, and nothing else with it.
    let mut status = made.clone();
    status["status"] = json!({"replicas": 1, "labelSelector": "app=cron"});
    status["spec"]["replicas"] = 9.into();
    let written = api
        .update_status(&row, HERE, status)
        .await
        .expect("written");
    assert_eq!(
        (
            &written["spec"]["replicas"],
            &written["metadata"]["generation"]
        ),
        (&json!(1), &json!(1))
    );
    let patch = Patch::merge(json!({"spec": {"replicas": 3}, "status": {"replicas": 5}}));
    let patched = api
        .patch(&row, Part::Object, HERE, "a", &patch)
        .await
        .expect("patched");
    assert_eq!(
        (
            &patched["status"]["replicas"],
            &patched["metadata"]["generation"]
        ),
        (&json!(1), &json!(2))
    );
    let strategic = Patch::Strategic(json!({"spec": {"replicas": 4}}));
    let refused = api.patch(&row, Part::Object, HERE, "a", &strategic).await;
    assert_eq!(refused.expect_err("refused").code, 415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_watches_select_by_fields_and_a_definition_takes_its_objects_along() {
    let (api, _dir, _stop) = start().await;
    let row = served(&api, crontab()).await;
    let red = Selector::fields(&row, "spec.color=red").expect("selectable");
    assert!(Selector::fields(&row, "spec.cronSpec=x").is_err());
    let (_, rev) = api.list(&row, None, &red).await.expect("listed");
    let mut watch = api
        .watch(row.clone(), None, rev, red.clone())
        .expect("watched");
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        api.create(&row, HERE, object(name, color))
            .await
            .expect("created");
    }
    let patch = Patch::merge(json!({"spec": {"color": "blue"}}));
    api.patch(&row, Part::Object, HERE, "a", &patch)
        .await
        .expect("patched");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.expect("an event");
        seen.push((event.kind, event.object["metadata"]["name"].clone()));
    }
    let expected = [
        (EventKind::Added, json!("a")),
        (EventKind::Added, json!("c")),
        (EventKind::Deleted, json!("a")),
    ];
    assert_eq!(seen, expected);
    assert_eq!(api.list(&row, None, &red).await.expect("listed").0.len(), 1);

    let options = DeleteOptions::default();
    let deleted = api.delete(&CRDS, None, "crontabs.stable.example.com", &options);
    deleted.await.expect("deleted");
    let deadline = Instant::now() + Duration::from_secs(30);
    while api
        .get(&CRDS, None, "crontabs.stable.example.com")
        .await
        .is_ok()
    {
        assert!(Instant::now() < deadline, "the definition stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Defined anew, it is empty.
    let row = served(&api, crontab()).await;
    let everything = Selector::default();
    assert!(
        api.list(&row, None, &everything)
            .await
            .expect("listed")
            .0
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_taken_keep_a_definition_from_being_served() {
    let (api, _dir, _stop) = start().await;
    served(&api, crontab()).await;
    let mut other = crontab();
    other["metadata"]["name"] = "others.stable.example.com".into();
    other["spec"]["names"]["plural"] = "others".into();
    define(&api, other).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = api
            .get(&CRDS, None, "others.stable.example.com")
            .await
            .expect("there");
        let conditions = found["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if let Some(one) = conditions.iter().find(|one| one["type"] == "NamesAccepted") {
            assert_eq!(one["status"], "False");
            break;
        }
        assert!(Instant::now() < deadline, "{found}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        api.resources()
            .find("stable.example.com", "v1", "others")
            .is_none()
    );
    let mut wrong = crontab();
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["x"] = json!({});
    wrong["metadata"]["name"] = "wrong".into();
    let refused = api.create(&CRDS, None, wrong).await.expect_err("refused");
    assert!(
        refused.message.contains("must be spec.names.plural"),
        "{refused}"
    );
    assert!(
        refused
            .message
            .contains("must not be empty for specified object fields"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_converted_by_name_or_by_webhook() {
    let (api, _dir, _stop) = start().await;
    served(&api, convertible(None)).await;
    let find = |version| {
        api.resources()
            .find("ex.com", version, "foos")
            .expect("served")
    };
    let (v1, v2) = (find("v1"), find("v2"));
    let made = api
        .create(&v1, HERE, json!({"metadata": {"name": "a"}, "host": "h:1"}))
        .await;
    assert_eq!(made.expect("created")["apiVersion"], "ex.com/v1");
    let found = api.get(&v2, HERE, "a").await.expect("there");
    assert_eq!(
        (&found["apiVersion"], &found["host"]),
        (&json!("ex.com/v2"), &json!("h:1"))
    );

    let hook = custom_common::webhook().await;
    let mut changed = api.get(&CRDS, None, "foos.ex.com").await.expect("there");
    changed["spec"]["conversion"] = convertible(Some(&hook))["spec"]["conversion"].clone();
    api.update(&CRDS, None, changed).await.expect("changed");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let v2 = find("v2");
        if let Ok(found) = api.get(&v2, HERE, "a").await
            && found["port"] == "1"
        {
            assert_eq!(found["host"], "h");
            break;
        }
        assert!(Instant::now() < deadline, "not converted by the webhook");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (v1, v2) = (find("v1"), find("v2"));
    let everything = Selector::default();
    let (_, rev) = api.list(&v2, None, &everything).await.expect("listed");
    let mut watch = api
        .watch(v2.clone(), None, rev, everything.clone())
        .expect("watched");
    let second = json!({"metadata": {"name": "b"}, "host": "g", "port": "2"});
    api.create(&v2, HERE, second).await.expect("created");
    assert_eq!(api.get(&v1, HERE, "b").await.expect("there")["host"], "g:2");
    assert_eq!(watch.next().await.expect("an event").object["port"], "2");
    let (mixed, _) = api.list(&v2, None, &everything).await.expect("listed");
    let ports: Vec<_> = mixed.iter().map(|one| one["port"].clone()).collect();
    assert_eq!(ports, [json!("1"), json!("2")]);
}
