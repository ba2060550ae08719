//! A server with its controllers and a kubelet on paper, and shells in which a client finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use super::transcript::{self, Answer};
use crate::common::TestServer;
use crate::kubelet;

/// For one command of a transcript. Watches and informers of clients end earlier.
const COMMAND_S_MAX: &str = "120";

/// Worlds that are played at the same time, of all tests together. A shell waits for its client, and
/// a client for its server, so that one of them alone does not keep a processor busy.
const WORLDS_PER_PROCESSOR: usize = 3;

static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(WORLDS_PER_PROCESSOR * processors)
});

pub(super) struct World {
    _turn: SemaphorePermit<'static>,
    server: TestServer,
    /// Environment of the shells beside what they inherit.
    environment: Vec<(String, String)>,
}

impl World {
    /// Waits for its turn.
    pub(super) async fn start() -> Self {
        let turn = TURNS.acquire().await.expect("never closed");
        let server = TestServer::start().await;
        kubelet::start(&server.api);
        let home = server.dir.path().join("home");
        let work = server.dir.path().join("work");
        let bin = server.dir.path().join("bin");
        for dir in [&home, &work, &bin] {
            fs::create_dir_all(dir).expect("made");
        }
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = vec![
            ("HOME".into(), text(&home)),
            (
                "KUBECONFIG".into(),
                text(&server.dir.path().join("admin.conf")),
            ),
            ("KUBECACHEDIR".into(), text(&home.join("cache"))),
            ("PATH".into(), format!("{}:{path}", text(&bin))),
            // Most of what a command in Go costs is its own start, and a quarter of that is the
            // collection of garbage that it does not live to need.
            ("GOGC".into(), "off".into()),
            ("GOMEMLIMIT".into(), "256MiB".into()),
            (
                "SERVER".into(),
                format!("https://127.0.0.1:{}", server.port),
            ),
        ];
        Self {
            _turn: turn,
            server,
            environment,
        }
    }

    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Makes `program` known to the shells as `name`.
    pub(super) fn install(&self, name: &str, program: &Path) {
        let link = self.server.dir.path().join("bin").join(name);
        std::os::unix::fs::symlink(program, link).expect("linked");
    }

    /// Copies the files of a directory to where the shells begin.
    pub(super) fn copy(&self, from: &Path) {
        copy(from, &self.server.dir.path().join("work"));
    }

    /// Plays a transcript; panics with everything that went otherwise.
    pub(super) async fn play(self, name: &str, text: &str, minor: u32) {
        let steps = transcript::parse(text);
        let work = self.server.dir.path().join("work");
        let environment = self.environment.clone();
        let begin = Instant::now();
        let run = move || transcript::play(&steps, minor, |line| shell(&work, &environment, line));
        let problems = tokio::task::spawn_blocking(run).await.expect("no panic");
        eprintln!("{name}: {:.1?}", begin.elapsed());
        self.server.stop().await;
        let count = problems.len();
        assert!(
            problems.is_empty(),
            "{name}: {count} differ\n{}",
            problems.join("\n")
        );
    }
}

/// Waits for all; panics with how many did not go as they should, which have told why.
pub(super) async fn ended_well(mut playing: JoinSet<()>) {
    let (all, mut failures) = (playing.len(), 0);
    while let Some(played) = playing.join_next().await {
        failures += usize::from(played.is_err());
    }
    assert!(failures == 0, "{failures} of {all} differ");
}

fn shell(work: &Path, environment: &[(String, String)], line: &str) -> Answer {
    let output = Command::new("timeout")
        .args([COMMAND_S_MAX, "sh", "-c", &format!("exec 2>&1\n{line}")])
        .current_dir(work)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Answer {
        success: output.status.success(),
        text,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The directory with the transcripts.
pub(super) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}
