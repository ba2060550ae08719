//! What kubectl describes at the end: what happened, in upstream's words, each once with its count.

use serde_json::{Value, json};

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_tell_what_they_did_and_what_they_could_not() {
    let test = "workloads_tell_what_they_did_and_what_they_could_not";
    let Some(world) = World::start(test).await else {
        return;
    };
    world
        .ok("create deployment web --image=web:1 --replicas=2")
        .await;
    world.ok("rollout status deploy/web --timeout=120s").await;
    world.ok("scale deployment web --replicas=1").await;
    let parts = [
        "Scaled up replica set web-",
        "from 0 to 2",
        "Scaled down",
        "from 2 to 1",
    ];
    world.until_says("describe deployment web", &parts).await;
    world
        .until_says(
            "describe rs -l app=web",
            &["Created pod: web-", "Deleted pod: web-"],
        )
        .await;
    world
        .apply(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db"}, "spec": {"serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "a:1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}}))
        .await;
    let parts = [
        "create Claim data-db-0 Pod db-0 in StatefulSet db success",
        "create Pod db-0 in StatefulSet db successful",
    ];
    world.until_says("describe statefulset db", &parts).await;
    let done = json!({"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "a:1", "command": ["true"]}]});
    let job = |name: &str, spec: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
    world
        .apply(&job("once", json!({"template": {"spec": done}})))
        .await;
    let parts = [
        "SuccessfulCreate",
        "Created pod: once-",
        "Completed",
        "Job completed",
    ];
    world.until_says("describe job once", &parts).await;
    let spec = json!({"activeDeadlineSeconds": 1, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "a:1"}]}}});
    world.apply(&job("late", spec)).await;
    let parts = [
        "Warning DeadlineExceeded",
        "Job was active longer than specified deadline",
        "Deleted pod: late-",
    ];
    world.until_says("describe job late", &parts).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_again_and_again_is_one_event_with_a_count() {
    let test = "what_is_refused_again_and_again_is_one_event_with_a_count";
    let Some(world) = World::start(test).await else {
        return;
    };
    world.ok("create quota none --hard=pods=0").await;
    let hard = "get quota none -o jsonpath={.status.hard.pods}";
    world.until(hard, |hard| hard == "0").await;
    world
        .apply(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db"}, "spec": {"serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "a:1"}]}}}}))
        .await;
    let refused = "create Pod db-0 in StatefulSet db failed error: pods \"db-0\" is forbidden: \
                   exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0";
    let parts = ["Warning FailedCreate", "(x", refused];
    world.until_says("describe statefulset db", &parts).await;
    let counts = "get events --field-selector reason=FailedCreate -o jsonpath={.items[*].count}";
    let is_one = |counts: &str| counts.parse::<u32>().is_ok_and(|count| count >= 3);
    world.until(counts, is_one).await;
    let times = "get events --field-selector reason=FailedCreate -o \
                 jsonpath={.items[0].firstTimestamp}{.items[0].lastTimestamp}";
    let times = world.ok(times).await;
    let (first, last) = times.split_at(times.len() / 2);
    assert!(first < last, "{times}");
    world.ok("delete quota none").await;
    world.ok("rollout status sts/db --timeout=120s").await;
    world.server.stop().await;
}
