//! Programs in other languages, each of which does what people use its client library for. They
//! say `done <flow>` when it went as it should.

use std::path::Path;

use tokio::task::JoinSet;

use super::programs;
use super::world::{World, data, ended_well};

/// Each flow on a server of its own.
async fn play(test: &str, client: &str, files: Option<&Path>, command: &str, flows: &[&str]) {
    let Some(program) = programs::get(test, client) else {
        return;
    };
    let mut playing = JoinSet::new();
    for flow in flows {
        let line = format!("$ {command} {flow}\n= done {flow}\n");
        let name = format!("{client} {flow}");
        let (program, files) = (program.clone(), files.map(Path::to_owned));
        playing.spawn(async move {
            let mut world = World::start().await;
            if let Some(files) = files {
                world.copy(&files);
            }
            world.set("CLIENT", program.to_str().expect("UTF-8"));
            world.play(&name, &line, 0).await;
        });
    }
    ended_well(playing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_python_work() {
    let flows = [
        "configmaps",
        "services",
        "apps",
        "batch",
        "crds",
        "watches",
        "dynamics",
        "apply",
        "leader",
        "pods",
    ];
    let files = data().join("python");
    let command = "$CLIENT/bin/python flows.py";
    play(
        "programs_in_python_work",
        "python",
        Some(&files),
        command,
        &flows,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_javascript_work() {
    let flows = ["objects", "dynamic", "watches", "informer", "pods"];
    let files = data().join("node");
    let command = "ln -sfn $CLIENT/node_modules node_modules && node flows.mjs";
    play(
        "programs_in_javascript_work",
        "node",
        Some(&files),
        command,
        &flows,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_with_client_go_work() {
    let flows = [
        "discovery",
        "typed",
        "apply",
        "informers",
        "metadata",
        "dynamic",
        "leader",
        "events",
        "tokens",
        "paging",
    ];
    play(
        "programs_with_client_go_work",
        "go",
        None,
        "$CLIENT/clientgo",
        &flows,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_with_controller_runtime_works() {
    let test = "an_operator_with_controller_runtime_works";
    play(test, "go", None, "$CLIENT/reconciler", &["reconciler"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_with_kube_rs_work() {
    let flows = ["discovery", "dynamic", "crd", "token", "watch", "pods"];
    play(
        "programs_with_kube_rs_work",
        "rust",
        None,
        "$CLIENT/clients",
        &flows,
    )
    .await;
}
