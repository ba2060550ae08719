//! StatefulSets, Jobs and their like in process, with a kubelet on paper.

mod common;
mod kubelet;

use common::objects::{HERE, all, merge, open, reasons, until};
use kube::api::{Api, DeleteOptions, Propagation};
use kube::object;
use kube::resource::{
    CONTROLLER_REVISIONS, CRON_JOBS, JOBS, PERSISTENT_VOLUME_CLAIMS, PODS, REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
};
use serde_json::{Value, json};

async fn start() -> (Api, tempfile::TempDir) {
    let (api, dir) = open().await;
    kubelet::start(&api);
    (api, dir)
}

fn template(app: &str, image: &str, restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": image}]}})
}

fn stateful_set(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": 3, "serviceName": name, "selector": {"matchLabels": {"app": name}},
        "template": template(name, "web:1", "Always"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

async fn is_current(api: &Api, name: &str, replicas: i64) -> bool {
    let set = api.get(&STATEFUL_SETS, HERE, name).await.expect("there");
    let status = &set["status"];
    status["observedGeneration"] == set["metadata"]["generation"]
        && ["replicas", "availableReplicas"]
            .iter()
            .all(|field| status[field] == replicas)
        && (replicas == 0 || status["updatedReplicas"] == replicas)
        && status["currentRevision"] == status["updateRevision"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_rolls_out_over_and_back_and_keeps_its_claims() {
    let (api, _dir) = start().await;
    let created = api.create(&STATEFUL_SETS, HERE, stateful_set("db"));
    created.await.expect("created");
    until("rollout", async || is_current(&api, "db", 3).await).await;
    let pods = all(&api, &PODS).await;
    let names: Vec<_> = pods.iter().map(object::name).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    assert_eq!(all(&api, &PERSISTENT_VOLUME_CLAIMS).await.len(), 3);
    let image = json!({"spec": {"template": {"spec": {"containers":
        [{"name": "c", "image": "web:2"}]}}}});
    merge(&api, &STATEFUL_SETS, "db", image).await;
    until("second rollout", async || {
        let pods = all(&api, &PODS).await;
        let is_new = |pod: &Value| pod["spec"]["containers"][0]["image"] == "web:2";
        pods.len() == 3 && pods.iter().all(is_new) && is_current(&api, "db", 3).await
    })
    .await;
    assert_eq!(all(&api, &CONTROLLER_REVISIONS).await.len(), 2);
    merge(&api, &STATEFUL_SETS, "db", json!({"spec": {"replicas": 1}})).await;
    until("fewer", async || {
        all(&api, &PODS).await.len() == 1 && is_current(&api, "db", 1).await
    })
    .await;
    assert_eq!(all(&api, &PERSISTENT_VOLUME_CLAIMS).await.len(), 3);
    assert!(
        reasons(&api, "StatefulSet")
            .await
            .contains(&"SuccessfulCreate".to_owned())
    );
    let options = DeleteOptions {
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    };
    api.delete(&STATEFUL_SETS, HERE, "db", &options)
        .await
        .expect("deleted");
    until("gone", async || {
        let left = all(&api, &PODS).await.len() + all(&api, &CONTROLLER_REVISIONS).await.len();
        left == 0 && all(&api, &STATEFUL_SETS).await.is_empty()
    })
    .await;
}

/// Ends a pod as its kubelet would.
async fn end(api: &Api, pod: &Value, phase: &str) {
    let mut ended = api
        .get(&PODS, HERE, object::name(pod))
        .await
        .expect("there");
    ended["status"]["phase"] = phase.into();
    ended["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    object::meta_mut(&mut ended).remove("resourceVersion");
    api.update_status(&PODS, HERE, ended).await.expect("ended");
}

async fn running(api: &Api) -> Vec<Value> {
    let mut pods = all(api, &PODS).await;
    pods.retain(|pod| pod["status"]["phase"] == "Running" && !object::is_terminating(pod));
    pods
}

fn job(name: &str, spec: &Value) -> Value {
    let mut job = json!({"metadata": {"name": name},
        "spec": {"manualSelector": true, "selector": {"matchLabels": {"app": name}},
            "template": template(name, "work:1", "Never")}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_counts_its_pods_and_goes_when_its_time_is_over() {
    let (api, _dir) = start().await;
    let spec = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed",
        "ttlSecondsAfterFinished": 1});
    api.create(&JOBS, HERE, job("work", &spec))
        .await
        .expect("created");
    for _ in 0..3 {
        until("runs", async || !running(&api).await.is_empty()).await;
        end(&api, &running(&api).await[0], "Succeeded").await;
    }
    until("complete", async || {
        let events = reasons(&api, "Job").await;
        events.contains(&"Completed".to_owned()) || all(&api, &JOBS).await.is_empty()
    })
    .await;
    until("gone", async || {
        all(&api, &JOBS).await.is_empty() && all(&api, &PODS).await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_deleted_leaves_no_pod_behind() {
    let (api, _dir) = start().await;
    api.create(&JOBS, HERE, job("work", &json!({"parallelism": 2})))
        .await
        .expect("created");
    until("runs", async || running(&api).await.len() == 2).await;
    let options = DeleteOptions {
        propagation: Some(Propagation::Background),
        ..DeleteOptions::default()
    };
    api.delete(&JOBS, HERE, "work", &options)
        .await
        .expect("deleted");
    until("gone", async || all(&api, &PODS).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_makes_jobs_by_the_clock() {
    let (api, _dir) = start().await;
    let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "@every 1s",
        "successfulJobsHistoryLimit": 1, "concurrencyPolicy": "Forbid",
        "jobTemplate": {"spec": {"manualSelector": true,
            "selector": {"matchLabels": {"app": "tick"}},
            "template": template("tick", "work:1", "OnFailure")}}}});
    api.create(&CRON_JOBS, HERE, cron).await.expect("created");
    until("active", async || {
        let cron = api.get(&CRON_JOBS, HERE, "tick").await.expect("there");
        object::items(&cron, &["status", "active"]).len() == 1
    })
    .await;
    until("runs", async || !running(&api).await.is_empty()).await;
    end(&api, &running(&api).await[0], "Succeeded").await;
    until("seen", async || {
        let events = reasons(&api, "CronJob").await;
        ["SuccessfulCreate", "SawCompletedJob"]
            .iter()
            .all(|reason| events.iter().any(|one| one == reason))
    })
    .await;
    merge(&api, &CRON_JOBS, "tick", json!({"spec": {"suspend": true}})).await;
    api.delete(&CRON_JOBS, HERE, "tick", &DeleteOptions::default())
        .await
        .expect("deleted");
    until("gone", async || all(&api, &JOBS).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_keeps_its_number_of_pods() {
    let (api, _dir) = start().await;
    let controller = json!({"metadata": {"name": "old"}, "spec": {"replicas": 3,
        "selector": {"app": "old"}, "template": template("old", "web:1", "Always")}});
    api.create(&REPLICATION_CONTROLLERS, HERE, controller)
        .await
        .expect("created");
    until("three", async || running(&api).await.len() == 3).await;
    merge(
        &api,
        &REPLICATION_CONTROLLERS,
        "old",
        json!({"spec": {"replicas": 1}}),
    )
    .await;
    until("one", async || {
        let found = api.get(&REPLICATION_CONTROLLERS, HERE, "old").await;
        all(&api, &PODS).await.len() == 1 && found.expect("there")["status"]["replicas"] == 1
    })
    .await;
}
