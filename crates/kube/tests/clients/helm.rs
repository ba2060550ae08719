//! Helm 3 and 4 through the whole life of a release, in both ways of writing objects.

use super::programs;
use super::world::{World, data};

async fn live(test: &str, helm: &str, mode: &str, rollback: &str) {
    let Some(programs) = programs::get(test, "helm") else {
        return;
    };
    let dir = data().join("helm");
    let mut world = World::start().await;
    world.install("helm", &programs.join(helm));
    world.copy(&dir);
    world.set("MODE", mode);
    world.set("ROLLBACK", rollback);
    let text = std::fs::read_to_string(dir.join("life.txt")).expect("read");
    world.play(test, &text, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_3_installs_upgrades_and_removes() {
    live(
        "helm_3_installs_upgrades_and_removes",
        "helm3",
        "",
        "--atomic",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_4_works_with_server_side_apply() {
    let test = "helm_4_works_with_server_side_apply";
    live(test, "helm4", "--server-side=true", "--rollback-on-failure").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_4_works_with_client_side_merges() {
    let test = "helm_4_works_with_client_side_merges";
    live(
        test,
        "helm4",
        "--server-side=false",
        "--rollback-on-failure",
    )
    .await;
}
