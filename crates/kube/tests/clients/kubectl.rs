//! kubectl of seven releases: every transcript with each of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::task::JoinSet;

use super::world::{World, data, ended_well};

const DIRS: &str = "KUBECTL_DIRS";
const SDK: &str = "/usr/lib/google-cloud-sdk/bin";

/// `kubectl.1.<minor>` in one of `KUBECTL_DIRS` or in the Cloud SDK's package, else the kubectl of
/// `PATH` if it is of that release.
fn program(minor: u32) -> Option<PathBuf> {
    let dirs = std::env::var(DIRS).unwrap_or_default();
    let dirs = dirs.split(':').filter(|dir| !dir.is_empty()).chain([SDK]);
    let name = format!("kubectl.1.{minor}");
    let found = dirs
        .map(|dir| Path::new(dir).join(&name))
        .find(|path| path.exists());
    found.or_else(|| in_path(minor))
}

fn in_path(minor: u32) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut programs = path.split(':').map(|dir| Path::new(dir).join("kubectl"));
    let program = programs.find(|program| program.exists())?;
    let output = Command::new(&program)
        .args(["version", "--client", "-o", "json"])
        .output();
    let text = output.ok()?.stdout;
    let version: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let said = version["clientVersion"]["minor"].as_str()?;
    (said.trim_end_matches('+') == minor.to_string()).then_some(program)
}

async fn play(minor: u32) {
    let Some(program) = program(minor) else {
        eprintln!("SKIPPED: kubectl 1.{minor}: there is none here (set {DIRS})");
        return;
    };
    let dir = data().join("kubectl");
    // For one of them alone.
    let only = std::env::var("TRANSCRIPT").unwrap_or_default();
    let mut playing = JoinSet::new();
    for name in TRANSCRIPTS.iter().filter(|name| name.contains(&only)) {
        let text = std::fs::read_to_string(dir.join(name).with_extension("txt")).expect("read");
        let (program, files) = (program.clone(), dir.join("files"));
        let name = format!("kubectl 1.{minor} {name}");
        playing.spawn(async move {
            let world = World::start().await;
            world.install("kubectl", &program);
            world.copy(&files);
            world.play(&name, &text, minor).await;
        });
    }
    ended_well(playing).await;
}

const TRANSCRIPTS: [&str; 8] = [
    "discovery",
    "objects",
    "create",
    "apply",
    "workloads",
    "nodes",
    "custom",
    "describe",
];

macro_rules! releases {
    ($($name:ident $minor:literal)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            play($minor).await;
        }
    )*};
}

releases! {
    release_1_27_does_all_that_people_type 27
    release_1_28_does_all_that_people_type 28
    release_1_29_does_all_that_people_type 29
    release_1_30_does_all_that_people_type 30
    release_1_31_does_all_that_people_type 31
    release_1_32_does_all_that_people_type 32
    release_1_33_does_all_that_people_type 33
}
