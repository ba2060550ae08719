//! Nodes that fall silent or say that they are not ready, and what becomes of their pods.

use serde_json::{Value, json};

use super::world::World;

fn pod(name: &str, tolerated_s: Option<u32>) -> Value {
    let toleration = |key: &str| {
        let mut one = json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists",
            "effect": "NoExecute"});
        if let Some(seconds) = tolerated_s {
            one["tolerationSeconds"] = seconds.into();
        }
        one
    };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "tolerations": [toleration("unreachable"), toleration("not-ready")],
        "containers": [{"name": "c", "image": "a:1"}]}})
}

/// Seconds since it was renewed.
fn lease(age_s: i64) -> Value {
    let renewed = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age_s);
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "fra", "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": "fra", "leaseDurationSeconds": 40,
            "renewTime": format!("{renewed:.6}")}})
}

const TAINTS: &str = "get node fra -o jsonpath={.spec.taints[*].key}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_a_silent_node_when_their_time_is_over_and_others_stay() {
    let test = "pods_leave_a_silent_node_when_their_time_is_over_and_others_stay";
    let Some(world) = World::start(test).await else {
        return;
    };
    world.apply(&pod("short", Some(1))).await;
    world.apply(&pod("stays", None)).await;
    world
        .ok("wait pod/short pod/stays --for=condition=Ready --timeout=120s")
        .await;
    world.apply(&lease(600)).await;
    world.until_says("get node fra", &["fra NotReady"]).await;
    let unreachable = "node.kubernetes.io/unreachable";
    world
        .until(TAINTS, |keys| {
            keys == format!("{unreachable} {unreachable}")
        })
        .await;
    let parts = [
        "Ready Unknown",
        "Kubelet stopped posting node status.",
        "NodeNotReady",
    ];
    world.until_says("describe node fra", &parts).await;
    let evicted = [
        "TaintManagerEviction",
        "Marking for deletion Pod default/short",
    ];
    world.until_says("get events", &evicted).await;
    world.ok("wait pod/short --for=delete --timeout=120s").await;
    world.ok("get pod stays").await;
    // It is back, and says so itself.
    // For long, so that a slow test does not let it run out.
    world.apply(&lease(-600)).await;
    for (is_so, taints) in [("True", ""), ("False", "not-ready"), ("True", "")] {
        let condition = json!([{"type": "Ready", "status": is_so, "reason": "Said"}]);
        let patch = json!({"status": {"conditions": condition}});
        let words = format!("patch node fra --subresource=status --type=merge -p {patch}");
        world.ok(&words).await;
        let is_tainted = |keys: &str| keys.contains("not-ready") != taints.is_empty();
        world
            .until(TAINTS, |keys| {
                is_tainted(keys) && !keys.contains(unreachable)
            })
            .await;
    }
    world.server.stop().await;
}
