//! The resolver in a host's network, asked by machines.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hickory_server::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use net::{Attach, AttachKind, Egress, HostNetConfig, LinkName};
use nix::sched::{CloneFlags, setns, unshare};
use types::service::Protocol;
use types::{HostId, SixPn};

use super::*;

/// What the resolver of the world outside answers for every name.
const UPSTREAM_ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// Longer than the resolver takes to find that nobody answers.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) fn ours() -> NetworkId {
    NetworkId::try_from(7).unwrap()
}

pub(crate) fn other() -> NetworkId {
    NetworkId::try_from(8).unwrap()
}

/// Machine 1 and 2 of app `web` in our network, 3 of app `secret` in the other.
pub(crate) fn named(number: u32) -> Named {
    let (network, app, region) = match number {
        1 => (ours(), "web", "fra"),
        2 => (ours(), "web", "iad"),
        _ => (other(), "secret", "fra"),
    };
    let address = SixPn::of_machine(network, HostId::new(2), 0x10000 | number);
    Named {
        id: MachineId::from_bits(number.into()),
        app: app.parse().unwrap(),
        region: region.to_owned(),
        address: address.addr(),
    }
}

#[derive(Default)]
pub(crate) struct FakeNames {
    /// Further machines of app `web`, to make answers long.
    more: u16,
}

impl Names for FakeNames {
    fn app(&self, network: NetworkId, app: &AppName) -> Vec<Named> {
        let mut machines = self.all(network);
        machines.retain(|machine| machine.app == *app);
        machines
    }

    fn machine(&self, network: NetworkId, id: &MachineId) -> Option<Named> {
        self.all(network)
            .into_iter()
            .find(|machine| machine.id == *id)
    }

    fn all(&self, network: NetworkId) -> Vec<Named> {
        let mut machines: Vec<Named> = [1, 2, 3].map(named).into();
        machines.extend((0..self.more).map(|_| named(1)));
        machines.retain(|machine| types::sixpn::network_of(machine.address) == Some(network));
        machines
    }

    fn service(&self, network: NetworkId, name: &str) -> Option<Offered> {
        let port = |port| ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port,
            target_port: 0,
        };
        let backend = |number, hostname: &str, port| Backend {
            address: named(number).address,
            hostname: hostname.to_owned(),
            ports: vec![port],
        };
        if network != ours() {
            return None;
        }
        match name {
            "web.default.svc.cluster.local" => Some(Offered {
                vip: Some(vip()),
                ports: vec![port(80)],
                backends: vec![],
            }),
            "db.default.svc.cluster.local" => Some(Offered {
                vip: None,
                ports: vec![port(5432)],
                backends: vec![backend(1, "db-0", 5432), backend(2, "", 6432)],
            }),
            _ => None,
        }
    }
}

/// Of service `web` in our network.
pub(crate) fn vip() -> Ipv6Addr {
    types::sixpn::vip(ours(), 1)
}

/// A server of its own (a thread in a fresh network namespace), with a host's network, a machine
/// in each of two networks, and the resolver.
struct World {
    host: HostId,
    handle: Handle,
    runtime: tokio::runtime::Handle,
    ours: PathBuf,
    other: PathBuf,
    _resolv_conf: tempfile::NamedTempFile,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = HostNet::remove(self.host) {
            eprintln!("cannot clean up after the test: {error}");
        }
    }
}

impl World {
    async fn new(names: FakeNames, stop: CancellationToken) -> Self {
        static HOSTS: AtomicU16 = AtomicU16::new(0);
        let pid = u16::try_from(std::process::id() % 0x400).unwrap();
        let host = HostId::new(0x8000 | pid << 4 | HOSTS.fetch_add(1, Ordering::Relaxed));
        let net = HostNet::ensure(&HostNetConfig {
            host,
            egress: Egress::None,
        })
        .unwrap();
        let attach = |network, field| {
            let request = Attach {
                name: LinkName::of_machine(field),
                address: SixPn::of_machine(network, host, field),
                ipv4: Ipv4Addr::new(172, 19, 1, field.to_be_bytes()[3]),
                kind: AttachKind::Veth,
            };
            net.attach(&request).unwrap().netns.unwrap()
        };
        let (ours, other) = (attach(ours(), 0x10001), attach(other(), 0x10002));
        let resolv_conf = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(resolv_conf.path(), "nameserver 127.0.0.1\n").unwrap();
        let config = Config {
            net,
            resolv_conf: resolv_conf.path().to_owned(),
        };
        let dns = bind(config, Arc::new(names)).await.unwrap();
        let handle = dns.handle();
        tokio::spawn(dns.run(stop));
        Self {
            host,
            handle,
            runtime: tokio::runtime::Handle::current(),
            ours,
            other,
            _resolv_conf: resolv_conf,
        }
    }
}

/// Runs `body` with a resolver; skips loudly where namespaces cannot be had.
fn in_world(test: &str, names: FakeNames, body: impl FnOnce(&World) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root for network namespaces");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap();
            assert!(up.success());
            // Its threads are started from here, so they are in this namespace.
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let stop = CancellationToken::new();
            let world = runtime.block_on(World::new(names, stop.clone()));
            body(&world);
            stop.cancel();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
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

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Sends `bytes` from the machine's namespace; the answer, if any comes.
fn send_udp(from: &Path, bytes: &[u8], patience: Duration) -> Option<Vec<u8>> {
    inside(from, || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send_to(bytes, (RESOLVER, PORT)).unwrap();
        let mut buffer = vec![0; 4096];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from.ip(), RESOLVER);
        buffer.truncate(length);
        Some(buffer)
    })
}

fn by_udp(from: &Path, message: &Message) -> Message {
    let answer = send_udp(from, &message.to_vec().unwrap(), CLIENT_TIMEOUT).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

fn by_tcp(from: &Path, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    inside(from, || {
        let mut stream = TcpStream::connect((RESOLVER, PORT)).unwrap();
        stream.set_read_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, &bytes[..]].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        Message::from_vec(&answer).unwrap()
    })
}

fn addresses(message: &Message) -> Vec<Ipv6Addr> {
    let of = |record: &Record| match &record.data {
        RData::AAAA(address) => Some(address.0),
        _ => None,
    };
    message.answers.iter().filter_map(of).collect()
}

#[test]
fn machines_ask_and_each_network_gets_its_own_answer() {
    in_world("dns_networks", FakeNames::default(), |world| {
        let ask = question("web.internal.", RecordType::AAAA);
        for answer in [by_udp(&world.ours, &ask), by_tcp(&world.ours, &ask)] {
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert!(answer.metadata.authoritative);
            assert_eq!(addresses(&answer), [named(1).address, named(2).address]);
            assert!(answer.answers.iter().all(|record| record.ttl == 5));
        }
        let answer = by_udp(&world.other, &ask);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);

        let nothing = by_udp(&world.ours, &question("web.internal.", RecordType::A));
        assert_eq!(nothing.metadata.response_code, ResponseCode::NoError);
        assert!(nothing.answers.is_empty());
        assert_eq!(nothing.authorities[0].record_type(), RecordType::SOA);

        let apps = by_udp(&world.ours, &question("_apps.internal.", RecordType::TXT));
        let RData::TXT(text) = &apps.answers[0].data else {
            panic!("{apps:?}")
        };
        assert_eq!(&*text.txt_data[0], b"web");
    });
}

#[test]
fn services_are_found_by_name_and_port() {
    in_world("dns_services", FakeNames::default(), |world| {
        let name = "web.default.svc.cluster.local.";
        let answer = by_udp(&world.ours, &question(name, RecordType::AAAA));
        assert_eq!(addresses(&answer), [vip()]);
        let answer = by_udp(&world.other, &question(name, RecordType::AAAA));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);

        let port = "_http._tcp.db.default.svc.cluster.local.";
        let answer = by_udp(&world.ours, &question(port, RecordType::SRV));
        let located = |record: &Record| match &record.data {
            RData::SRV(at) => (at.port, at.target.to_string()),
            other => panic!("{other:?}"),
        };
        let expected = ["db-0", "fdaa-0-7-a7b-2-1-2-2"]
            .map(|label| format!("{label}.db.default.svc.cluster.local."));
        let [first, second] = expected;
        let found: Vec<_> = answer.answers.iter().map(located).collect();
        assert_eq!(found, [(5432, first), (6432, second)]);
        assert_eq!(answer.additionals.len(), 2);
    });
}

/// What a host that has both networks gets at `<net>::3` of ours when it asks from `source`.
fn ask_as_peer(world: &World, source: Ipv6Addr) -> Option<Message> {
    let netns = format!("/run/netns/aero-{}", world.host);
    let ask = question("web.internal.", RecordType::AAAA);
    inside(Path::new(&netns), || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.set_read_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        let resolver = network_resolver(ours());
        // Nobody listens: the kernel says so, at once or when the answer is waited for.
        socket.connect((resolver, PORT)).ok()?;
        socket.send(&ask.to_vec().unwrap()).ok()?;
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).ok()?;
        let mut stream = TcpStream::connect((resolver, PORT)).unwrap();
        let bytes = ask.to_vec().unwrap();
        let head = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&head, &bytes[..]].concat()).unwrap();
        Some(Message::from_vec(&buffer[..length]).unwrap())
    })
}

#[test]
fn a_networks_resolver_answers_that_network_only_and_as_long_as_it_is_wanted() {
    in_world("dns_peers", FakeNames::default(), |world| {
        let from = |network| types::sixpn::host_addr(network, world.host);
        for _ in 0..2 {
            let served = world.handle.serve_network(ours());
            world.runtime.block_on(served).unwrap();
            let answer = ask_as_peer(world, from(ours())).unwrap();
            assert_eq!(addresses(&answer), [named(1).address, named(2).address]);
            let answer = ask_as_peer(world, from(other())).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
            let again = world.handle.serve_network(ours());
            world.runtime.block_on(again).unwrap();
            for _ in 0..2 {
                let forgotten = world.handle.forget_network(ours());
                world.runtime.block_on(forgotten).unwrap();
            }
            assert!(ask_as_peer(world, from(ours())).is_none());
        }
    });
}

#[test]
fn what_does_not_fit_is_asked_for_again_by_tcp() {
    in_world("dns_long", FakeNames { more: 500 }, |world| {
        let ask = question("web.internal.", RecordType::AAAA);
        let answer = by_udp(&world.ours, &ask);
        assert!(answer.metadata.truncation && answer.answers.len() < 502);
        let answer = by_tcp(&world.ours, &ask);
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 502);
    });
}

#[test]
fn foreign_names_are_asked_of_the_hosts_resolver() {
    in_world("dns_foreign", FakeNames::default(), |world| {
        let ask = question("example.com.", RecordType::A);
        let answer = by_udp(&world.ours, &ask);
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);

        // This thread's namespace is where the process is; now there is a resolver in it.
        let upstream = UdpSocket::bind(("127.0.0.1", PORT)).unwrap();
        std::thread::spawn(move || upstream_answers(&upstream));
        let answer = by_udp(&world.ours, &ask);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers[0].data, RData::A(A(UPSTREAM_ANSWER)));
        // Names of ours are not told to anybody.
        for name in ["nosuch.internal.", "web.flycast.", "x.svc.cluster.local."] {
            let answer = by_udp(&world.ours, &question(name, RecordType::A));
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NXDomain,
                "{name}"
            );
        }
    });
}

/// Answers every question with one address, after a forgery that has another id.
fn upstream_answers(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        let name = query.queries[0].name().clone();
        answer.add_queries(query.queries.clone());
        let mut forgery = answer.clone();
        forgery.metadata.id ^= 1;
        forgery.add_answer(Record::from_rdata(
            name.clone(),
            60,
            RData::A(A(Ipv4Addr::BROADCAST)),
        ));
        answer.add_answer(Record::from_rdata(name, 60, RData::A(A(UPSTREAM_ANSWER))));
        for message in [forgery, answer] {
            socket.send_to(&message.to_vec().unwrap(), from).unwrap();
        }
    }
}

#[test]
fn what_is_no_query_harms_nobody() {
    in_world("dns_hostile", FakeNames::default(), |world| {
        let good = question("web.internal.", RecordType::AAAA);
        let bytes = good.to_vec().unwrap();
        let patience = Duration::from_millis(50);
        for length in 0..bytes.len() {
            send_udp(&world.ours, &bytes[..length], patience);
        }
        // A name that points at itself, one that runs over the end, and counts that lie.
        let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let loops = [&header[..], &[0xc0, 12, 0, 28, 0, 1]].concat();
        let over = [&header[..], &[63, b'a']].concat();
        let lies = [
            &[0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &bytes[12..],
        ];
        for bytes in [loops, over, lies.concat(), vec![0xff; 1400]] {
            send_udp(&world.ours, &bytes, patience);
        }
        let mut update = good.clone();
        update.metadata.op_code = OpCode::Update;
        send_udp(&world.ours, &update.to_vec().unwrap(), patience);
        let mut two = good.clone();
        two.add_queries(good.queries.clone());
        assert_eq!(
            by_udp(&world.ours, &two).metadata.response_code,
            ResponseCode::FormErr
        );

        assert_eq!(addresses(&by_udp(&world.ours, &good)).len(), 2);
    });
}
