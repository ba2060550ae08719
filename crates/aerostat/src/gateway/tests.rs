//! The role in namespaces of its own: a host's network, an underlay, and Debian's wireguard-go as
//! two clients. They talk with `<net>::3`, which the host answers.

use std::collections::HashMap;
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Instant;

use net::wireguard::DropReason;
use net::{Egress, HostNetConfig};
use nix::sched::{CloneFlags, setns};
use tokio_util::task::TaskTracker;
use types::SixPn;
use types::sixpn::{host_addr, network_resolver, peer_addr};

use super::*;

/// Namespaces, and numbers of hosts, of concurrent tests must differ.
static WORLDS: AtomicU16 = AtomicU16::new(0);

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().unwrap());
    let output = program.args(words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
}

/// Runs `f` on a thread in a namespace.
fn inside<T: Send>(netns: &str, f: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(netns);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

fn network(id: u32) -> NetworkId {
    NetworkId::try_from(id).unwrap()
}

/// What the directory would know.
#[derive(Default)]
struct Book {
    peers: Mutex<HashMap<PublicKeyText, WireGuardPeer>>,
    is_out: AtomicBool,
}

/// An underlay with a gateway on it.
struct World {
    name: String,
    host: HostId,
    net: HostNet,
    folder: tempfile::TempDir,
    book: Arc<Book>,
}

impl Drop for World {
    fn drop(&mut self) {
        inside(&self.name, || HostNet::remove(self.host)).unwrap();
        for name in [self.name.clone(), self.client(0), self.client(1)] {
            run(&format!("ip netns del {name}"));
        }
    }
}

impl World {
    /// `None`, loudly, where that cannot be had.
    fn new(test: &str) -> Option<Self> {
        let there = |program: &&str| Path::new("/usr/bin").join(program).exists();
        let programs = ["wireguard-go", "wg", "ping"];
        let root = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
        if !root || !programs.iter().all(there) {
            eprintln!("SKIPPED: {test}: needs root, /dev/net/tun, wireguard-go, wg and ping");
            return None;
        }
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let name = format!("gwt{id}-{number}");
        let spread = u16::try_from(id % 4000).unwrap() * 8 + number;
        let host = HostId::new(20_000 + spread);
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        for client in 0..2 {
            let inner = format!("{name}c{client}");
            run(&format!("ip netns add {inner}"));
            run(&format!(
                "ip -n {name} link add under{client} type veth peer name under netns {inner}"
            ));
            run(&format!(
                "ip -n {name} address add 192.0.2.{}/31 dev under{client}",
                client * 2
            ));
            run(&format!(
                "ip -n {inner} address add 192.0.2.{}/31 dev under",
                client * 2 + 1
            ));
            run(&format!("ip -n {name} link set under{client} up"));
            run(&format!("ip -n {inner} link set under up"));
        }
        let config = HostNetConfig {
            host,
            egress: Egress::None,
        };
        let net = inside(&name, || HostNet::ensure(&config)).unwrap();
        Some(Self {
            name,
            host,
            net,
            folder: tempfile::tempdir().unwrap(),
            book: Arc::default(),
        })
    }

    fn client(&self, number: usize) -> String {
        format!("{}c{number}", self.name)
    }

    fn config(&self, idle: Option<Duration>) -> Config {
        Config {
            host: self.host,
            key: PrivateKey::from_bytes([7; 32]),
            listen: "[::]:51820".parse().unwrap(),
            net: self.net.clone(),
            initiations: self.folder.path().join("initiations"),
            idle,
        }
    }

    fn start(&self, lookup: Duration, idle: Option<Duration>) -> Result<Gateway, Error> {
        let (book, net) = (Arc::clone(&self.book), self.net.clone());
        let ask = move |key: PublicKeyText| {
            let book = Arc::clone(&book);
            async move {
                tokio::time::sleep(lookup).await;
                if book.is_out.load(Ordering::Relaxed) {
                    return Err("the directory is away".into());
                }
                Ok(book.peers.lock().unwrap().get(&key).cloned())
            }
        };
        let on_network = move |network| {
            let net = net.clone();
            async move {
                tokio::task::spawn_blocking(move || net.ensure_resolver(network)).await??;
                Ok(())
            }
        };
        inside(&self.name, || {
            Gateway::start(self.config(idle), ask, on_network)
        })
    }

    /// Registers a peer.
    fn add(&self, key: &PrivateKey, network_id: NetworkId, index: u8) {
        let public_key = key.public().to_string();
        let peer = WireGuardPeer {
            name: format!("peer-{index}"),
            org: "personal".parse().unwrap(),
            network: "default".into(),
            network_id,
            public_key: public_key.clone(),
            gateway: self.host,
            address: peer_addr(network_id, self.host, index),
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        self.book.peers.lock().unwrap().insert(public_key, peer);
    }

    /// How many of `count` pings are answered.
    async fn pings(&self, client: usize, to: Ipv6Addr, count: usize) -> usize {
        let netns = self.client(client);
        // One alone is not expected.
        let patience_s = if count == 1 { "1" } else { "6" };
        let ping = tokio::process::Command::new("ip")
            .args(["netns", "exec", &netns, "ping", "-6", "-n", "-i", "0.2"])
            .args(["-W", patience_s, "-c", &count.to_string(), &to.to_string()])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(ping.stdout).unwrap();
        text.lines().filter(|line| line.contains("time=")).count()
    }
}

struct WireGuardGo(Child, PathBuf);

impl Drop for WireGuardGo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

/// A client whose peer is to be the one at `address`.
fn client(world: &World, number: usize, key: &PrivateKey, address: Ipv6Addr) -> WireGuardGo {
    static LINKS: AtomicU16 = AtomicU16::new(0);
    let netns = world.client(number);
    let link = format!(
        "wgg{}-{}",
        std::process::id() % 100_000,
        LINKS.fetch_add(1, Ordering::Relaxed)
    );
    let child = Command::new("ip")
        .args(["netns", "exec", &netns, "wireguard-go", "-f", &link])
        .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
        .env("WG_PROCESS_FOREGROUND", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = PathBuf::from(format!("/var/run/wireguard/{link}.sock"));
    let child = WireGuardGo(child, socket);
    for _ in 0..200 {
        if child.1.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let file = world.folder.path().join(&link);
    std::fs::write(&file, key.to_base64()).unwrap();
    let gateway = PrivateKey::from_bytes([7; 32]).public();
    run(&format!(
        "ip netns exec {netns} wg set {link} private-key {} peer {gateway} endpoint 192.0.2.{}:51820 \
         allowed-ips fdaa::/16",
        file.display(),
        number * 2,
    ));
    run(&format!("ip -n {netns} link set {link} mtu 1420 up"));
    run(&format!(
        "ip -n {netns} address add {address}/120 dev {link} nodad"
    ));
    run(&format!(
        "ip -n {netns} route replace fdaa::/16 dev {link} src {address}"
    ));
    child
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not become so in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway that runs until it is stopped.
struct Running {
    handle: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    fn new(gateway: Gateway) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let handle = gateway.handle();
        tasks.spawn(gateway.run(stop.clone()));
        tasks.close();
        Self {
            handle,
            stop,
            tasks,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

fn keys() -> [PrivateKey; 2] {
    [(); 2].map(|()| PrivateKey::generate().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_two_networks_come_in_without_loss_and_do_not_meet() {
    let Some(world) = World::new("two_clients") else {
        return;
    };
    let gateway = Running::new(world.start(Duration::from_millis(200), None).unwrap());
    let keys = keys();
    let networks = [network(7), network(8)];
    let address = |at: usize| peer_addr(networks[at], world.host, 1);
    let clients = [0, 1].map(|at| {
        world.add(&keys[at], networks[at], 1);
        client(&world, at, &keys[at], address(at))
    });
    let [a, b] = networks.map(network_resolver);
    let (first, second) = tokio::join!(world.pings(0, a, 4), world.pings(1, b, 4));
    let drops = gateway.handle.drops();
    assert_eq!((first, second), (4, 4), "{drops:?}");
    let counts = gateway.handle.counts();
    assert_eq!((counts.knocks, counts.admitted), (2, 2), "{counts:?}");
    let drops = |reason| gateway.handle.drops().of(reason);
    for (to, reason) in [
        (b, DropReason::OtherNetwork),
        (address(1), DropReason::OtherNetwork),
        (
            host_addr(NetworkId::HOST_PLANE, world.host),
            DropReason::OtherNetwork,
        ),
        (
            host_addr(networks[0], world.host),
            DropReason::ForeignDestination,
        ),
    ] {
        let before = drops(reason);
        assert_eq!(world.pings(0, to, 1).await, 0, "{to}");
        assert!(drops(reason) > before, "{to}");
    }
    // A neighbour's address, and a machine's.
    let link = format!("ip -n {} route get {a}", world.client(0));
    let output = Command::new("sh").args(["-c", &link]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    let link = words.nth(1).unwrap().to_owned();
    for stolen in [
        peer_addr(networks[0], world.host, 2),
        SixPn::of_machine(networks[0], world.host, 0x10001).addr(),
    ] {
        let netns = world.client(0);
        run(&format!(
            "ip -n {netns} address add {stolen}/128 dev {link} nodad"
        ));
        run(&format!(
            "ip -n {netns} route replace fdaa::/16 dev {link} src {stolen}"
        ));
        let before = drops(DropReason::ForeignSource);
        assert_eq!(world.pings(0, a, 1).await, 0, "{stolen}");
        assert!(drops(DropReason::ForeignSource) > before, "{stolen}");
    }
    drop(clients);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_key_costs_one_look_up_in_an_interval_and_leaves_no_peer() {
    let Some(world) = World::new("nobody") else {
        return;
    };
    let gateway = Running::new(world.start(Duration::ZERO, None).unwrap());
    let [key, _] = keys();
    let to = network_resolver(network(7));
    let _client = client(&world, 0, &key, peer_addr(network(7), world.host, 1));
    assert_eq!(world.pings(0, to, 1).await, 0);
    eventually(|| gateway.handle.counts().unknown >= 1).await;
    assert!(gateway.handle.peers().is_empty());
    // It is registered after all; the client's next attempt finds it.
    world.add(&key, network(7), 1);
    eventually(|| gateway.handle.counts().admitted == 1).await;
    assert_eq!(world.pings(0, to, 2).await, 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_away_lets_nobody_in_and_nobody_out() {
    let Some(world) = World::new("away") else {
        return;
    };
    let gateway = Running::new(world.start(Duration::ZERO, None).unwrap());
    let keys = keys();
    let to = network_resolver(network(7));
    for (at, key) in keys.iter().enumerate() {
        world.add(key, network(7), u8::try_from(at + 1).unwrap());
    }
    let address = |index| peer_addr(network(7), world.host, index);
    let _first = client(&world, 0, &keys[0], address(1));
    assert_eq!(world.pings(0, to, 2).await, 2);
    world.book.is_out.store(true, Ordering::Relaxed);
    gateway.handle.check_peers();
    let _second = client(&world, 1, &keys[1], address(2));
    assert_eq!(world.pings(1, to, 1).await, 0);
    assert!(gateway.handle.counts().failed >= 1);
    assert_eq!(gateway.handle.peers().len(), 1);
    assert_eq!(world.pings(0, to, 2).await, 2);
    world.book.is_out.store(false, Ordering::Relaxed);
    // The client goes on trying.
    eventually(|| gateway.handle.peers().len() == 2).await;
    // And out goes who is deleted.
    let deleted = keys[0].public().to_string();
    world.book.peers.lock().unwrap().remove(&deleted);
    gateway.handle.check_peers();
    eventually(|| gateway.handle.counts().deleted == 1).await;
    assert_eq!(gateway.handle.peers().len(), 1);
    assert_eq!(world.pings(0, to, 1).await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_removed_and_comes_back_without_loss() {
    let Some(world) = World::new("silent") else {
        return;
    };
    let idle = Some(Duration::from_secs(2));
    let gateway = Running::new(world.start(Duration::ZERO, idle).unwrap());
    let [key, _] = keys();
    world.add(&key, network(7), 1);
    let (to, address) = (
        network_resolver(network(7)),
        peer_addr(network(7), world.host, 1),
    );
    let first = client(&world, 0, &key, address);
    assert_eq!(world.pings(0, to, 2).await, 2);
    eventually(|| gateway.handle.counts().idle == 1).await;
    assert!(gateway.handle.peers().is_empty());
    // A session that is younger than 180 s would have kept the peer here; so it begins anew.
    drop(first);
    let _again = client(&world, 0, &key, address);
    assert_eq!(world.pings(0, to, 4).await, 4);
    gateway.stop().await;
    // What is known of the past survives.
    let known = initiations::read(&world.config(None).initiations);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].0, key.public());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_clear_error_and_leaves_nothing() {
    let Some(world) = World::new("port") else {
        return;
    };
    let holder = inside(&world.name, || {
        std::net::UdpSocket::bind("[::]:51820").unwrap()
    });
    let error = world.start(Duration::ZERO, None).unwrap_err();
    assert!(error.to_string().contains("gateway_listen"), "{error}");
    drop(holder);
    drop(world.start(Duration::ZERO, None).unwrap());
}
