//! Jobs that go when they are old, and roles that are sums.

use serde_json::json;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_job_goes_when_its_time_is_over() {
    let Some(world) = World::start("an_ended_job_goes_when_its_time_is_over").await else {
        return;
    };
    for (name, ttl_s) in [("soon", json!(1)), ("never", json!(null))] {
        world
            .apply(&json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name}, "spec": {"ttlSecondsAfterFinished": ttl_s,
                "template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "c", "image": "a:1", "command": ["true"]}]}}}}))
            .await;
    }
    world
        .ok("wait job/never --for=condition=Complete --timeout=120s")
        .await;
    world.ok("wait job/soon --for=delete --timeout=120s").await;
    world
        .until("get pods -o name", |pods| !pods.contains("soon"))
        .await;
    world
        .until_says("get events", &["Completed job/soon Job completed"])
        .await;
    assert!(world.ok("get jobs").await.contains("never"));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_the_sum_of_those_with_its_label_and_may_do_what_they_may() {
    let test = "a_role_is_the_sum_of_those_with_its_label_and_may_do_what_they_may";
    let Some(world) = World::start(test).await else {
        return;
    };
    world
        .ok("create clusterrole sum --aggregation-rule=to-sum=yes")
        .await;
    world
        .ok("create clusterrolebinding sum --clusterrole=sum --user=alice")
        .await;
    let may = "auth can-i list secrets --as=alice";
    assert!(!world.run(may).await.status.success());
    world
        .ok("create clusterrole part --verb=list --resource=secrets")
        .await;
    world.ok("label clusterrole part to-sum=yes").await;
    let rules = "get clusterrole sum -o jsonpath={.rules[*].resources[*]}";
    world.until(rules, |resources| resources == "secrets").await;
    world.until(may, |answer| answer == "yes\n").await;
    // The roles that everybody has are sums as well.
    world
        .ok("label clusterrole part rbac.authorization.k8s.io/aggregate-to-view=true")
        .await;
    let view = "get clusterrole view -o jsonpath={.rules[*].resources[*]}";
    world
        .until(view, |resources| {
            resources.split(' ').any(|one| one == "secrets")
        })
        .await;
    world.ok("label clusterrole part to-sum-").await;
    world.until(rules, str::is_empty).await;
    assert!(!world.run(may).await.status.success());
    world.server.stop().await;
}
