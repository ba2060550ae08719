//! The API as in-process callers use it.

use kube::api::{Api, DeleteOptions, Deleted, EventKind, Part, Patch, Selector};
use kube::object;
use kube::resource::{CONFIG_MAPS, EVENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS};
use serde_json::{Value, json};

async fn api() -> (Api, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store::Store::open(&store::Config::new(dir.path().join("kube.db"))).expect("opens");
    let api = Api::new(store);
    api.bootstrap().await.expect("namespaces");
    (api, dir)
}

fn config_map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

const HERE: Option<&str> = Some("default");

#[tokio::test]
async fn a_watch_tells_when_objects_begin_and_cease_to_match() {
    let (api, _dir) = api().await;
    let selector = Selector::parse(&CONFIG_MAPS, "l=in", "").expect("parses");
    let (found, rev) = api
        .list(&CONFIG_MAPS, None, &selector)
        .await
        .expect("listed");
    assert!(found.is_empty());
    let mut watch = api
        .watch(&CONFIG_MAPS, None, rev, selector)
        .expect("starts");
    api.create(&CONFIG_MAPS, HERE, config_map("a", "out"))
        .await
        .expect("created");
    for label in ["in", "in2", "in"] {
        let patch = Patch::merge(json!({"metadata": {"labels": {"l": label}}}));
        api.patch(&CONFIG_MAPS, Part::Object, HERE, "a", &patch)
            .await
            .expect("patched");
    }
    api.delete(&CONFIG_MAPS, HERE, "a", &DeleteOptions::now())
        .await
        .expect("deleted");
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let event = watch.next().await.expect("an event");
        assert_eq!(object::resource_version(&event.object), event.rev);
        kinds.push(event.kind);
    }
    use EventKind::{Added, Deleted};
    assert_eq!(kinds, [Added, Deleted, Added, Deleted]);
}

#[tokio::test]
async fn of_two_writers_with_the_same_revision_one_gets_a_conflict() {
    let (api, _dir) = api().await;
    let created = api
        .create(&CONFIG_MAPS, HERE, config_map("a", "x"))
        .await
        .expect("created");
    let (mut one, mut two) = (created.clone(), created);
    one["data"] = json!({"by": "one"});
    two["data"] = json!({"by": "two"});
    let one = api.update(&CONFIG_MAPS, HERE, one).await.expect("first");
    let refusal = api
        .update(&CONFIG_MAPS, HERE, two.clone())
        .await
        .expect_err("second");
    assert!(refusal.is_conflict());
    object::meta_mut(&mut two).remove("resourceVersion");
    let two = api
        .update(&CONFIG_MAPS, HERE, two)
        .await
        .expect("without a revision the last wins");
    let same = api
        .update(&CONFIG_MAPS, HERE, two.clone())
        .await
        .expect("nothing to do");
    assert_eq!(
        two["metadata"]["resourceVersion"],
        same["metadata"]["resourceVersion"]
    );
    assert_ne!(
        one["metadata"]["resourceVersion"],
        two["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_namespace_ends_when_its_finalizer_is_gone_and_takes_nothing_new_before() {
    let (api, _dir) = api().await;
    let team = json!({"metadata": {"name": "team"}});
    api.create(&NAMESPACES, None, team).await.expect("created");
    let deleted = api
        .delete(&NAMESPACES, None, "team", &DeleteOptions::default())
        .await;
    let Deleted::Terminating(mut namespace) = deleted.expect("deleted") else {
        panic!("the finalizer keeps it")
    };
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let refusal = api
        .create(&CONFIG_MAPS, Some("team"), config_map("a", "x"))
        .await;
    assert_eq!(
        refusal.expect_err("refused").message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace team because it \
         is being terminated"
    );
    namespace["spec"]["finalizers"] = json!([]);
    api.finalize(namespace).await.expect("finalized");
    assert!(
        api.get(&NAMESPACES, None, "team")
            .await
            .expect_err("gone")
            .is_not_found()
    );
    let kept = api
        .delete(&NAMESPACES, None, "default", &DeleteOptions::default())
        .await;
    assert_eq!(kept.expect_err("kept").code, 403);
}

#[tokio::test]
async fn a_pod_lives_from_binding_to_the_confirmed_end() {
    let (api, _dir) = api().await;
    let pod = json!({"metadata": {"generateName": "web-", "finalizers": ["x.y/z"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = api.create(&PODS, HERE, pod).await.expect("created");
    let name = object::name(&pod).to_owned();
    assert!(name.starts_with("web-") && name.len() == 9);
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    let bound = api.bind("default", &name, "fra").await.expect("bound");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert!(
        api.bind("default", &name, "ams")
            .await
            .expect_err("bound already")
            .is_conflict()
    );
    let mut status = bound.clone();
    status["status"]["phase"] = "Running".into();
    status["spec"]["nodeName"] = "elsewhere".into();
    let running = api
        .update_status(&PODS, HERE, status)
        .await
        .expect("written");
    assert_eq!(
        (
            &running["spec"]["nodeName"],
            &running["metadata"]["generation"]
        ),
        (&json!("fra"), &json!(1))
    );
    let options = DeleteOptions::default();
    let deleted = api
        .delete(&PODS, HERE, &name, &options)
        .await
        .expect("deleted");
    assert_eq!(
        deleted.object()["metadata"]["deletionGracePeriodSeconds"],
        30
    );
    let wrong = DeleteOptions::now().with_uid("other");
    assert!(
        api.delete(&PODS, HERE, &name, &wrong)
            .await
            .expect_err("another")
            .is_conflict()
    );
    let right = DeleteOptions::now().with_uid(object::uid(&pod));
    let ended = api.delete(&PODS, HERE, &name, &right).await.expect("ended");
    assert!(
        matches!(ended, Deleted::Terminating(_)),
        "the finalizer keeps it"
    );
    let patch = Patch::merge(json!({"metadata": {"finalizers": null}}));
    api.patch(&PODS, Part::Object, HERE, &name, &patch)
        .await
        .expect("patched");
    assert!(
        api.get(&PODS, HERE, &name)
            .await
            .expect_err("gone")
            .is_not_found()
    );
}

#[tokio::test]
async fn events_are_forgotten_after_an_hour() {
    let (api, _dir) = api().await;
    let event = json!({"metadata": {"name": "e"}, "reason": "Started",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    api.create(&EVENTS, HERE, event).await.expect("created");
    let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("after 1970");
    assert_eq!(api.expire(now + 3500).await.expect("swept"), 0);
    assert_eq!(api.expire(now + 3700).await.expect("swept"), 1);
    assert!(api.get(&EVENTS, HERE, "e").await.is_err());
}

#[tokio::test]
async fn objects_are_the_same_after_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = store::Config::new(dir.path().join("kube.db"));
    let store = store::Store::open(&config).expect("opens");
    let api = Api::new(store.clone());
    api.bootstrap().await.expect("namespaces");
    let account = json!({"metadata": {"name": "robot"}});
    let account = api
        .create(&SERVICE_ACCOUNTS, HERE, account)
        .await
        .expect("created");
    drop(api);
    store.close().await;
    let api = Api::new(store::Store::open(&config).expect("opens again"));
    api.bootstrap().await.expect("may be repeated");
    assert_eq!(
        api.get(&SERVICE_ACCOUNTS, HERE, "robot")
            .await
            .expect("there"),
        account
    );
}
