//! A kubelet on paper: binds every pod, says that it is ready, and lets it go when it is deleted.
//! A pod that runs `true` has succeeded at once.

use kube::api::{Api, DeleteOptions, EventKind, Selector};
use kube::controllers::{ControllersConfig, run};
use kube::object;
use kube::resource::{NODES, PODS};
use kube::status::Status;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NODE: &str = "fra";

/// It and the controllers, until the runtime ends.
pub(crate) fn start(api: &Api) {
    start_with(api, ControllersConfig::new("PEM"));
}

/// With controllers that are told this.
pub(crate) fn start_with(api: &Api, config: ControllersConfig) {
    tokio::spawn(run(api.clone(), config, CancellationToken::new()));
    let api = api.clone();
    tokio::spawn(async move {
        // A watch that falls behind ends; what it would have told is in the next list.
        while let Ok(()) = follow(&api).await {}
    });
}

/// Until a watch ends; an error if there is no more to follow.
async fn follow(api: &Api) -> Result<(), Status> {
    let everything = Selector::default();
    let (pods, rev) = api.list(&PODS, None, &everything).await?;
    let mut watch = api.watch(&PODS, None, rev, everything)?;
    for pod in pods {
        care(api, &pod).await;
    }
    loop {
        match watch.next().await {
            Ok(event) if event.kind != EventKind::Deleted => care(api, &event.object).await,
            Ok(_) => {}
            Err(status) if status.code == 410 => return Ok(()),
            Err(status) => return Err(status),
        }
    }
}

/// One step of a pod's life. Whoever was faster brings the pod here again.
async fn care(api: &Api, pod: &Value) {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    if object::is_terminating(pod) {
        let options = DeleteOptions::now().with_uid(object::uid(pod));
        let _ = api.delete(&PODS, namespace, name, &options).await;
    } else if object::text(pod, &["spec", "nodeName"]).is_empty() {
        // Pods of a node that is not there are collected after a while.
        let node = json!({"metadata": {"name": NODE}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}]}});
        let _ = api.create(&NODES, None, node).await;
        let _ = api.bind(namespace.unwrap_or_default(), name, NODE).await;
    } else if object::text(pod, &["status", "phase"]) == "Pending" {
        let _ = api.update_status(&PODS, namespace, settled(pod)).await;
    }
}

/// The pod as it is once its containers run, or have run.
fn settled(pod: &Value) -> Value {
    let over = pod["spec"]["containers"][0]["command"] == json!(["true"]);
    let at = "2026-01-01T00:00:00Z";
    let state = if over {
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at,
            "finishedAt": at}})
    } else {
        json!({"running": {"startedAt": at}})
    };
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let statuses = containers.map(|container| {
        json!({"name": container["name"], "image": container["image"], "imageID": "",
            "ready": !over, "started": !over, "restartCount": 0, "state": state})
    });
    let mut settled = pod.clone();
    let status = &mut settled["status"];
    status["containerStatuses"] = statuses.collect();
    status["phase"] = if over { "Succeeded" } else { "Running" }.into();
    status["conditions"] = json!([{"type": "Ready", "status": if over { "False" } else { "True" },
        "lastTransitionTime": at}]);
    // An address of its own, made of its uid.
    let uid = object::uid(pod).replace('-', "");
    let address = format!("fdaa:0:7:a7b:2:{}:{}:2", &uid[..4], &uid[4..8]);
    status["podIP"] = address.as_str().into();
    status["podIPs"] = json!([{"ip": address}]);
    settled
}
