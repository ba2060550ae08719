//! The custom resource definitions of well-known projects, from `clients/setup`, and objects of their
//! kinds.

use std::path::PathBuf;

use tokio::task::JoinSet;

use super::programs;
use super::world::{World, data, ended_well};
use crate::common::kubectls;

const PROJECTS: [&str; 5] = [
    "argo",
    "cert-manager",
    "cloudnative-pg",
    "kyverno",
    "prometheus-operator",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_definitions_of_real_projects_are_served() {
    let test = "the_definitions_of_real_projects_are_served";
    let Some(definitions) = programs::get(test, "definitions") else {
        return;
    };
    let Some(kubectl) = kubectls().pop() else {
        eprintln!("SKIPPED: {test}: no kubectl of 1.30 or newer");
        return;
    };
    let dir = data().join("definitions");
    let mut playing = JoinSet::new();
    for project in PROJECTS {
        let (kubectl, definitions): (PathBuf, PathBuf) = (kubectl.clone(), definitions.clone());
        let dir = dir.clone();
        playing.spawn(async move {
            let file = dir.join(project).with_extension("txt");
            let text = std::fs::read_to_string(file).expect("read");
            let mut world = World::start().await;
            world.install("kubectl", &kubectl);
            world.copy(&dir);
            world.set("DEFINITIONS", definitions.to_str().expect("UTF-8"));
            world.play(project, &text, 0).await;
        });
    }
    ended_well(playing).await;
}
