//! Two control planes of one cluster, in processes of their own on one etcd. The one that leads is
//! killed with kill -9: the other goes on, and no pod has two machines, or two places.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testbed::{Host, Snapshot, eventually, kubectls, skip, succeed};

const IMAGE: &str = "localhost/hello:1";
/// What only one of several may do, by the leases in which they agree on it.
const LEASES: usize = 4;

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(dir: &Path) -> (Process, String) {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let (clients, peers) = (free(), free());
    let child = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args([
            "--name",
            "test",
            "--initial-cluster",
            &format!("test={peers}"),
        ])
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts");
    let etcd = Process(child);
    eventually("etcd", || {
        let address = clients.trim_start_matches("http://");
        TcpStream::connect(address).map_err(|error| error.to_string())
    });
    (etcd, clients)
}

/// One control plane.
struct Plane {
    process: Process,
    dir: PathBuf,
}

impl Plane {
    /// With the keys that are in `dir`, or with new ones.
    fn start(host: &Host, etcd: &str, dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a folder");
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        let child = host
            .aerostat(&[
                "kubernetes",
                "--etcd",
                etcd,
                "--listen",
                "127.0.0.1:0",
                "--dir",
            ])
            .arg(&dir)
            .stderr(log)
            .spawn()
            .expect("aerostat starts");
        let plane = Self {
            process: Process(child),
            dir,
        };
        eventually("a control plane", || {
            let output = plane.kubectl(host, &["get", "--raw", "/readyz"]).output();
            match output.map_err(|error| error.to_string())? {
                output if output.status.success() => Ok(()),
                output => Err(format!("{output:?}\n{}", plane.log())),
            }
        });
        plane
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn kubectl(&self, host: &Host, words: &[&str]) -> Command {
        let kubectl = kubectls().pop().expect("looked for before");
        let mut command = host.kubectl(&kubectl, words);
        command.env("KUBECONFIG", self.dir.join("kubeconfig"));
        command
    }

    fn json(&self, host: &Host, words: &[&str]) -> Value {
        let text = succeed(self.kubectl(host, words).args(["-o", "json"]));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Who holds each lease of what only one may do.
    fn holders(&self, host: &Host) -> BTreeMap<String, String> {
        let leases = self.json(host, &["-n", "kube-system", "get", "leases"]);
        let leases = leases["items"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let holder = |one: &Value| text(&one["spec"]["holderIdentity"]);
        let held = leases.iter().filter(|one| !holder(one).is_empty());
        held.map(|one| (text(&one["metadata"]["name"]), holder(one)))
            .collect()
    }

    fn await_pods(&self, host: &Host, count: usize) {
        eventually("pods", || {
            let pods = self.json(host, &["get", "pods", "-l", "app=web"]);
            let pods = pods["items"].as_array().expect("a list");
            let running = pods
                .iter()
                .filter(|pod| pod["status"]["phase"] == "Running");
            match (pods.len(), running.count()) {
                (all, running) if all == count && running == count => Ok(()),
                counted => Err(format!("{counted:?}\n{}", self.log())),
            }
        });
    }
}

/// Machines by the uid of their pod.
fn machines(host: &Host) -> BTreeMap<String, Vec<String>> {
    let listed = host.json(&["machine", "list", "-a", "kubernetes"]);
    let mut machines = BTreeMap::<_, Vec<_>>::new();
    for machine in listed.expect("a list").as_array().expect("a list") {
        let text = |field: &str| machine[field].as_str().unwrap_or_default().to_owned();
        machines.entry(text("name")).or_default().push(text("id"));
    }
    machines
}

#[test]
fn a_control_plane_that_is_killed_is_followed_by_the_other_and_nothing_is_done_twice() {
    let test = "a_control_plane_that_is_killed_is_followed_by_the_other";
    if kubectls().is_empty() {
        return skip(test, "no kubectl of 1.30 or newer; set KUBECTL_DIR");
    }
    if Command::new("etcd").arg("--version").output().is_err() {
        return skip(test, "no etcd is installed");
    }
    let before = Snapshot::take();
    let host = Host::new();
    host.configure("kubernetes = false");
    host.up();
    let (etcd, url) = etcd(host.folder());
    let first = Plane::start(&host, &url, host.folder().join("first"));
    let led = eventually("leases", || match first.holders(&host) {
        holders if holders.len() == LEASES => Ok(holders),
        holders => Err(format!("{holders:?}")),
    });
    // Of one cluster: with its keys.
    let pki = host.folder().join("second/pki");
    succeed(Command::new("mkdir").arg(host.folder().join("second")));
    succeed(
        Command::new("cp")
            .arg("-r")
            .arg(host.folder().join("first/pki"))
            .arg(pki),
    );
    let second = Plane::start(&host, &url, host.folder().join("second"));
    let image = format!("--image={IMAGE}");
    let create = ["create", "deployment", "web", &image, "--replicas=3"];
    succeed(&mut second.kubectl(&host, &create));
    second.await_pods(&host, 3);
    let early = machines(&host);
    assert_eq!(second.holders(&host), led, "the first leads while it lives");
    drop(first.process);
    succeed(&mut second.kubectl(&host, &["scale", "deployment", "web", "--replicas=5"]));
    second.await_pods(&host, 5);
    let holders = second.holders(&host);
    assert!(
        holders.iter().all(|(lease, holder)| led[lease] != *holder),
        "{holders:?}"
    );
    let late = machines(&host);
    assert_eq!(late.len(), 5, "{late:?}");
    assert!(late.values().all(|ids| ids.len() == 1), "{late:?}");
    assert!(
        early.iter().all(|(pod, ids)| late[pod] == *ids),
        "{early:?} {late:?}"
    );
    let events = second.json(&host, &["get", "events"]);
    for reason in ["Scheduled", "SuccessfulCreate", "Started"] {
        let events = events["items"].as_array().expect("a list").iter();
        let told = events.filter(|event| event["reason"] == reason);
        let counts: Vec<_> = told.map(|event| event["count"].clone()).collect();
        assert_eq!(counts, [1; 5], "{reason}");
    }
    succeed(&mut second.kubectl(&host, &["delete", "deployment", "web"]));
    eventually("no machines", || match machines(&host) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    drop((second, etcd));
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}
