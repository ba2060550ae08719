//! VIPs in a host's network, reached by machines.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use net::{Attach, AttachKind, Egress, HostNetConfig, LinkName};
use nix::sched::{CloneFlags, setns, unshare};
use types::SixPn;
use types::machine::MachineState;
use types::service::{Backend, Protocol, ServicePort, ServiceSpec};
use types::sixpn::{host_addr, vip};

use super::*;
use crate::catalog::Entry;

/// Longer than anything here takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long we watch that something does not arrive.
const SILENCE: Duration = Duration::from_millis(400);

const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

fn network(id: u32) -> NetworkId {
    NetworkId::try_from(id).unwrap()
}

fn at(number: u32) -> SocketAddr {
    (vip(network(7), number), PORT).into()
}

/// A machine: a namespace, and an address.
struct Guest {
    netns: PathBuf,
    address: Ipv6Addr,
}

impl Guest {
    /// Says `name` to whoever connects, after their request has ended; and what was asked.
    fn serve(&self, name: &'static str) -> Serving {
        let listener = self.inside(|| TcpListener::bind(("::", BACKEND_PORT)).unwrap());
        let stopped = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut peers = vec![];
            while let Ok((mut stream, peer)) = listener.accept() {
                peers.push(peer.ip());
                std::thread::spawn(move || {
                    let mut asked = String::new();
                    if stream.read_to_string(&mut asked).is_ok() {
                        let _ = write!(stream, "{name}: {asked}");
                    }
                });
            }
            peers
        });
        Serving { stopped, thread }
    }

    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.inside(|| {
            let stream = TcpStream::connect_timeout(&to, timeout)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        })
    }

    /// Who answers at `to`.
    fn ask(&self, to: SocketAddr) -> io::Result<String> {
        let mut stream = self.connect(to, TIMEOUT)?;
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.netns, f)
    }
}

struct Serving {
    stopped: TcpListener,
    thread: std::thread::JoinHandle<Vec<std::net::IpAddr>>,
}

impl Serving {
    /// Listens no longer. Where connections came from.
    fn stop(self) -> Vec<std::net::IpAddr> {
        use std::os::fd::AsRawFd as _;
        let how = nix::sys::socket::Shutdown::Both;
        nix::sys::socket::shutdown(self.stopped.as_raw_fd(), how).unwrap();
        self.thread.join().unwrap()
    }
}

fn inside<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

/// A host with three machines in network 7 and one in network 8, and the proxy.
struct World {
    host: HostId,
    net: HostNet,
    catalog: Catalog,
    drain: Drain,
    runtime: tokio::runtime::Handle,
    client: Guest,
    first: Guest,
    second: Guest,
    other: Guest,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = HostNet::remove(self.host) {
            eprintln!("cannot clean up after the test: {error}");
        }
    }
}

impl World {
    fn new(runtime: &tokio::runtime::Runtime) -> Self {
        static HOSTS: AtomicU16 = AtomicU16::new(0);
        let pid = u16::try_from(std::process::id() % 0x400).unwrap();
        let host = HostId::new(0x4000 | pid << 4 | HOSTS.fetch_add(1, Ordering::Relaxed));
        let egress = Egress::None;
        let net = HostNet::ensure(&HostNetConfig { host, egress }).unwrap();
        let guest = |of, field: u32| {
            let address = SixPn::of_machine(network(of), host, field);
            let request = Attach {
                name: LinkName::of_machine(field),
                address,
                ipv4: Ipv4Addr::new(172, 19, 1, field.to_be_bytes()[3]),
                kind: AttachKind::Veth,
            };
            Guest {
                netns: net.attach(&request).unwrap().netns.unwrap(),
                address: address.addr(),
            }
        };
        let (client, first, second) = (guest(7, 0x10001), guest(7, 0x10002), guest(7, 0x10003));
        let other = guest(8, 0x10004);
        // As if an earlier process had left it.
        net.ensure_vip(vip(network(7), 99)).unwrap();
        let (catalog, drain) = (Catalog::new(), Drain::new());
        let config = Config {
            host,
            net: net.clone(),
            sockets: net.sockets().unwrap(),
        };
        let _inside = runtime.enter();
        drain.spawn("proxy", run(config, catalog.clone(), drain.clone()));
        Self {
            host,
            net,
            catalog,
            drain,
            runtime: runtime.handle().clone(),
            client,
            first,
            second,
            other,
        }
    }

    /// The one service of this host.
    fn set_backends(&self, targets: &[Target]) {
        let backend = |target: &Target| Backend {
            target: target.clone(),
            ports: BTreeMap::new(),
            hostname: String::new(),
        };
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: PORT,
            target_port: BACKEND_PORT,
        };
        let service = Service {
            name: "http".to_owned(),
            app: "web".parse().unwrap(),
            network_id: network(7),
            vip: Some(vip(network(7), 1)),
            spec: ServiceSpec {
                ports: vec![port],
                backends: targets.iter().map(backend).collect(),
                ..ServiceSpec::default()
            },
        };
        self.catalog.set_services(Arc::new(vec![service]));
    }

    fn answers(&self, wanted: &str) {
        eventually(|| matches!(self.client.ask(at(1)), Ok(answer) if answer == wanted));
    }

    fn refuses(&self) {
        let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        eventually(|| self.client.ask(at(1)).is_err_and(is_refused));
    }
}

fn address(guest: &Guest) -> Target {
    Target::Address(guest.address)
}

fn eventually(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `body` on a server of its own (a thread in a fresh network namespace); skips loudly where
/// that cannot be had.
fn in_world(test: &str, body: impl FnOnce(&World) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root for network namespaces");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let world = World::new(&runtime);
            body(&world);
            let drained = world.drain.finish(TIMEOUT);
            assert_eq!(runtime.block_on(drained), Ok(()));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn machine(id: u64, address: Ipv6Addr, of: u32, revision: u64, state: MachineState) -> Entry {
    let mut entry = crate::catalog::tests::entry("web", id, revision, state);
    entry.network = network(of);
    entry.machine.private_ip = address.to_string();
    entry
}

#[test]
fn machines_reach_a_vip_of_their_own_network_and_backends_see_the_host() {
    in_world("proxy_networks", |world| {
        let serving = world.first.serve("first");
        world.set_backends(&[address(&world.first)]);
        world.answers("first: hello");
        // A backend reaches its own service, too.
        assert_eq!(world.first.ask(at(1)).unwrap(), "first: hello");
        let refused = world.other.connect(at(1), SILENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let host = host_addr(network(7), world.host);
        assert!(serving.stop().iter().all(|peer| *peer == host));
    });
}

#[test]
fn connections_go_to_another_backend_if_one_is_dead() {
    in_world("proxy_retry", |world| {
        let (first, second) = (world.first.serve("first"), world.second.serve("second"));
        // The third is an address that nobody has.
        let nobody = SixPn::of_machine(network(7), world.host, 0x1_0009).addr();
        let targets = [
            address(&world.first),
            address(&world.second),
            Target::Address(nobody),
        ];
        world.set_backends(&targets);
        world.answers("first: hello");
        world.answers("second: hello");
        first.stop();
        for _ in 0..20 {
            assert_eq!(world.client.ask(at(1)).unwrap(), "second: hello");
        }
        second.stop();
        // Accepted, since there are backends; reset, since none answers.
        let error = world.client.ask(at(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let _again = world.first.serve("first");
        assert_eq!(world.client.ask(at(1)).unwrap(), "first: hello");
    });
}

#[test]
fn a_machine_takes_part_while_it_is_started_and_in_the_same_network() {
    in_world("proxy_machines", |world| {
        let _serving = world.first.serve("first");
        let stranger = world.other.serve("other");
        let machines = [1, 2].map(|id| Target::Machine(MachineId::from_bits(id)));
        let [_, hostile] = &machines;
        world.set_backends(&machines);
        world.refuses();
        let publish = |id, guest: &Guest, of, revision, state| {
            let entry = machine(id, guest.address, of, revision, state);
            world.catalog.publish(entry);
        };
        publish(1, &world.first, 7, 1, MachineState::Started);
        world.answers("first: hello");
        publish(1, &world.first, 7, 2, MachineState::Stopped);
        world.refuses();
        publish(1, &world.first, 7, 3, MachineState::Started);
        world.answers("first: hello");
        // Rows that want to lead out of the network.
        publish(2, &world.other, 8, 4, MachineState::Started);
        publish(2, &world.other, 7, 5, MachineState::Started);
        world.set_backends(&[hostile.clone(), address(&world.other)]);
        world.refuses();
        assert!(stranger.stop().is_empty());
    });
}

#[test]
fn a_vip_that_goes_takes_its_connections_along() {
    in_world("proxy_gone", |world| {
        let _serving = world.first.serve("first");
        eventually(|| world.net.vips().unwrap().is_empty());
        world.set_backends(&[address(&world.first)]);
        world.answers("first: hello");
        assert_eq!(world.net.vips().unwrap(), [vip(network(7), 1)]);
        let mut open = world.client.connect(at(1), TIMEOUT).unwrap();
        open.write_all(b"hel").unwrap();
        // Without backends it is only the port that goes.
        world.set_backends(&[]);
        world.refuses();
        open.write_all(b"lo").unwrap();
        open.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        open.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "first: hello");

        world.set_backends(&[address(&world.first)]);
        world.answers("first: hello");
        let mut open = world.client.connect(at(1), TIMEOUT).unwrap();
        open.write_all(b"hello").unwrap();
        std::thread::sleep(SILENCE);
        world.catalog.set_services(Arc::default());
        let error = open.read_to_string(&mut answer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        eventually(|| world.net.vips().unwrap().is_empty());
        assert!(world.client.connect(at(1), SILENCE).is_err());
    });
}

#[test]
fn many_connections_are_spread_and_all_answered() {
    const MANY: usize = 300;
    in_world("proxy_many", |world| {
        let serving = [world.first.serve("first"), world.second.serve("second")];
        world.set_backends(&[address(&world.first), address(&world.second)]);
        world.answers("first: hello");
        let open: Vec<_> = (0..MANY)
            .map(|_| world.client.connect(at(1), TIMEOUT).unwrap())
            .collect();
        for mut stream in open {
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with(": hello"), "{answer}");
        }
        let counts = serving.map(|serving| serving.stop().len());
        assert!(
            counts.iter().all(|count| *count > MANY * 2 / 5),
            "{counts:?}"
        );
    });
}

#[test]
fn open_connections_get_time_when_the_process_ends() {
    in_world("proxy_drain", |world| {
        let _serving = world.first.serve("first");
        world.set_backends(&[address(&world.first)]);
        world.answers("first: hello");
        let mut open = world.client.connect(at(1), TIMEOUT).unwrap();
        open.write_all(b"hel").unwrap();
        let mut silent = world.client.connect(at(1), TIMEOUT).unwrap();
        silent.write_all(b"x").unwrap();
        std::thread::sleep(SILENCE);
        let drain = world.drain.clone();
        let finishing = world
            .runtime
            .spawn(async move { drain.finish(TIMEOUT).await });
        world.refuses();
        open.write_all(b"lo").unwrap();
        open.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        open.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "first: hello");
        // Who is still silent after that is reset.
        let error = silent.read_to_string(&mut answer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(world.runtime.block_on(finishing).unwrap(), Ok(()));
    });
}
