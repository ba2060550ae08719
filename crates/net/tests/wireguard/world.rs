//! Two namespaces joined by a veth pair, `2001:db8::1` and `2001:db8::2`, `192.0.2.1` and
//! `192.0.2.2`; hosts 2 and 3.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use net::wireguard::{
    Backend, Engine, EngineConfig, Offloads, PeerConfig, PrivateKey, SixPnPolicy, Tun, Underlay,
};
use types::{HostId, NetworkId, SixPn};

#[path = "../common/namespaces.rs"]
mod namespaces;

pub(crate) use namespaces::{inside, run};

pub(crate) const LINK: &str = "wg0";
pub(crate) const MTU: u16 = 1420;
pub(crate) const PORT: u16 = 51820;

/// Namespaces of concurrent tests must differ.
static WORLDS: AtomicU16 = AtomicU16::new(0);

pub(crate) struct World {
    names: [String; 2],
}

/// Why the test cannot run here, if it cannot.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun".to_owned());
    }
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let there = |program: &&&str| {
        folders
            .iter()
            .any(|folder| Path::new(folder).join(program).exists())
    };
    let program = programs.iter().find(|program| !there(program))?;
    Some(format!("needs {program}"))
}

/// Runs a test in a world of its own; skips loudly where that cannot be had.
pub(crate) fn in_world(test: &str, programs: &[&str], body: impl FnOnce(&World)) {
    let mut needed = vec!["ip", "ping"];
    needed.extend(programs);
    if let Some(why) = missing(&needed) {
        eprintln!("SKIPPED: {test}: {why}");
        return;
    }
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let name = |side: char| format!("wgt{}-{number}{side}", std::process::id());
    let world = World {
        names: [name('a'), name('b')],
    };
    let [a, b] = &world.names;
    run(&format!("ip netns add {a}"));
    run(&format!("ip netns add {b}"));
    run(&format!(
        "ip -n {a} link add under type veth peer name under netns {b}"
    ));
    for (side, name) in world.names.iter().enumerate() {
        run(&format!(
            "ip -n {name} address add {}/64 dev under nodad",
            under(side)
        ));
        run(&format!(
            "ip -n {name} address add {}/24 dev under",
            under_v4(side)
        ));
        run(&format!("ip -n {name} link set lo up"));
        run(&format!("ip -n {name} link set under up"));
    }
    body(&world);
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// The underlay's address of a side.
pub(crate) fn under(side: usize) -> Ipv6Addr {
    let number = u16::try_from(side + 1).unwrap();
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)
}

pub(crate) fn under_v4(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(side + 1).unwrap())
}

pub(crate) fn endpoint(side: usize) -> SocketAddr {
    (under(side), PORT).into()
}

pub(crate) fn host(side: usize) -> HostId {
    HostId::new(u16::try_from(side + 2).unwrap())
}

/// The address of a machine of network 7 on a side's host.
pub(crate) fn machine(side: usize) -> SixPn {
    SixPn::of_machine(NetworkId::try_from(7).unwrap(), host(side), 0x10001)
}

impl World {
    pub(crate) fn name(&self, side: usize) -> &str {
        &self.names[side]
    }

    pub(crate) fn path(&self, side: usize) -> PathBuf {
        Path::new("/run/netns").join(&self.names[side])
    }

    /// An engine for a side, whose machine's address is on its device.
    pub(crate) fn engine(&self, side: usize, key: &PrivateKey, offloads: Offloads) -> Engine {
        let engine = inside(&self.path(side), || {
            let config = EngineConfig {
                private_key: key.clone(),
                tun: Tun::open(LINK, MTU, offloads).unwrap(),
                underlay: Underlay::bind((Ipv6Addr::UNSPECIFIED, PORT).into(), offloads).unwrap(),
            };
            Engine::start(config, SixPnPolicy::by_host_field(host(side))).unwrap()
        });
        self.address(side, machine(side));
        engine
    }

    pub(crate) fn address(&self, side: usize, address: SixPn) {
        let name = self.name(side);
        run(&format!(
            "ip -n {name} address add {address}/128 dev {LINK} nodad"
        ));
        run(&format!("ip -n {name} route replace fdaa::/16 dev {LINK}"));
    }

    /// Two engines that know each other.
    pub(crate) fn pair(&self, offloads: [Offloads; 2]) -> [Engine; 2] {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let engines = [
            self.engine(0, &keys[0], offloads[0]),
            self.engine(1, &keys[1], offloads[1]),
        ];
        engines[0].ensure_peer(&peer(1, &keys[1])).unwrap();
        engines[1].ensure_peer(&peer(0, &keys[0])).unwrap();
        engines
    }

    /// Whether an answer comes from `to`.
    pub(crate) fn ping(&self, side: usize, to: impl std::fmt::Display, options: &str) -> bool {
        let command = format!(
            "netns exec {} ping -6 -n -c 1 -W 1 {options} {to}",
            self.name(side)
        );
        let output = Command::new("ip")
            .args(command.split_whitespace())
            .output()
            .unwrap();
        output.status.success()
    }

    /// Pings until an answer comes: handshakes, or a busy machine, may eat the first.
    pub(crate) fn assert_ping(&self, side: usize, to: impl std::fmt::Display) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.ping(side, &to, "") {
            assert!(Instant::now() < deadline, "{to} does not answer");
        }
    }
}

pub(crate) fn peer(side: usize, key: &PrivateKey) -> PeerConfig {
    PeerConfig {
        id: host(side).into(),
        public_key: key.public(),
        endpoint: Some(endpoint(side)),
        keepalive_s: None,
    }
}

pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not become so in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
