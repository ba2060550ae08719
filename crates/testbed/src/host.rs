//! One host: the daemon of the built binary on directories of its own.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{eventually, inside, succeed};

/// A host that is taken down, with everything it left, when it is dropped.
#[derive(Debug)]
pub struct Host {
    folder: TempDir,
    number: u16,
    place: Place,
}

/// Where its daemon runs.
#[derive(Debug)]
enum Place {
    /// Beside the test, on ports that are free.
    Here,
    /// In a network namespace of its own, on the usual ports.
    Inside { netns: String, address: IpAddr },
}

/// Hosts of one test process differ in this, those of two processes in the process id.
static NEXT: AtomicU16 = AtomicU16::new(0);

impl Host {
    /// A host that is not up yet.
    ///
    /// # Panics
    /// If this is not root, or the binary is not built.
    pub fn new() -> Self {
        Self::at(Place::Here)
    }

    /// A host in a network namespace, where others reach it at `address`.
    ///
    /// # Panics
    /// If this is not root, or the binary is not built.
    pub fn inside(netns: &str, address: IpAddr) -> Self {
        let netns = netns.to_owned();
        Self::at(Place::Inside { netns, address })
    }

    fn at(place: Place) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "hosts need root");
        let folder = tempfile::Builder::new()
            .prefix("aerostat-")
            .tempdir()
            .expect("a folder");
        let process = u16::try_from(std::process::id() & 0x0fff).expect("12 bits");
        let number = 0x1000 | (process << 3 & 0xfff8) | NEXT.fetch_add(1, Ordering::Relaxed) & 7;
        let host = Self {
            folder,
            number,
            place,
        };
        host.configure("");
        host
    }

    /// Writes the configuration: where it listens, this host's number, and `more`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn configure(&self, more: &str) {
        let number = self.number;
        let listen = match &self.place {
            Place::Here => "api_listen = \"127.0.0.1:0\"\nkubernetes_listen = \"127.0.0.1:0\"\n\
                 mesh_listen = \"127.0.0.1:0\"\ngateway_listen = \"127.0.0.1:0\"\n\
                 join_listen = \"127.0.0.1:0\""
                .to_owned(),
            Place::Inside { address, .. } => format!("advertise = \"{address}\""),
        };
        let text = format!("host_number = {number}\n{listen}\n{more}\n");
        std::fs::write(self.folder.path().join("aerostat.toml"), text).expect("configuration");
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// A program where this host's daemon runs.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.place {
            Place::Here => Command::new(program),
            Place::Inside { netns, .. } => inside(netns, program),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Four hexadecimal digits, as in the names of what this host has in the kernel.
    pub fn id(&self) -> String {
        format!("{:04x}", self.number)
    }

    /// The command line on this host.
    pub fn aerostat(&self, words: &[&str]) -> Command {
        let mut command = self.program(binary());
        let folder = self.folder.path();
        command
            .args(words)
            .env("AEROSTAT_DATA_DIR", folder.join("data"))
            .env("AEROSTAT_RUN_DIR", folder.join("run"))
            .env("AEROSTAT_CONFIG", folder.join("aerostat.toml"))
            .env("AEROSTAT_GUEST_DIR", guest_dir())
            .env(
                "AEROSTAT_LOG",
                "info,hickory_server=warn,aerostat=debug,vmm=debug,kube=debug",
            )
            .env_remove("FLY_FLAPS_BASE_URL");
        command
    }

    /// What a command prints with `-o json`.
    ///
    /// # Errors
    /// What it said instead, for [`eventually`].
    pub fn json(&self, words: &[&str]) -> Result<Value, String> {
        let mut command = self.aerostat(words);
        let output = command.args(["-o", "json"]).output();
        let output = output.map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// `aerostat up`; returns what it printed.
    ///
    /// # Panics
    /// If it fails; the daemon's log is printed.
    pub fn up(&self) -> String {
        let output = self.aerostat(&["up"]).output().expect("aerostat runs");
        let error = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            self.print_log();
            panic!("up failed: {error}");
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Prints the daemon's log; the harness shows it when the test fails.
    pub fn print_log(&self) {
        let log = std::fs::read_to_string(self.folder.path().join("data/aerostat.log"));
        eprintln!("daemon's log:\n{}", log.unwrap_or_default());
    }

    /// Kills the daemon as a crash would. Machines live on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_daemon(&self) {
        kill(self.daemon(), Signal::SIGKILL).expect("the daemon runs");
        self.await_daemon_end();
    }

    /// Waits for a daemon that dies by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn await_daemon_end(&self) {
        let pid = self.daemon();
        eventually("the daemon's end", || match kill(pid, None) {
            Ok(()) if !is_zombie(pid) => Err("it lives".to_owned()),
            Ok(()) | Err(_) => Ok(()),
        });
    }

    fn daemon(&self) -> Pid {
        let endpoints = self.endpoints();
        let pid = endpoints["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.expect("the daemon's pid"))
    }

    fn endpoints(&self) -> Value {
        let path = self.folder.path().join("run/endpoints.json");
        let bytes = std::fs::read(&path).expect("the daemon is up");
        serde_json::from_slice(&bytes).expect("endpoints")
    }

    /// Resident memory of the daemon, in KiB.
    ///
    /// # Panics
    /// If it does not run.
    pub fn daemon_rss_kib(&self) -> u64 {
        let pid = self.endpoints()["pid"].clone();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("a size");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("data/kubernetes/kubeconfig")
    }

    /// A kubectl on this host's cluster.
    pub fn kubectl(&self, kubectl: &Path, words: &[&str]) -> Command {
        let mut command = self.program(kubectl);
        command
            .args(words)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path());
        command
    }

    /// A client of the Machines API.
    pub fn client(&self) -> Client {
        Client::unix(self.folder.path().join("run/api.sock"))
    }

    /// The `host:port` of the Machines API over TCP, and its token.
    ///
    /// # Panics
    /// If the daemon is not up.
    pub fn api(&self) -> (String, String) {
        let endpoints = self.endpoints();
        let token = endpoints["token_file"].as_str().expect("a path");
        let token = std::fs::read_to_string(token).expect("a token");
        (
            endpoints["api"].as_str().expect("an address").to_owned(),
            token.trim().to_owned(),
        )
    }

    /// `aerostat down`; the data stays.
    ///
    /// # Panics
    /// If it fails.
    pub fn down(&self) {
        succeed(&mut self.aerostat(&["down", "--grace", "1"]));
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_log();
        }
        let down = self
            .aerostat(&["down", "--grace", "0", "--purge", "--yes"])
            .output();
        match down {
            Ok(output) if output.status.success() => {}
            other => eprintln!("could not take the host down: {other:?}"),
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

/// The binary beside this test's own: `target/<profile>/aerostat`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let binary = profile.join("aerostat");
    assert!(
        binary.exists(),
        "{} is missing: cargo build -p aerostat",
        binary.display()
    );
    binary
}

/// Kernel and initial RAM file system for virtual machines.
fn guest_dir() -> PathBuf {
    std::env::var_os("AEROSTAT_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/guest"),
        PathBuf::from,
    )
}
