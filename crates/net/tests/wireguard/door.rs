//! Strangers that knock: Debian's wireguard-go as the client of an engine that knows nobody, and an
//! owner that takes its time.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net::wireguard::{
    Backend, DropReason, Engine, EngineConfig, Knocks, Offloads, PeerConfig, PeerId, PrivateKey,
    PublicKey, SixPnPolicy, Tun, Underlay,
};
use types::{NetworkId, SixPn};

use crate::interop::{WireGuardGo, start_client};
use crate::world::{
    LINK, MTU, PORT, World, eventually, host, in_world, inside, machine, run, under,
};

/// A door and who answers it, after `delay`.
struct Gateway {
    engine: Arc<Engine>,
    key: PrivateKey,
    known: Arc<Mutex<HashMap<PublicKey, PeerId>>>,
    lookups: Arc<AtomicU64>,
}

fn gateway(world: &World, delay: Duration) -> Gateway {
    let key = PrivateKey::generate().unwrap();
    let (engine, knocks) = inside(&world.path(1), || {
        let config = EngineConfig {
            private_key: key.clone(),
            tun: Tun::open(LINK, MTU, Offloads::default()).unwrap(),
            underlay: Underlay::bind("[::]:51820".parse().unwrap(), Offloads::default()).unwrap(),
        };
        Engine::start_with_door(config, SixPnPolicy::by_host_field(host(1))).unwrap()
    });
    world.address(1, machine(1));
    // Neighbour discovery on a new link takes a second, which is not the gateway's.
    world.assert_ping(0, under(1));
    let gateway = Gateway {
        engine: Arc::new(engine),
        key,
        known: Arc::default(),
        lookups: Arc::default(),
    };
    gateway.answer(knocks, delay);
    gateway
}

impl Gateway {
    /// One look-up after the other, for as long as the engine lives.
    fn answer(&self, mut knocks: Knocks, delay: Duration) {
        let engine = Arc::downgrade(&self.engine);
        let (known, lookups) = (Arc::clone(&self.known), Arc::clone(&self.lookups));
        std::thread::spawn(move || {
            while let Some(knock) = knocks.blocking_recv() {
                lookups.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(delay);
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                let id = known.lock().unwrap().get(&knock.public_key).copied();
                match id {
                    Some(id) => {
                        let config = PeerConfig {
                            id,
                            public_key: knock.public_key,
                            endpoint: None,
                            keepalive_s: None,
                        };
                        engine.admit(&config).unwrap();
                    }
                    None => drop(engine.decline(&knock.public_key)),
                }
            }
        });
    }

    fn knows(&self, key: &PrivateKey) {
        let id = host(0).into();
        self.known.lock().unwrap().insert(key.public(), id);
    }

    fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.engine.drops().of(reason)
    }
}

/// A client in the first namespace whose own address is its machine's.
fn client(world: &World, gateway: &Gateway, key: &PrivateKey) -> WireGuardGo {
    start_client(world, 0, key, gateway.key.public())
}

/// Sends `count` echo requests; how many answers came, and the first one's round trip in ms.
fn ping(world: &World, count: u32) -> (u32, f64) {
    let arguments = format!(
        "netns exec {} ping -6 -n -c {count} -i 0.2 -W 6 {}",
        world.name(0),
        machine(1)
    );
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = text.lines().filter(|line| line.contains("time=")).collect();
    let first = answers.iter().find(|line| line.contains("icmp_seq=1 "));
    let time = first.and_then(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
    let count = u32::try_from(answers.len()).unwrap();
    (count, time.unwrap_or(f64::INFINITY))
}

fn nothing_is_lost(test: &str, lookup_ms: u32) {
    in_world(test, &["wireguard-go", "wg"], |world| {
        let gateway = gateway(world, Duration::from_millis(lookup_ms.into()));
        let key = PrivateKey::generate().unwrap();
        gateway.knows(&key);
        let _client = client(world, &gateway, &key);
        let (answers, first_ms) = ping(world, 4);
        assert_eq!(answers, 4, "of 4 with a look-up of {lookup_ms} ms");
        let least = f64::from(lookup_ms);
        assert!((least..least + 1000.0).contains(&first_ms), "{first_ms} ms");
        eprintln!("look-up {lookup_ms} ms: 4 of 4, the first after {first_ms} ms");
        assert_eq!(gateway.lookups(), 1);
    });
}

#[test]
fn a_stranger_loses_nothing_while_it_is_looked_up() {
    nothing_is_lost("door_200", 200);
}

#[test]
fn a_stranger_loses_nothing_by_a_slow_look_up_either() {
    nothing_is_lost("door_3000", 3000);
}

#[test]
fn nobodys_key_is_declined_and_leaves_no_peer() {
    in_world("door_nobody", &["wireguard-go", "wg"], |world| {
        let gateway = gateway(world, Duration::ZERO);
        let key = PrivateKey::generate().unwrap();
        let _client = client(world, &gateway, &key);
        assert!(!world.ping(0, machine(1), ""));
        eventually(|| gateway.drops(DropReason::UnknownPeer) > 0);
        assert!(gateway.engine.peers().is_empty());
        assert_eq!(gateway.engine.waiting(), 0);
    });
}

/// Passes datagrams on between a client at port 51821 of the gateway's namespace and the gateway,
/// and keeps the client's first.
fn recorder(world: &World) -> (SocketAddr, Arc<Mutex<Vec<u8>>>, UdpSocket) {
    let [front, back] = ["[::]:51821", "[::]:51822"]
        .map(|address| inside(&world.path(1), || UdpSocket::bind(address).unwrap()));
    back.connect(("::1", PORT)).unwrap();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let (to_client, from_gateway) = (front.try_clone().unwrap(), back.try_clone().unwrap());
    let kept = back.try_clone().unwrap();
    for socket in [&front, &back] {
        let wait = Some(Duration::from_millis(200));
        socket.set_read_timeout(wait).unwrap();
    }
    let (first, whom) = (Arc::clone(&recorded), Arc::clone(&client));
    let alive = Arc::downgrade(&recorded);
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while alive.strong_count() > 1 {
            let Ok((bytes, from)) = front.recv_from(&mut buffer) else {
                continue;
            };
            *whom.lock().unwrap() = Some(from);
            let mut first = first.lock().unwrap();
            if first.is_empty() {
                first.extend(&buffer[..bytes]);
            }
            let _ = back.send(&buffer[..bytes]);
        }
    });
    let alive = Arc::downgrade(&recorded);
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while alive.strong_count() > 0 {
            let Ok(bytes) = from_gateway.recv(&mut buffer) else {
                continue;
            };
            let to = *client.lock().unwrap();
            if let Some(to) = to {
                let _ = to_client.send_to(&buffer[..bytes], to);
            }
        }
    });
    let mut at = crate::world::endpoint(1);
    at.set_port(51821);
    (at, recorded, kept)
}

#[test]
fn a_recorded_initiation_is_dropped_before_any_look_up() {
    in_world("door_replay", &["wireguard-go", "wg"], |world| {
        let gateway = gateway(world, Duration::ZERO);
        let key = PrivateKey::generate().unwrap();
        gateway.knows(&key);
        let (at, recorded, socket) = recorder(world);
        let client = client(world, &gateway, &key);
        client.set_endpoint(world, 0, gateway.key.public(), at);
        world.assert_ping(0, machine(1));
        let initiation = recorded.lock().unwrap().clone();
        assert_eq!(initiation.len(), 148);
        assert!(gateway.engine.remove_peer(host(0).into()));
        let (before, lookups) = (gateway.drops(DropReason::Replayed), gateway.lookups());
        socket.send(&initiation).unwrap();
        eventually(|| gateway.drops(DropReason::Replayed) > before);
        assert_eq!(gateway.lookups(), lookups);
        assert!(gateway.engine.peers().is_empty());
        // Nor with a wrong mac1.
        let mut forged = initiation;
        forged[120] ^= 1;
        let bad = gateway.drops(DropReason::BadHandshake);
        socket.send(&forged).unwrap();
        eventually(|| gateway.drops(DropReason::BadHandshake) > bad);
        assert_eq!(gateway.lookups(), lookups);
    });
}

#[test]
fn a_peer_that_was_removed_comes_back_without_loss_and_may_have_moved() {
    in_world("door_return", &["wireguard-go", "wg"], |world| {
        let gateway = gateway(world, Duration::from_millis(50));
        let key = PrivateKey::generate().unwrap();
        gateway.knows(&key);
        let first = client(world, &gateway, &key);
        world.assert_ping(0, machine(1));
        // The client begins anew, as it would after more than 180 s.
        drop(first);
        assert!(gateway.engine.remove_peer(host(0).into()));
        let name = world.name(0);
        run(&format!(
            "ip -n {name} address add 2001:db8::9/64 dev under nodad"
        ));
        run(&format!(
            "ip -n {name} address del 2001:db8::1/64 dev under"
        ));
        let begun = Instant::now();
        let _again = client(world, &gateway, &key);
        let (answers, _) = ping(world, 4);
        assert_eq!(answers, 4, "after {:?}", begun.elapsed());
        let peer = &gateway.engine.peers()[0];
        let at = peer.endpoint.unwrap();
        assert_eq!(at.ip().to_string(), "2001:db8::9");
        assert!(peer.last_heard.unwrap() < Duration::from_secs(20));
    });
}

#[test]
fn a_client_may_not_speak_for_others() {
    in_world("door_spoof", &["wireguard-go", "wg"], |world| {
        let gateway = gateway(world, Duration::ZERO);
        let key = PrivateKey::generate().unwrap();
        gateway.knows(&key);
        let client = client(world, &gateway, &key);
        world.assert_ping(0, machine(1));
        for (network, number, reason) in [
            (7, 5, DropReason::ForeignSource),
            (8, 2, DropReason::OtherNetwork),
        ] {
            let network = NetworkId::try_from(network).unwrap();
            let stolen = SixPn::of_machine(network, types::HostId::new(number), 0x10002);
            client.address(world, 0, stolen);
            assert!(!world.ping(0, machine(1), &format!("-I {stolen}")));
            assert!(gateway.drops(reason) > 0, "{reason:?}");
        }
    });
}

#[test]
fn ten_thousand_datagrams_of_garbage_leave_nothing_behind() {
    in_world("door_garbage", &[], |world| {
        let gateway = gateway(world, Duration::ZERO);
        let socket = inside(&world.path(0), || UdpSocket::bind("[::]:0").unwrap());
        let mut garbage = [0; 148];
        for number in 0..10_000_u32 {
            garbage[..4].copy_from_slice(&[u8::try_from(number % 5).unwrap(), 0, 0, 0]);
            garbage[8..12].copy_from_slice(&number.to_le_bytes());
            // A full queue is as good as a full table.
            let _ = socket.send_to(&garbage, crate::world::endpoint(1));
        }
        eventually(|| gateway.drops(DropReason::BadHandshake) > 1000);
        assert_eq!(gateway.lookups(), 0);
        assert!(gateway.engine.peers().is_empty());
        assert!(gateway.engine.last_initiations().is_empty());
        assert_eq!(gateway.engine.waiting(), 0);
    });
}
