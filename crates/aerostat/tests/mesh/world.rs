//! Hosts side by side: each with its own underlay namespace, all of those on one bridge
//! (2001:db8::/64), and its own namespace for 6PN.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use aerostat::mesh::{Config, Error, Mesh, Word};
use jiff::Timestamp;
use net::wireguard::PrivateKey;
use net::{Attach, AttachKind, Egress, HostNet, HostNetConfig, LinkName};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::fleet::{HostRecord, HostStatus, MeshStatus};
use types::{HostId, NetworkId, SixPn};

pub(crate) const PORT: u16 = 51821;
/// How long we watch that something does not arrive.
const SILENCE: Duration = Duration::from_millis(700);
/// Where Debian keeps `ip` and `nft`; the PATH of whoever runs the tests may lack sbin.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Hosts of concurrent tests and of concurrent test processes must differ.
static HOSTS: AtomicU16 = AtomicU16::new(0);

/// A host that is there, whether its mesh is or not.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) net: HostNet,
    pub(crate) key: PrivateKey,
    pub(crate) address: Ipv6Addr,
    /// The name of its underlay's namespace.
    under: String,
}

/// A mesh that runs.
pub(crate) struct Running {
    pub(crate) mesh: Mesh,
    task: JoinHandle<()>,
    drain: CancellationToken,
}

pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
    runtime: Runtime,
}

/// Runs a test with `count` hosts; skips loudly where they cannot be had.
pub(crate) fn in_world(test: &str, count: u16, body: impl FnOnce(&mut World) + Send) {
    if let Some(why) = missing() {
        eprintln!("SKIPPED: {test}: {why}");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
            run("ip link add under type bridge");
            run("ip link set under up");
            let mut world = World {
                hosts: Vec::new(),
                runtime: Runtime::new().unwrap(),
            };
            for number in 1..=count {
                let host = world.host(number);
                world.hosts.push(host);
            }
            body(&mut world);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun".to_owned());
    }
    let is_missing = |program: &&&str| {
        let mut files = FOLDERS.iter().map(|folder| Path::new(folder).join(program));
        !files.any(|file| file.exists())
    };
    let program = ["ip", "nft", "ping"].iter().find(is_missing).copied()?;
    Some(format!("needs {program}"))
}

impl World {
    fn host(&mut self, number: u16) -> Host {
        let pid = u16::try_from(std::process::id() % 0x800).unwrap();
        let id = HostId::new(pid << 5 | HOSTS.fetch_add(1, Ordering::Relaxed));
        HostNet::remove(id).unwrap();
        let under = format!("under-{id}");
        run(&format!("ip netns add {under}"));
        run(&format!(
            "ip link add u{number} type veth peer name uplink netns {under}"
        ));
        run(&format!("ip link set u{number} master under up"));
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        for command in [
            "link set lo up".to_owned(),
            format!("address add {address}/64 dev uplink nodad"),
            "link set uplink up".to_owned(),
        ] {
            run(&format!("ip -n {under} {command}"));
        }
        let config = HostNetConfig {
            host: id,
            egress: Egress::None,
        };
        Host {
            id,
            net: HostNet::ensure(&config).unwrap(),
            key: PrivateKey::generate().unwrap(),
            address,
            under,
        }
    }

    /// As the directory has them.
    pub(crate) fn records(&self) -> Vec<HostRecord> {
        self.hosts.iter().map(Host::record).collect()
    }

    /// Starts the mesh of a host, which knows all hosts.
    pub(crate) fn start(&self, host: usize) -> Running {
        let mesh = self.hosts[host].start().unwrap();
        mesh.set_hosts(&self.records());
        let drain = CancellationToken::new();
        let (probed, token) = (mesh.clone(), drain.clone());
        let task = self.runtime.spawn(async move { probed.run(token).await });
        Running { mesh, task, drain }
    }

    pub(crate) fn start_all(&self) -> Vec<Running> {
        (0..self.hosts.len()).map(|host| self.start(host)).collect()
    }

    /// Ends a mesh; its port and its device are free when this returns.
    pub(crate) fn stop(&self, running: Running) {
        running.drain.cancel();
        self.runtime.block_on(running.task).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Err(error) = HostNet::remove(host.id) {
                eprintln!("cannot clean up after the test: {error}");
            }
            run(&format!("ip netns del {}", host.under));
        }
    }
}

impl Running {
    pub(crate) fn status(&self) -> MeshStatus {
        self.mesh.status(|_| Word {
            status: HostStatus::Ok,
            age: None,
        })
    }

    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.status().drops[reason]
    }
}

impl Host {
    pub(crate) fn record(&self) -> HostRecord {
        HostRecord {
            id: self.id,
            name: format!("host-{}", self.id),
            region: "local".into(),
            public_key: self.key.public().to_string(),
            endpoint: SocketAddr::from((self.address, PORT)),
            gateway: None,
            certificate: String::new(),
            joined_at: Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn start(&self) -> Result<Mesh, Error> {
        self.start_for(&self.net)
    }

    /// Starts a mesh on this host's underlay, for the namespace of `net`.
    pub(crate) fn start_for(&self, net: &HostNet) -> Result<Mesh, Error> {
        let config = Config {
            host: self.id,
            key: self.key.clone(),
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
            net: net.clone(),
        };
        self.under(|| Mesh::start(config))
    }

    /// Runs `f` in the namespace of the underlay.
    pub(crate) fn under<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&Path::new("/run/netns").join(&self.under), f)
    }

    /// Attaches a machine by veth. Its address, and its namespace.
    pub(crate) fn machine(&self, id: u32, field: u32) -> (Ipv6Addr, PathBuf) {
        let [.., high, low] = field.to_be_bytes();
        let address = SixPn::of_machine(network(id), self.id, field);
        let request = Attach {
            name: LinkName::of_machine(field),
            address,
            ipv4: Ipv4Addr::new(172, 19, high.max(1), low),
            kind: AttachKind::Veth,
        };
        let attached = self.net.attach(&request).unwrap();
        (address.addr(), attached.netns.unwrap())
    }
}

pub(crate) fn network(id: u32) -> NetworkId {
    NetworkId::try_from(id).unwrap()
}

/// Runs a program in the calling thread's namespace; it has to succeed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .env("PATH", FOLDERS.join(":"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `f` on a thread in the namespace at `path`.
pub(crate) fn inside<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

/// Whether `to` answers a ping from the namespace at `path`.
pub(crate) fn pings(path: &Path, to: Ipv6Addr) -> bool {
    let to = to.to_string();
    let output = inside(path, || {
        Command::new("ping")
            .args(["-6", "-n", "-c", "1", "-W", "1", &to])
            .output()
            .unwrap()
    });
    output.status.success()
}

/// Answers each connection to `address` in the namespace at `path` with the client's address.
/// Ends with the process.
pub(crate) fn serve(path: &Path, address: &str) {
    let listener = inside(path, || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip());
        }
    });
}

/// Connects from the namespace at `path`; who `serve` says we are.
pub(crate) fn reach(path: &Path, to: Ipv6Addr, port: u16) -> Option<String> {
    reach_within(path, to, port, Duration::from_secs(10))
}

fn reach_within(path: &Path, to: Ipv6Addr, port: u16, timeout: Duration) -> Option<String> {
    inside(path, || {
        let mut stream = TcpStream::connect_timeout(&(to, port).into(), timeout).ok()?;
        stream.set_read_timeout(Some(timeout)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

pub(crate) fn assert_out_of_reach(path: &Path, to: Ipv6Addr, port: u16) {
    let answer = reach_within(path, to, port, SILENCE);
    assert_eq!(
        answer,
        None,
        "{to}:{port} is in reach of {}",
        path.display()
    );
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}
