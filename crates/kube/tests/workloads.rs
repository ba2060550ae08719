//! Deployments in process, with a kubelet on paper.

mod common;
mod kubelet;

use common::objects::{HERE, all, open, until};
use kube::api::{Api, DeleteOptions, Part, Patch, Propagation};
use kube::object;
use kube::resource::{DEPLOYMENTS, PODS, REPLICA_SETS};
use serde_json::{Value, json};

async fn start() -> (Api, tempfile::TempDir) {
    let (api, dir) = open().await;
    kubelet::start(&api);
    (api, dir)
}

fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

async fn is_rolled_out(api: &Api, name: &str) -> bool {
    let deployment = api.get(&DEPLOYMENTS, HERE, name).await.expect("there");
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = spec["replicas"].as_i64().unwrap_or(0);
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| count(field) == wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_over_rolls_and_scales_without_a_pod_too_many() {
    let (api, _dir) = start().await;
    let created = api.create(&DEPLOYMENTS, HERE, deployment("web", 3, "web:1"));
    created.await.expect("created");
    until("first rollout", async || is_rolled_out(&api, "web").await).await;
    let pods = all(&api, &PODS).await;
    assert_eq!(pods.len(), 3);
    let hash = object::label(&pods[0], "pod-template-hash").expect("labelled");
    assert!(object::name(&pods[0]).starts_with(&format!("web-{hash}-")));
    let image = json!({"spec": {"template": {"spec": {"containers":
        [{"name": "c", "image": "web:2"}]}}}});
    let patch = Patch::Strategic(image);
    api.patch(&DEPLOYMENTS, Part::Object, HERE, "web", &patch)
        .await
        .expect("patched");
    until("second rollout", async || {
        // Three and a quarter of three, rounded up.
        let pods = all(&api, &PODS).await;
        assert!(
            pods.len() <= 5,
            "one more may be on its way out: {}",
            pods.len()
        );
        is_rolled_out(&api, "web").await
    })
    .await;
    let of_image = |pods: &[Value], image: &str| {
        let is_it = |pod: &&Value| pod["spec"]["containers"][0]["image"] == image;
        pods.iter().filter(is_it).count()
    };
    until("old pods gone", async || all(&api, &PODS).await.len() == 3).await;
    assert_eq!(of_image(&all(&api, &PODS).await, "web:2"), 3);
    assert_eq!(all(&api, &REPLICA_SETS).await.len(), 2);
    let web = api.get(&DEPLOYMENTS, HERE, "web").await.expect("there");
    assert_eq!(
        web["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    for replicas in [7, 1] {
        let patch = Patch::merge(json!({"spec": {"replicas": replicas}}));
        api.patch(&DEPLOYMENTS, Part::Object, HERE, "web", &patch)
            .await
            .expect("patched");
        until("scaled", async || {
            is_rolled_out(&api, "web").await && all(&api, &PODS).await.len() == replicas
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_lost_is_replaced_and_one_that_is_relabelled_is_let_go() {
    let (api, _dir) = start().await;
    let created = api.create(&DEPLOYMENTS, HERE, deployment("web", 2, "web:1"));
    created.await.expect("created");
    until("rollout", async || is_rolled_out(&api, "web").await).await;
    let pods = all(&api, &PODS).await;
    let lost = object::name(&pods[0]).to_owned();
    api.delete(&PODS, HERE, &lost, &DeleteOptions::now())
        .await
        .expect("deleted");
    let freed = object::name(&pods[1]).to_owned();
    let patch = Patch::merge(json!({"metadata": {"labels": {"app": "other"}}}));
    api.patch(&PODS, Part::Object, HERE, &freed, &patch)
        .await
        .expect("patched");
    until("replaced", async || all(&api, &PODS).await.len() == 3).await;
    until("released", async || {
        let pod = api.get(&PODS, HERE, &freed).await.expect("stays");
        pod["metadata"].get("ownerReferences").is_none()
    })
    .await;
    // Back with its label it is adopted, and one is too many.
    let patch = Patch::merge(json!({"metadata": {"labels": {"app": "web"}}}));
    let _ = api.patch(&PODS, Part::Object, HERE, &freed, &patch).await;
    until("two again", async || all(&api, &PODS).await.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_takes_the_pods_along_before_after_or_not_at_all() {
    let (api, _dir) = start().await;
    for propagation in [
        None,
        Some(Propagation::Background),
        Some(Propagation::Foreground),
    ] {
        let created = api.create(&DEPLOYMENTS, HERE, deployment("web", 2, "web:1"));
        created.await.expect("created");
        until("rollout", async || is_rolled_out(&api, "web").await).await;
        let options = DeleteOptions {
            propagation,
            ..DeleteOptions::default()
        };
        api.delete(&DEPLOYMENTS, HERE, "web", &options)
            .await
            .expect("deleted");
        if propagation == Some(Propagation::Foreground) {
            until("owner gone", async || {
                api.get(&DEPLOYMENTS, HERE, "web").await.is_err()
            })
            .await;
            assert!(all(&api, &PODS).await.is_empty(), "pods go first");
            assert!(all(&api, &REPLICA_SETS).await.is_empty());
        }
        until("everything gone", async || {
            all(&api, &PODS).await.is_empty() && all(&api, &REPLICA_SETS).await.is_empty()
        })
        .await;
    }
    let created = api.create(&DEPLOYMENTS, HERE, deployment("web", 2, "web:1"));
    created.await.expect("created");
    until("rollout", async || is_rolled_out(&api, "web").await).await;
    let options = DeleteOptions {
        propagation: Some(Propagation::Orphan),
        ..DeleteOptions::default()
    };
    api.delete(&DEPLOYMENTS, HERE, "web", &options)
        .await
        .expect("deleted");
    until("owner gone", async || {
        api.get(&DEPLOYMENTS, HERE, "web").await.is_err()
    })
    .await;
    let sets = all(&api, &REPLICA_SETS).await;
    assert_eq!(sets.len(), 1);
    assert!(sets[0]["metadata"].get("ownerReferences").is_none());
    // A Deployment that selects it takes it over, and nothing is made anew.
    let created = api.create(&DEPLOYMENTS, HERE, deployment("web", 2, "web:1"));
    created.await.expect("created");
    until("rollout", async || is_rolled_out(&api, "web").await).await;
    let adopted = all(&api, &REPLICA_SETS).await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(object::uid(&adopted[0]), object::uid(&sets[0]));
}
