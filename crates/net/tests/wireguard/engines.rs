//! Two of our own engines.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use net::wireguard::{Backend, DropReason, Engine, Offloads, PrivateKey};
use types::{NetworkId, SixPn};

use crate::world::{
    LINK, PORT, World, endpoint, eventually, host, in_world, inside, machine, peer, run, under_v4,
};

const TRANSFER_BYTES: usize = 24 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes that repeat nowhere near.
fn chunk(number: usize) -> Vec<u8> {
    let mut state = u64::try_from(number)
        .unwrap()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        | 1;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while chunk.len() < CHUNK_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.extend(state.to_le_bytes());
    }
    chunk
}

/// Sends a transfer from one side to the other and compares what arrives.
fn transfer(world: &World, from: usize, to: usize) {
    let address = SocketAddr::from((machine(to).addr(), 7000));
    let listener = inside(&world.path(to), || TcpListener::bind(address).unwrap());
    let mut stream = inside(&world.path(from), || {
        TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap()
    });
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let (mut hasher, mut total) = (DefaultHasher::new(), 0);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let bytes = stream.read(&mut buffer).unwrap();
            if bytes == 0 {
                return (hasher.finish(), total);
            }
            for byte in &buffer[..bytes] {
                hasher.write_u8(*byte);
            }
            total += bytes;
        }
    });
    let mut hasher = DefaultHasher::new();
    for number in 0..TRANSFER_BYTES / CHUNK_BYTES {
        let chunk = chunk(number);
        stream.write_all(&chunk).unwrap();
        for byte in chunk {
            hasher.write_u8(byte);
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let (hash, total) = receiver.join().unwrap();
    assert_eq!(total, TRANSFER_BYTES);
    assert_eq!(hash, hasher.finish(), "the bytes changed on the way");
}

/// Nothing of the tunnel's own making may go wrong in a transfer.
fn assert_clean(engines: &[Engine]) {
    for engine in engines {
        let drops = engine.drops();
        for reason in [
            DropReason::Malformed,
            DropReason::BadTag,
            DropReason::Replayed,
            DropReason::SendFailed,
            DropReason::TunFailed,
        ] {
            assert_eq!(drops.of(reason), 0, "{reason:?} of {engine:?}: {drops:?}");
        }
    }
}

fn passes_with(test: &str, offloads: [Offloads; 2]) {
    in_world(test, &[], |world| {
        let engines = world.pair(offloads);
        world.assert_ping(0, machine(1));
        world.assert_ping(1, machine(0));
        transfer(world, 0, 1);
        transfer(world, 1, 0);
        assert_clean(&engines);
        for (side, engine) in engines.iter().enumerate() {
            let other = &engine.peers()[0];
            assert_eq!(other.endpoint, Some(endpoint(1 - side)));
            assert!(other.last_handshake.is_some());
            let least = u64::try_from(TRANSFER_BYTES).unwrap();
            assert!(
                other.tx_bytes > least && other.rx_bytes > least,
                "{other:?}"
            );
        }
    });
}

#[test]
fn machines_talk_over_two_engines() {
    passes_with("with_offloads", [Offloads::default(); 2]);
}

#[test]
fn machines_talk_with_every_offload_switched_off() {
    passes_with("without_offloads", [Offloads::NONE; 2]);
}

#[test]
fn each_offload_works_without_the_others() {
    let none = Offloads::NONE;
    let tun = Offloads {
        tun_tcp: true,
        ..none
    };
    let send = Offloads {
        udp_send: true,
        ..none
    };
    let receive = Offloads {
        udp_receive: true,
        tun_udp: true,
        ..none
    };
    passes_with("some_offloads", [tun, none]);
    passes_with("other_offloads", [send, receive]);
}

#[test]
fn foreign_sources_and_networks_are_dropped_and_counted() {
    in_world("foreign", &[], |world| {
        let engines = world.pair([Offloads::default(); 2]);
        world.assert_ping(0, machine(1));
        let network = |id: u32| NetworkId::try_from(id).unwrap();
        // A machine of another network on our own host.
        let stranger = SixPn::of_machine(network(8), host(0), 0x10002);
        world.address(0, stranger);
        assert!(!world.ping(0, machine(1), &format!("-I {stranger}")));
        assert!(engines[0].drops().of(DropReason::OtherNetwork) > 0);
        // An address that another host owns.
        let stolen = SixPn::of_machine(network(7), host(5), 0x10002);
        world.address(0, stolen);
        assert!(!world.ping(0, machine(1), &format!("-I {stolen}")));
        assert!(engines[0].drops().of(DropReason::ForeignSource) > 0);
        // A host that nobody told us of.
        let unknown = SixPn::of_machine(network(7), host(6), 0x10002);
        assert!(!world.ping(0, unknown, &format!("-I {}", machine(0))));
        assert!(engines[0].drops().of(DropReason::UnknownPeer) > 0);
        assert!(world.ping(0, machine(1), &format!("-I {}", machine(0))));
    });
}

#[test]
fn a_removed_peer_is_silent_until_it_is_added_again() {
    in_world("removal", &[], |world| {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let engines = [0, 1].map(|side| world.engine(side, &keys[side], Offloads::default()));
        assert!(!world.ping(0, machine(1), ""));
        engines[0].ensure_peer(&peer(1, &keys[1])).unwrap();
        engines[1].ensure_peer(&peer(0, &keys[0])).unwrap();
        world.assert_ping(0, machine(1));
        assert!(engines[1].remove_peer(host(0).into()));
        assert!(!world.ping(0, machine(1), ""));
        assert!(!world.ping(1, machine(0), ""));
        assert!(engines[1].drops().of(DropReason::NoSession) > 0);
        assert!(engines[1].peers().is_empty());
        engines[1].ensure_peer(&peer(0, &keys[0])).unwrap();
        world.assert_ping(1, machine(0));
    });
}

#[test]
fn a_peer_that_moves_is_followed() {
    in_world("roaming", &[], |world| {
        let engines = world.pair([Offloads::default(); 2]);
        world.assert_ping(0, machine(1));
        let name = world.name(0);
        // A new address of its own: the old one is gone.
        run(&format!(
            "ip -n {name} address add 2001:db8::9/64 dev under nodad"
        ));
        run(&format!(
            "ip -n {name} address del 2001:db8::1/64 dev under"
        ));
        world.assert_ping(0, machine(1));
        let moved = SocketAddr::from(("2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap(), 51820));
        assert_eq!(engines[1].peers()[0].endpoint, Some(moved));
        // And it is reached there.
        world.assert_ping(1, machine(0));
    });
}

#[test]
fn a_lost_handshake_is_repeated() {
    in_world("lost_handshake", &[], |world| {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let first = world.engine(0, &keys[0], Offloads::default());
        first.ensure_peer(&peer(1, &keys[1])).unwrap();
        assert!(!world.ping(0, machine(1), ""));
        let second = world.engine(1, &keys[1], Offloads::default());
        let mut silent = peer(0, &keys[0]);
        silent.endpoint = None;
        second.ensure_peer(&silent).unwrap();
        // Nobody sends anything any more.
        eventually(|| second.peers()[0].rx_bytes > 0);
        assert_eq!(second.peers()[0].endpoint, Some(endpoint(0)));
    });
}

#[test]
fn a_keepalive_needs_no_traffic() {
    in_world("keepalive", &[], |world| {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let engines = [0, 1].map(|side| world.engine(side, &keys[side], Offloads::default()));
        let mut silent = peer(0, &keys[0]);
        silent.endpoint = None;
        engines[1].ensure_peer(&silent).unwrap();
        let mut lively = peer(1, &keys[1]);
        lively.keepalive_s = Some(1);
        engines[0].ensure_peer(&lively).unwrap();
        eventually(|| engines[1].peers()[0].last_handshake.is_some());
        // It goes on speaking, though nobody knows it any more.
        assert!(engines[1].remove_peer(host(0).into()));
        eventually(|| engines[1].drops().of(DropReason::NoSession) > 0);
    });
}

#[test]
fn hosts_reach_each_other_over_ipv4_as_well() {
    in_world("ipv4", &[], |world| {
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let engines = [0, 1].map(|side| world.engine(side, &keys[side], Offloads::default()));
        let v4 = |side| SocketAddr::from((under_v4(side), PORT));
        for side in [0, 1] {
            let mut other = peer(1 - side, &keys[1 - side]);
            other.endpoint = Some(v4(1 - side));
            engines[side].ensure_peer(&other).unwrap();
        }
        world.assert_ping(0, machine(1));
        transfer(world, 0, 1);
        assert_eq!(engines[1].peers()[0].endpoint, Some(v4(0)));
        assert_clean(&engines);
    });
}

#[test]
fn a_stopped_engine_leaves_no_device() {
    in_world("stop", &[], |world| {
        let engines = world.pair([Offloads::default(); 2]);
        world.assert_ping(0, machine(1));
        drop(engines);
        let links = run(&format!("ip -n {} -o link", world.name(0)));
        assert!(!links.contains(LINK), "{links}");
    });
}

#[test]
fn names_in_use_and_ports_in_use_are_clear_errors() {
    in_world("in_use", &[], |world| {
        let _engines = world.pair([Offloads::default(); 2]);
        inside(&world.path(0), || {
            use net::wireguard::{Tun, Underlay, WireGuardError};
            let tun = Tun::open(LINK, 1420, Offloads::default());
            assert!(
                matches!(tun, Err(WireGuardError::OpenTun { .. })),
                "{tun:?}"
            );
            let address = "[::]:51820".parse().unwrap();
            let underlay = Underlay::bind(address, Offloads::default());
            assert!(
                matches!(underlay, Err(WireGuardError::Listen { .. })),
                "{underlay:?}"
            );
        });
    });
}
