//! The life of a packet: from a client outside through a gateway, over the mesh, by a service's
//! name and address, to a pod on another host; and the packets that must not live. Three hosts,
//! each in a namespace, on a network that loses packets and has its cables pulled.

mod isolation;
mod outside;
mod trouble;

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use testbed::{Fleet, Host, Snapshot, eventually, kubectls, skip, succeed};
use types::SixPn;

pub(crate) const IMAGE: &str = "localhost/hello:1";
/// What pods and clients outside call the service.
pub(crate) const SERVICE: &str = "web.default.svc.cluster.local";
/// The host whose gateway is used: neither the authority nor the one that has its cable pulled.
pub(crate) const GATEWAY: usize = 1;

/// One fleet at a time: the snapshots are of the whole machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let there = |program: &str| {
        folders
            .iter()
            .any(|at| Path::new(at).join(program).exists())
    };
    let needed = ["ip", "nft", "nsenter", "wg", "wireguard-go"];
    let program = needed.into_iter().find(|program| !there(program))?;
    Some(format!("needs {program}"))
}

#[test]
fn life_of_a_packet() {
    if let Some(why) = missing() {
        return skip("life_of_a_packet", &why);
    }
    let kubectls = kubectls();
    let Some(kubectl) = kubectls.last() else {
        return skip(
            "life_of_a_packet",
            "no kubectl of 1.30 or newer; set KUBECTL_DIR",
        );
    };
    let _turn = turn();
    let before = Snapshot::take();
    let fleet = Fleet::configured(3, "host_silent_s = 10");
    let world = World {
        fleet: &fleet,
        kubectl: kubectl.clone(),
    };
    world.deploy();
    world.pods_reach_their_api_server();
    let client = outside::a_client_reaches_every_pod_by_name(&world);
    outside::strangers_get_no_session(&world);
    trouble::packets_are_lost(&world, &client);
    trouble::a_daemon_is_killed(&world, &client);
    trouble::the_authority_is_away(&world, &client);
    trouble::a_host_is_cut_off_and_returns(&world, &client);
    drop(client);
    taken_down(&fleet, &before);
}

#[test]
fn nothing_crosses_between_networks() {
    if let Some(why) = missing() {
        return skip("nothing_crosses_between_networks", &why);
    }
    let _turn = turn();
    let before = Snapshot::take();
    let fleet = Fleet::new(3);
    isolation::all_pairs(&fleet);
    taken_down(&fleet, &before);
}

#[test]
fn a_host_joins_once_or_says_why_not() {
    if let Some(why) = missing() {
        return skip("a_host_joins_once_or_says_why_not", &why);
    }
    let _turn = turn();
    let before = Snapshot::take();
    let fleet = Fleet::new(2);
    trouble::joining_is_refused(&fleet);
    trouble::a_start_that_fails_leaves_nothing(&fleet);
    trouble::a_host_is_removed(&fleet);
    taken_down(&fleet, &before);
}

fn taken_down(fleet: &Fleet, before: &Snapshot) {
    for host in fleet.hosts() {
        host.down();
    }
    let left = Snapshot::take().since_hosts(before, fleet.hosts());
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// What every part of the life needs.
pub(crate) struct World<'a> {
    pub(crate) fleet: &'a Fleet,
    kubectl: PathBuf,
}

/// A pod, as Kubernetes tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: Ipv6Addr,
    pub(crate) restarts: u64,
    pub(crate) ready: bool,
}

impl Pod {
    /// The host that it is on.
    pub(crate) fn host(&self) -> u16 {
        let address = SixPn::from_addr(self.address).expect("a pod has a machine's address");
        address.host.number()
    }
}

impl World<'_> {
    pub(crate) fn k(&self, words: &[&str]) -> String {
        succeed(&mut self.fleet.host(0).kubectl(&self.kubectl, words))
    }

    /// A Deployment, a pod that is a virtual machine, and a Service for both.
    fn deploy(&self) {
        let image = format!("--image={IMAGE}");
        self.k(&["create", "deployment", "web", &image, "--replicas=1"]);
        self.k(&["scale", "deployment", "web", "--replicas=3"]);
        self.k(&[
            "expose",
            "deployment",
            "web",
            "--port=80",
            "--target-port=8080",
        ]);
        let classes = self.k(&["get", "runtimeclasses", "-o", "name"]);
        if classes.contains("emulated") {
            let overrides = r#"--overrides={"spec":{"runtimeClassName":"emulated"}}"#;
            self.k(&["run", "virtual", &image, "--labels=app=web", overrides]);
            self.k(&[
                "wait",
                "--for=condition=Ready",
                "pod/virtual",
                "--timeout=120s",
            ]);
        } else {
            skip(
                "a pod of class emulated",
                "this host does not offer it; see doctor",
            );
        }
        let available = "--for=condition=Available";
        self.k(&["wait", available, "deployment/web", "--timeout=120s"]);
    }

    /// From every host that has pods: the control plane is on one of them.
    fn pods_reach_their_api_server(&self) {
        // The pods' own client is too old for its TLS; being told so by the other end is an answer.
        let script = "timeout 5 wget -qO- --no-check-certificate \
                      https://kubernetes.default/version 2>&1; true";
        for pod in self.pods_until("three pods or four", |pods| pods.len() >= 3) {
            let words = ["exec", &pod.name, "--", "sh", "-c", script];
            eventually("the API server's answer", || {
                let mut asked = self.fleet.host(0).kubectl(&self.kubectl, &words);
                let output = asked.output().map_err(|error| error.to_string())?;
                let said = String::from_utf8_lossy(&output.stdout);
                if said.contains("gitVersion") || said.contains("TLS error from peer") {
                    return Ok(());
                }
                Err(format!("{pod:?}: {output:?}"))
            });
        }
    }

    /// The pods behind the service.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        let text = self.k(&["get", "pods", "-l", "app=web", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let rows = list["items"].as_array().expect("a list").iter();
        rows.filter_map(|row| {
            let status = &row["status"];
            let is_ready = |condition: &&serde_json::Value| {
                condition["type"] == "Ready" && condition["status"] == "True"
            };
            let conditions = status["conditions"].as_array();
            Some(Pod {
                name: row["metadata"]["name"].as_str()?.to_owned(),
                address: status["podIP"].as_str()?.parse().ok()?,
                restarts: status["containerStatuses"][0]["restartCount"].as_u64()?,
                ready: row["metadata"]["deletionTimestamp"].is_null()
                    && conditions.is_some_and(|all| all.iter().any(|c| is_ready(&c))),
            })
        })
        .collect()
    }

    /// The pods that are ready, once there are as many as there should be and `holds` says so.
    pub(crate) fn pods_until(&self, what: &str, holds: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        eventually(what, || {
            let mut pods = self.pods();
            pods.retain(|pod| pod.ready);
            if holds(&pods) {
                return Ok(pods);
            }
            Err(format!("{pods:#?}"))
        })
    }

    pub(crate) fn host(&self, index: usize) -> &Host {
        self.fleet.host(index)
    }
}
