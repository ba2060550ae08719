//! Claims find volumes, wait for their first pod, and volumes are kept or go.

use serde_json::{Value, json};

use super::world::World;

fn volume(name: &str, class: &str, policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": class, "persistentVolumeReclaimPolicy": policy,
        "hostPath": {"path": "/data"}}})
}

fn claim(name: &str, class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}})
}

fn pod(name: &str, claim: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "a:1",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}})
}

const PHASE: &str = "-o jsonpath={.status.phase}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_says_what_it_lacks_is_bound_and_leaves_its_volume_or_takes_it_along() {
    let test = "a_claim_says_what_it_lacks_is_bound_and_leaves_its_volume_or_takes_it_along";
    let Some(world) = World::start(test).await else {
        return;
    };
    world.apply(&claim("plain", "")).await;
    let lacks = "persistentvolume-controller no persistent volumes available for this claim and \
                 no storage class is set";
    let parts = ["Status: Pending", "Normal FailedBinding", lacks];
    world.until_says("describe pvc plain", &parts).await;
    world.apply(&claim("data", "manual")).await;
    let lacks = "persistentvolume-controller storageclass.storage.k8s.io \"manual\" not found";
    let parts = ["Warning ProvisioningFailed", lacks];
    world.until_says("describe pvc data", &parts).await;
    for (name, policy) in [("kept", "Retain"), ("gone", "Delete")] {
        world.apply(&volume(name, "manual", policy)).await;
        let bound = ["Status: Bound", "Volume: ", name, "Capacity: 2Gi"];
        world.until_says("describe pvc data", &bound).await;
        world
            .until_says("get pv", &[name, "Bound default/data manual"])
            .await;
        // Who uses a claim keeps it.
        world.apply(&pod("user", "data")).await;
        world
            .ok("wait pod/user --for=condition=Ready --timeout=120s")
            .await;
        world.ok("delete pvc data --wait=false").await;
        world.until_says("get pvc data", &["Terminating"]).await;
        world.ok("delete pod user --timeout=120s").await;
        world.ok("wait pvc/data --for=delete --timeout=120s").await;
        if policy == "Retain" {
            world
                .until(&format!("get pv kept {PHASE}"), |phase| phase == "Released")
                .await;
            world.ok("delete pv kept --timeout=120s").await;
        } else {
            world.ok("wait pv/gone --for=delete --timeout=120s").await;
        }
        world.apply(&claim("data", "manual")).await;
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_for_its_first_pod_is_bound_when_that_has_a_node() {
    let test = "a_claim_that_waits_for_its_first_pod_is_bound_when_that_has_a_node";
    let Some(world) = World::start(test).await else {
        return;
    };
    world
        .apply(
            &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "late"}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .await;
    world.apply(&volume("disk", "late", "Retain")).await;
    world
        .until(&format!("get pv disk {PHASE}"), |phase| {
            phase == "Available"
        })
        .await;
    world.apply(&claim("data", "late")).await;
    let waits = "waiting for first consumer to be created before binding";
    world
        .until_says(
            "describe pvc data",
            &["Status: Pending", "WaitForFirstConsumer", waits],
        )
        .await;
    world.apply(&pod("first", "data")).await;
    world
        .until(&format!("get pvc data {PHASE}"), |phase| phase == "Bound")
        .await;
    let node = world
        .ok("get pvc data -o jsonpath={.metadata.annotations}")
        .await;
    assert!(
        node.contains(r#""volume.kubernetes.io/selected-node":"fra""#),
        "{node}"
    );
    // Asked for by name, and not what is asked for.
    let mut named = claim("named", "late");
    named["spec"]["volumeName"] = "small".into();
    named["spec"]["resources"]["requests"]["storage"] = "5Gi".into();
    world.apply(&volume("small", "late", "Retain")).await;
    world.apply(&named).await;
    let mismatch = "Cannot bind to requested volume \"small\": requested PV is too small";
    world
        .until_says("describe pvc named", &["VolumeMismatch", mismatch])
        .await;
    world.server.stop().await;
}
