//! A server with its controllers, and kubectl that is asked until it answers as expected.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use kube::controllers::ControllersConfig;

use crate::common::{TestServer, kubectls};
use crate::kubelet;

/// For what controllers do on a loaded machine.
const IN_TIME: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// A server and a kubectl of it.
pub(super) struct World {
    pub(super) server: TestServer,
    kubectl: PathBuf,
}

impl World {
    /// With a kubelet on paper. `None`, and a word about it, where there is no kubectl.
    pub(super) async fn start(test: &str) -> Option<Self> {
        let world = Self::without_controllers(test).await?;
        kubelet::start(&world.server.api);
        world.until("get serviceaccount default", |_| true).await;
        Some(world)
    }

    pub(super) async fn start_with(
        test: &str,
        config: impl FnOnce(&TestServer) -> ControllersConfig,
    ) -> Option<Self> {
        let world = Self::without_controllers(test).await?;
        let config = config(&world.server);
        kubelet::start_with(&world.server.api, config);
        world.until("get serviceaccount default", |_| true).await;
        Some(world)
    }

    pub(super) async fn without_controllers(test: &str) -> Option<Self> {
        let Some(kubectl) = kubectls().pop() else {
            eprintln!("SKIPPED: {test}: no kubectl 1.30 or newer");
            return None;
        };
        let server = TestServer::start().await;
        Some(Self { server, kubectl })
    }

    /// Standard output of a kubectl that must succeed. Words are separated by single blanks.
    pub(super) async fn ok(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        self.server.ok(&self.kubectl, &words).await
    }

    pub(super) async fn run(&self, words: &str) -> Output {
        let words: Vec<_> = words.split(' ').collect();
        self.server.run(&self.kubectl, &words).await
    }

    pub(super) async fn apply(&self, object: &serde_json::Value) {
        let (words, text) = (["apply", "-f", "-"], object.to_string());
        let output = self.server.run_with_input(&self.kubectl, &words, &text);
        let output = output.await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}\n{said}");
    }

    /// Asks until the answer is good, and returns it.
    pub(super) async fn until(&self, words: &str, is_good: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + IN_TIME;
        loop {
            let output = self.run(words).await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && is_good(&text) {
                return text;
            }
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(
                Instant::now() < deadline,
                "not in time: {words}\n{text}{error}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks until all of these are in the answer, runs of blanks counted as one.
    pub(super) async fn until_says(&self, words: &str, parts: &[&str]) -> String {
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let good = |text: &str| {
            let text = squeeze(text);
            parts.iter().all(|part| text.contains(&squeeze(part)))
        };
        self.until(words, good).await
    }
}
