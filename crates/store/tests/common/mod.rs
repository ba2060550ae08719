//! A store of either kind for a test, with what the test needs to look behind it.

#![allow(
    dead_code,
    reason = "each test program uses the part of this that it needs"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use store::{Config, EtcdConfig, History, Store};
use tempfile::TempDir;

/// A real etcd of this test's own.
pub(crate) struct Etcd {
    child: Child,
    pub(crate) endpoint: String,
    peer: String,
    dir: TempDir,
    arguments: Vec<String>,
}

impl Etcd {
    /// `None`, and a word about it, where no etcd is installed.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "http", &[])
    }

    /// With these arguments as well.
    pub(crate) fn start_with(test: &str, scheme: &str, arguments: &[&str]) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            eprintln!("SKIPPED: {test}: no etcd is installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let (endpoint, peer) = (free_address(scheme), free_address("http"));
        let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
        let child = spawn(dir.path(), &endpoint, &peer, &arguments);
        let etcd = Self {
            child,
            endpoint,
            peer,
            dir,
            arguments,
        };
        etcd.wait_until_ready();
        Some(etcd)
    }

    fn wait_until_ready(&self) {
        let address = self.endpoint.split("//").nth(1).expect("an address");
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and the same member again.
    pub(crate) fn crash(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("reaped");
        self.child = spawn(self.dir.path(), &self.endpoint, &self.peer, &self.arguments);
        self.wait_until_ready();
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            compact_every: None,
            ..EtcdConfig::new(vec![self.endpoint.clone()])
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, endpoint: &str, peer: &str, arguments: &[String]) -> Child {
    Command::new("etcd")
        .args(["--data-dir", &dir.display().to_string(), "--name", "test"])
        .args(["--listen-client-urls", endpoint])
        .args(["--advertise-client-urls", endpoint])
        .args(["--listen-peer-urls", peer])
        .args(["--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts etcd")
}

fn free_address(scheme: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("{scheme}://{}", listener.local_addr().expect("bound"))
}

/// One of the two kinds, which can be opened again and again.
pub(crate) enum Place {
    Sqlite(TempDir, History),
    Etcd(Etcd, History),
}

impl Place {
    /// A place of each kind that this machine can have.
    pub(crate) fn both(test: &str, history: &History) -> Vec<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut places = vec![Self::Sqlite(dir, history.clone())];
        places.extend(Etcd::start(test).map(|etcd| Self::Etcd(etcd, history.clone())));
        places
    }

    pub(crate) async fn open(&self) -> Store {
        match self {
            Self::Sqlite(dir, history) => Store::open(&Config {
                history: history.clone(),
                ..Config::new(dir.path().join("store.db"))
            })
            .expect("opens"),
            Self::Etcd(etcd, history) => Store::open_etcd(&EtcdConfig {
                history: history.clone(),
                ..etcd.config()
            })
            .await
            .expect("opens"),
        }
    }
}
