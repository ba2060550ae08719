//! Two engines' protocol halves, without devices between them.

mod door;

use std::net::Ipv6Addr;

use types::HostId;

use super::*;
use crate::wireguard::key::PublicKey;
use crate::wireguard::policy::{SixPnPolicy, machine};

struct Side {
    core: Core,
    key: PrivateKey,
    at: SocketAddr,
    id: PeerId,
}

impl Side {
    fn new(number: u16) -> Self {
        let key = PrivateKey::generate().unwrap();
        let host = HostId::new(number);
        let policy = SixPnPolicy::by_host_field(host);
        Self {
            core: Core::new(&key, 1420, Box::new(policy), None),
            key,
            at: SocketAddr::from(([192, 0, 2, 1], number)),
            id: host.into(),
        }
    }

    fn config(&self, endpoint: Option<SocketAddr>) -> PeerConfig {
        PeerConfig {
            id: self.id,
            public_key: self.key.public(),
            endpoint,
            keepalive_s: None,
        }
    }

    fn send(&self, packet: &[u8]) -> Vec<Packet> {
        let id = self.core.route(packet).unwrap();
        let peer = self.core.peer(id).unwrap();
        let mut sealed = Vec::new();
        self.core
            .seal(&peer, &mut vec![Packet::copy_from(packet)], &mut sealed);
        sealed
    }

    fn receive(&self, from: SocketAddr, mut datagrams: Vec<Packet>) -> Opened {
        let mut opened = Opened::default();
        self.core.open(from, &mut datagrams, &mut opened);
        opened
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.core.counters.snapshot().of(reason)
    }
}

/// Two that know each other; the second does not know where the first is.
fn pair() -> (Side, Side) {
    let (a, b) = (Side::new(2), Side::new(3));
    a.core.ensure_peer(&b.config(Some(b.at))).unwrap();
    b.core.ensure_peer(&a.config(None)).unwrap();
    (a, b)
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 4, 59, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(b"ping");
    packet
}

fn datagrams(opened: &mut Opened) -> Vec<Packet> {
    opened
        .replies
        .drain(..)
        .map(|(_, datagram)| datagram)
        .collect()
}

/// Sends a packet from `a` to `b` by way of a handshake, and returns what came out.
fn shake(a: &Side, b: &Side, packet: &[u8]) -> Opened {
    let initiation = a.send(packet);
    let mut response = b.receive(a.at, initiation);
    let mut queued = a.receive(b.at, datagrams(&mut response));
    b.receive(a.at, datagrams(&mut queued))
}

#[test]
fn the_first_packet_survives_the_handshake() {
    let (a, b) = pair();
    let first = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let opened = shake(&a, &b, &first);
    assert_eq!(opened.packets.len(), 1);
    assert_eq!(opened.packets[0].as_ref(), first);
    assert_eq!(b.core.peers()[0].endpoint, Some(a.at));
    assert_eq!(b.core.peers()[0].rx_bytes, 44);
    assert!(a.core.peers()[0].last_handshake.is_some());
    let answer = packet(machine(7, 3, 0x10001), machine(7, 2, 0x10001));
    let opened = a.receive(b.at, b.send(&answer));
    assert_eq!(opened.packets.len(), 1);
}

#[test]
fn an_endpoint_follows_authenticated_packets_only() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    shake(&a, &b, &data);
    let moved = SocketAddr::from(([198, 51, 100, 9], 4));
    let mut forged = a.send(&data);
    let last = forged[0].buf_mut().last_mut().unwrap();
    *last ^= 1;
    assert!(b.receive(moved, forged).packets.is_empty());
    assert_eq!(b.drops(DropReason::BadTag), 1);
    assert_eq!(b.core.peers()[0].endpoint, Some(a.at));
    assert_eq!(b.receive(moved, a.send(&data)).packets.len(), 1);
    assert_eq!(b.core.peers()[0].endpoint, Some(moved));
}

#[test]
fn replays_are_dropped_and_counted() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let initiation = a.send(&data)[0].as_ref().to_vec();
    let mut response = b.receive(a.at, vec![Packet::copy_from(&initiation[..])]);
    a.receive(b.at, datagrams(&mut response));
    let again = b.receive(a.at, vec![Packet::copy_from(&initiation[..])]);
    assert!(again.replies.is_empty());
    assert_eq!(b.drops(DropReason::Replayed), 1);
    let message = a.send(&data)[0].as_ref().to_vec();
    let twice = [&message, &message].map(|message| Packet::copy_from(&message[..]));
    assert_eq!(b.receive(a.at, twice.into()).packets.len(), 1);
    assert_eq!(b.drops(DropReason::Replayed), 2);
}

#[test]
fn a_peer_may_not_speak_for_others() {
    let (a, b) = pair();
    // `a` believes that it owns everything.
    let liar = SixPnPolicy {
        host: HostId::new(2),
        owner: |address: types::SixPn| {
            if address.machine == 0x10001 {
                HostId::new(3)
            } else {
                HostId::new(2)
            }
        },
    };
    let a = Side {
        core: Core::new(&a.key, 1420, Box::new(liar), None),
        ..a
    };
    a.core.ensure_peer(&b.config(Some(b.at))).unwrap();
    let here = machine(7, 3, 0x10001);
    let foreign = packet(machine(7, 4, 0x10002), here);
    assert!(shake(&a, &b, &foreign).packets.is_empty());
    assert_eq!(b.drops(DropReason::ForeignSource), 1);
    let elsewhere = packet(machine(7, 2, 0x10002), machine(7, 4, 0x10001));
    assert!(b.receive(a.at, a.send(&elsewhere)).packets.is_empty());
    assert_eq!(b.drops(DropReason::ForeignDestination), 1);
}

#[test]
fn strangers_and_removed_peers_get_no_answer() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    shake(&a, &b, &data);
    assert!(b.core.remove_peer(a.id));
    assert!(!b.core.remove_peer(a.id));
    assert!(b.receive(a.at, a.send(&data)).packets.is_empty());
    assert_eq!(b.drops(DropReason::NoSession), 1);
    let stranger = Side::new(2);
    stranger.core.ensure_peer(&b.config(Some(b.at))).unwrap();
    let opened = b.receive(stranger.at, stranger.send(&data));
    assert!(opened.replies.is_empty());
    assert_eq!(b.drops(DropReason::UnknownPeer), 1);
}

#[test]
fn one_key_is_one_peer() {
    let (a, b) = pair();
    let mut config = b.config(None);
    config.id = PeerId(99);
    let taken = a.core.ensure_peer(&config);
    assert!(matches!(taken, Err(WireGuardError::KeyTaken { .. })));
    config.public_key = a.key.public();
    let own = a.core.ensure_peer(&config);
    assert!(matches!(own, Err(WireGuardError::OwnKey { .. })));
}

#[test]
fn a_repeated_ensure_keeps_the_session_and_another_key_ends_it() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    shake(&a, &b, &data);
    a.core.ensure_peer(&b.config(None)).unwrap();
    assert_eq!(b.receive(a.at, a.send(&data)).packets.len(), 1);
    assert_eq!(a.core.peers()[0].endpoint, Some(b.at));
    let mut config = b.config(Some(b.at));
    config.public_key = Side::new(9).key.public();
    a.core.ensure_peer(&config).unwrap();
    assert_eq!(a.core.peers().len(), 1);
    assert!(a.core.peers()[0].last_handshake.is_none());
}

#[test]
fn a_peer_with_a_keepalive_is_greeted_at_once() {
    let (a, b) = (Side::new(2), Side::new(3));
    let mut config = b.config(Some(b.at));
    config.keepalive_s = Some(25);
    let (to, initiation) = a.core.ensure_peer(&config).unwrap().unwrap();
    assert_eq!(to, b.at);
    b.core.ensure_peer(&a.config(None)).unwrap();
    assert_eq!(b.receive(a.at, vec![initiation]).replies.len(), 1);
}

#[test]
fn too_many_handshakes_from_one_address_are_asked_for_a_cookie() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let initiation = a.send(&data)[0].as_ref().to_vec();
    let flood = usize::try_from(HANDSHAKES_PER_S_MAX).unwrap() + 1;
    let packets = (0..flood)
        .map(|_| Packet::copy_from(&initiation[..]))
        .collect();
    let opened = b.receive(a.at, packets);
    // One answer to the handshake, and a cookie of 64 bytes.
    let lengths: Vec<usize> = opened
        .replies
        .iter()
        .map(|(_, reply)| reply.as_ref().len())
        .collect();
    assert_eq!(lengths, [92, 64]);
}

#[test]
fn a_flood_from_everywhere_is_asked_for_cookies() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let initiation = a.send(&data)[0].as_ref().to_vec();
    let mut flood = b.core.flood();
    while !flood.is_crowded(Instant::now()) {
        let source = std::net::Ipv4Addr::from(flood.handshakes());
        flood.admits(source.into(), Instant::now());
    }
    drop(flood);
    let opened = b.receive(a.at, vec![Packet::copy_from(&initiation[..])]);
    let lengths = opened.replies.iter().map(|(_, reply)| reply.as_ref().len());
    assert_eq!(lengths.collect::<Vec<_>>(), [64]);
}

#[test]
fn who_shows_a_cookie_again_and_again_is_not_worked_for_without_end() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let initiation = a.send(&data)[0].as_ref().to_vec();
    let flood = |count: u64| {
        let all = (0..count).map(|_| Packet::copy_from(&initiation[..]));
        b.receive(a.at, all.collect())
    };
    let mut cookie = flood(HANDSHAKES_PER_S_MAX + 1);
    a.receive(b.at, datagrams(&mut cookie).split_off(1));
    let peer = a.core.peer(b.id).unwrap();
    let proven = peer.lock().tunn.format_handshake_initiation(true).unwrap();
    let proven = Packet::from(WgKind::HandshakeInit(proven))
        .as_ref()
        .to_vec();
    let all = (0..1000).map(|_| Packet::copy_from(&proven[..]));
    b.receive(a.at, all.collect());
    assert!(b.drops(DropReason::Crowded) > 0);
}

#[test]
fn what_waits_for_a_session_does_not_keep_its_batch() {
    let (a, b) = pair();
    let data = packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
    let mut batch = bytes::BytesMut::with_capacity(1 << 16);
    batch.extend_from_slice(&data);
    let one = Packet::from_bytes(batch.split());
    let peer = a.core.peer(b.id).unwrap();
    a.core.seal(&peer, &mut vec![one], &mut Vec::new());
    // The packet has let go of it, so all of it can be had again.
    assert!(batch.try_reclaim(1 << 16));
}
