//! A server on a loopback port with pods that exist on paper only, and kubectl to drive it.
#![allow(dead_code, reason = "no program of tests uses all of it")]

pub(crate) mod objects;
pub(crate) mod tls;

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use kube::api::{Api, ClusterIpError, ClusterIps};
use kube::identity::{self, Identity};
use kube::pki::{self, Pki};
use kube::server::{Audit, AuditConfig, ServerConfig, serve};
use kube::status::Status;
use kube::streams::{
    EXEC_CHANNEL_MAX, ExecInput, ExecIo, ExecOutput, ExecRequest, LogQuery, LogStream, PodStreams,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Pods of a provider that is not there: a three-line log, and a few commands.
struct PaperPods;

impl PodStreams for PaperPods {
    fn logs<'a>(
        &'a self,
        _pod: &'a Value,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Status>> {
        Box::pin(async move {
            let lines = ["one\n", "two\n", "three\n"];
            let skip = query
                .tail_lines
                .map_or(0, |tail| 3 - usize::try_from(tail).unwrap_or(3).min(3));
            let lines = lines.into_iter().skip(skip);
            let chunks = lines.map(|line| Ok(Bytes::from_static(line.as_bytes())));
            Ok(futures::stream::iter(chunks.collect::<Vec<_>>()).boxed())
        })
    }

    fn exec<'a>(
        &'a self,
        _pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecIo, Status>> {
        Box::pin(async move {
            if request.command == ["refuse"] {
                return Err(Status::unavailable("the machine is not running"));
            }
            let (input, mut from_client) = mpsc::channel(EXEC_CHANNEL_MAX);
            let (to_client, output) = mpsc::channel(EXEC_CHANNEL_MAX);
            tokio::spawn(async move {
                let words: Vec<_> = request.command.iter().map(String::as_str).collect();
                let code = match words[..] {
                    [] if request.attach => {
                        let text = Bytes::from_static(b"attached\n");
                        let _ = to_client.send(ExecOutput::Stdout(text)).await;
                        0
                    }
                    ["cat"] => {
                        while let Some(ExecInput::Stdin(data)) = from_client.recv().await {
                            let _ = to_client.send(ExecOutput::Stdout(data)).await;
                        }
                        0
                    }
                    ["warn", text] => {
                        let text = Bytes::from(format!("{text}\n"));
                        let _ = to_client.send(ExecOutput::Stderr(text)).await;
                        0
                    }
                    ["exit", code] => code.parse().expect("a number"),
                    _ => 127,
                };
                let _ = to_client.send(ExecOutput::Exit { code }).await;
            });
            Ok(ExecIo { input, output })
        })
    }
}

/// Addresses of Services, one after the other.
#[derive(Debug, Default)]
struct Addresses(AtomicU16);

impl ClusterIps for Addresses {
    fn allocate<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<Ipv6Addr, ClusterIpError>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let address = Ipv6Addr::new(0xfdaa, 0, 7, 0, 1, 0, 0, number + 1);
        Box::pin(async move { Ok(address) })
    }
}

pub(crate) struct TestServer {
    #[allow(
        dead_code,
        reason = "not every program of tests looks behind the server"
    )]
    pub(crate) api: Api,
    pub(crate) store: store::Store,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) pki: Pki,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(|api| api).await
    }

    /// A server of an API that `prepare` has something to add to.
    pub(crate) async fn start_with(prepare: impl FnOnce(Api) -> Api) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = store::Config::new(dir.path().join("kube.db"));
        let store = store::Store::open(&config).expect("opens");
        let api = Api::new(store.clone()).with_cluster_ips(Arc::<Addresses>::default());
        let api = prepare(api);
        api.bootstrap().await.expect("namespaces");
        let pki = Pki::open(dir.path()).expect("certificates");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let tls = pki.server_config(&[]).expect("TLS");
        let audit = Audit::open(&AuditConfig::new(dir.path().join("audit.log"))).expect("a log");
        let config = ServerConfig {
            listener,
            tls,
            streams: Arc::new(PaperPods),
            identity: Identity::open(identity::Config::new(dir.path()), &pki).expect("keys"),
            audit: Some(audit),
            usage: None,
        };
        let (stop, stopped) = oneshot::channel();
        let serving = serve(config, api.clone(), async move {
            let _ = stopped.await;
        });
        let serving = Some(tokio::spawn(serving));
        let server = Self {
            api,
            store,
            port,
            dir,
            pki,
            stop: Some(stop),
            serving,
        };
        let admin = server.pki.admin().expect("credentials");
        server.write_kubeconfig("admin.conf", &admin);
        server
    }

    /// Stops the server and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            serving.await.expect("no panic");
        }
    }

    pub(crate) fn write_kubeconfig(&self, name: &str, credentials: &pki::Credentials) {
        let url = format!("https://127.0.0.1:{}", self.port);
        let text = pki::kubeconfig(&url, self.pki.ca_pem(), credentials);
        pki::write_private(&self.dir.path().join(name), &text).expect("written");
    }

    /// kubectl with a home of its own, as the administrator.
    pub(crate) fn kubectl(&self, program: &PathBuf) -> Command {
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", self.dir.path().join("admin.conf"))
            .env("HOME", self.dir.path())
            .env("KUBECACHEDIR", self.dir.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl off the runtime's threads.
    pub(crate) async fn run(&self, program: &PathBuf, args: &[&str]) -> Output {
        self.run_with_input(program, args, "").await
    }

    pub(crate) async fn run_with_input(
        &self,
        program: &PathBuf,
        args: &[&str],
        input: &str,
    ) -> Output {
        let mut command = self.kubectl(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            use std::io::Write;
            let mut child = command.spawn().expect("kubectl starts");
            let mut stdin = child.stdin.take().expect("piped");
            stdin.write_all(input.as_bytes()).expect("written");
            drop(stdin);
            child.wait_with_output().expect("kubectl ends")
        };
        tokio::task::spawn_blocking(run).await.expect("no panic")
    }

    /// Standard output of a kubectl that must succeed.
    pub(crate) async fn ok(&self, program: &PathBuf, args: &[&str]) -> String {
        let output = self.run(program, args).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{program:?} {args:?}\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Standard error of a kubectl that must fail.
    pub(crate) async fn fails(&self, program: &PathBuf, args: &[&str]) -> String {
        let output = self.run(program, args).await;
        assert!(!output.status.success(), "{args:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Every kubectl from 1.30 on that this machine has: in `KUBECTL_DIRS` (separated by colons), in
/// the Cloud SDK's package, or in `PATH`.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let configured = std::env::var("KUBECTL_DIRS").unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = configured
        .split(':')
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .collect();
    dirs.push("/usr/lib/google-cloud-sdk/bin".into());
    let mut found: Vec<_> = dirs
        .iter()
        .flat_map(|dir| (30..60).map(move |minor| dir.join(format!("kubectl.1.{minor}"))))
        .filter(|program| program.exists())
        .collect();
    if found.is_empty() {
        found = path
            .split(':')
            .map(|dir| PathBuf::from(dir).join("kubectl"))
            .filter(|program| program.exists() && minor(program) >= 30)
            .take(1)
            .collect();
    }
    found
}

fn minor(program: &PathBuf) -> u32 {
    let output = Command::new(program)
        .args(["version", "--client", "-o", "json"])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let version: Value = serde_json::from_slice(&text).unwrap_or_default();
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or("0");
    minor.trim_end_matches('+').parse().unwrap_or(0)
}
