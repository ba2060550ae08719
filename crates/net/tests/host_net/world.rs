//! A server of its own for each test: a thread in a fresh network namespace plays the root
//! namespace, so nothing of the machine that runs the tests is touched.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use net::{Attach, AttachKind, Attachment, Egress, HostNet, HostNetConfig, LinkName};
use nix::sched::{CloneFlags, unshare};
use types::{HostId, NetworkId, SixPn};

#[path = "../common/namespaces.rs"]
mod namespaces;

pub(crate) use namespaces::{inside, run};

/// Long enough for a handshake between namespaces on a busy machine.
const REACH_TIMEOUT_MS: u64 = 10_000;
/// How long we watch that something does not arrive.
pub(crate) const SILENCE_MS: u64 = 400;

/// Hosts of concurrent tests and of concurrent test processes must differ.
static HOSTS: AtomicU16 = AtomicU16::new(0);

pub(crate) struct World {
    pub(crate) hosts: Vec<HostId>,
    namespaces: Vec<String>,
}

/// Where Debian keeps `ip` and `nft`; the PATH of whoever runs the tests may lack sbin.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a test on a server of its own; skips loudly where that cannot be had.
pub(crate) fn in_world(test: &str, body: impl FnOnce(&mut World) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root for network namespaces");
        return;
    }
    for program in ["ip", "nft", "busybox"] {
        if program_in(PATH, program).is_none() {
            eprintln!("SKIPPED: {test}: needs {program}");
            return;
        }
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
            // A new namespace takes forwarding over from the first one, where a host may be up.
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "0").unwrap();
            }
            let mut world = World {
                hosts: Vec::new(),
                namespaces: Vec::new(),
            };
            body(&mut world);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl World {
    pub(crate) fn host(&mut self) -> HostId {
        let pid = std::process::id() % 0x800;
        let number = u16::try_from(pid).unwrap() << 5 | HOSTS.fetch_add(1, Ordering::Relaxed);
        let host = HostId::new(number);
        HostNet::remove(host).unwrap();
        self.hosts.push(host);
        host
    }

    pub(crate) fn host_net(&mut self, egress: Egress) -> (HostId, HostNet) {
        let host = self.host();
        (
            host,
            HostNet::ensure(&HostNetConfig { host, egress }).unwrap(),
        )
    }

    /// A namespace that plays something beside the host.
    pub(crate) fn namespace(&mut self, what: &str) -> PathBuf {
        let name = format!("{what}-{}", self.host());
        run(&format!("ip netns add {name}"));
        self.namespaces.push(name.clone());
        Path::new("/run/netns").join(name)
    }

    /// A namespace that plays the world outside: 203.0.113.1 and 2001:db8::1, where this server
    /// has 203.0.113.2 and 2001:db8::2 and its default routes.
    pub(crate) fn internet(&mut self) -> PathBuf {
        let path = self.namespace("world");
        let name = path.file_name().unwrap().to_str().unwrap();
        run(&format!(
            "ip link add uplink type veth peer name world netns {name}"
        ));
        run("ip address add 203.0.113.2/24 dev uplink");
        run("ip address add 2001:db8::2/64 dev uplink nodad");
        run("ip link set uplink up");
        run("ip route add default via 203.0.113.1");
        run("ip -6 route add default via 2001:db8::1");
        for address in [
            "203.0.113.1/24",
            "2001:db8::1/64 nodad",
            "169.254.169.254/32",
        ] {
            let (address, flags) = address.split_once(' ').unwrap_or((address, ""));
            run(&format!(
                "ip -n {name} address add {address} dev world {flags}"
            ));
        }
        run(&format!("ip -n {name} link set world up"));
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Err(error) = HostNet::remove(*host) {
                eprintln!("cannot clean up after the test: {error}");
            }
        }
        for name in &self.namespaces {
            run(&format!("ip netns del {name}"));
        }
    }
}

pub(crate) fn network(id: u32) -> NetworkId {
    NetworkId::try_from(id).unwrap()
}

/// Machine `field` in network `id`.
pub(crate) fn request(host: HostId, id: u32, field: u32, kind: AttachKind) -> Attach {
    let [.., high, low] = field.to_be_bytes();
    Attach {
        name: LinkName::of_machine(field),
        address: SixPn::of_machine(network(id), host, field),
        ipv4: Ipv4Addr::new(172, 19, high.max(1), low),
        kind,
    }
}

/// Attaches machine `field` of network `id` by veth.
pub(crate) fn veth(net: &HostNet, host: HostId, id: u32, field: u32) -> Attachment {
    net.attach(&request(host, id, field, AttachKind::Veth))
        .unwrap()
}

fn program_in(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.exists())
}

/// Answers each connection to `address` in the namespace at `path` with the client's address.
/// Ends with the process; may be repeated.
pub(crate) fn serve(path: &Path, address: &str) {
    match inside(path, || TcpListener::bind(address)) {
        Ok(listener) => answer(listener),
        Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}: {error}"),
    }
}

pub(crate) fn answer(listener: TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip());
        }
    });
}

/// Connects from the namespace at `path` and returns what `serve` answers; `None` if nothing does.
pub(crate) fn reach(path: &Path, address: impl Into<SocketAddr>) -> Option<String> {
    reach_within(
        path,
        address.into(),
        Duration::from_millis(REACH_TIMEOUT_MS),
    )
}

pub(crate) fn reach_within(path: &Path, to: SocketAddr, timeout: Duration) -> Option<String> {
    inside(path, || {
        let mut stream = TcpStream::connect_timeout(&to, timeout).ok()?;
        stream.set_read_timeout(Some(timeout)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not become so in time");
    }
}

/// Fails if the namespace at `path` can connect to `to`.
pub(crate) fn assert_out_of_reach(path: &Path, to: impl Into<SocketAddr> + Debug) {
    let to = to.into();
    let answer = reach_within(path, to, Duration::from_millis(SILENCE_MS));
    assert_eq!(answer, None, "{to} is in reach of {}", path.display());
}

/// All that other programs could see change, once the kernel has nothing to do any more (links
/// come up, and get link-local addresses, in their own time).
pub(crate) fn snapshot() -> String {
    let mut last = String::new();
    eventually(|| {
        std::thread::sleep(Duration::from_millis(SILENCE_MS));
        let now = snapshot_now();
        let settled = now == last && !now.contains("tentative");
        last = now;
        settled
    });
    last
}

fn snapshot_now() -> String {
    // Other tests' namespaces come and go meanwhile, so names of namespaces are not in here; the
    // inventory has them.
    [
        "ip -o link",
        "ip -o address",
        "ip route",
        "ip -6 route",
        "nft -s list ruleset",
    ]
    .map(run)
    .into_iter()
    .chain(["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(sysctl))
    .collect::<Vec<_>>()
    .join("\n")
}

pub(crate) fn sysctl(key: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/sys/net").join(key))
        .unwrap()
        .trim()
        .to_owned()
}
