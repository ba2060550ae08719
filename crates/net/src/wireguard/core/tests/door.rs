//! Keys that no peer has, before an engine with a door.

use crate::wireguard::knock::Knocks;

use super::*;

/// A side that lets strangers knock.
fn with_door(number: u16) -> (Side, Knocks) {
    let side = Side::new(number);
    let (door, knocks) = Door::new();
    let policy = SixPnPolicy::by_host_field(HostId::new(number));
    let core = Core::new(&side.key, 1420, Box::new(policy), Some(door));
    (Side { core, ..side }, knocks)
}

/// A client that knows the gateway, which does not know it.
fn client(gateway: &Side) -> Side {
    let client = Side::new(2);
    let config = gateway.config(Some(gateway.at));
    client.core.ensure_peer(&config).unwrap();
    client
}

fn data() -> Vec<u8> {
    packet(machine(7, 2, 0x10001), machine(7, 3, 0x10001))
}

fn admit(gateway: &Side, client: &Side) -> (bool, Vec<Packet>) {
    let mut opened = Opened::default();
    let config = client.config(None);
    let admitted = gateway.core.admit(&config, &mut opened).unwrap();
    (admitted, datagrams(&mut opened))
}

fn copies(bytes: &[u8], count: usize) -> Vec<Packet> {
    (0..count).map(|_| Packet::copy_from(bytes)).collect()
}

/// The initiation of a client's first packet.
fn initiation(client: &Side) -> Vec<u8> {
    client.send(&data())[0].as_ref().to_vec()
}

#[test]
fn the_first_packet_of_a_stranger_survives_its_admission() {
    let (gateway, mut knocks) = with_door(3);
    let client = client(&gateway);
    let opened = gateway.receive(client.at, client.send(&data()));
    assert!(opened.replies.is_empty() && gateway.core.peers().is_empty());
    let knock = knocks.try_recv().unwrap();
    assert_eq!(knock.public_key, client.key.public());
    assert_eq!(knock.from, client.at);
    let (admitted, replies) = admit(&gateway, &client);
    assert!(admitted);
    let mut queued = client.receive(gateway.at, replies);
    let opened = gateway.receive(client.at, datagrams(&mut queued));
    assert_eq!(opened.packets.len(), 1);
    let peer = &gateway.core.peers()[0];
    assert_eq!(peer.endpoint, Some(client.at));
    assert!(peer.last_heard.is_some());
}

#[test]
fn an_impatient_stranger_is_asked_about_once_and_its_newest_initiation_is_answered() {
    let (gateway, mut knocks) = with_door(3);
    let client = client(&gateway);
    gateway.receive(client.at, client.send(&data()));
    let peer = client.core.peer(gateway.id).unwrap();
    let again = peer.lock().tunn.format_handshake_initiation(true).unwrap();
    let again = client
        .core
        .register(&peer, &mut peer.lock(), WgKind::HandshakeInit(again));
    let moved = SocketAddr::from(([198, 51, 100, 9], 4));
    gateway.receive(moved, vec![again]);
    assert!(knocks.try_recv().is_ok());
    assert!(knocks.try_recv().is_err());
    assert_eq!(gateway.core.waiting(), 1);
    let (_, replies) = admit(&gateway, &client);
    assert_eq!(client.receive(gateway.at, replies).replies.len(), 2);
    assert_eq!(gateway.core.peers()[0].endpoint, Some(moved));
}

#[test]
fn who_is_declined_is_forgotten_and_may_knock_again() {
    let (gateway, mut knocks) = with_door(3);
    let client = client(&gateway);
    let initiation = initiation(&client);
    for _ in 0..2 {
        gateway.receive(client.at, copies(&initiation, 1));
        assert!(knocks.try_recv().is_ok());
        assert!(gateway.core.decline(&client.key.public()));
        assert!(!gateway.core.decline(&client.key.public()));
    }
    assert_eq!(gateway.core.waiting(), 0);
    assert_eq!(gateway.drops(DropReason::UnknownPeer), 2);
    // The answer comes after all, when nothing waits for it.
    let (admitted, replies) = admit(&gateway, &client);
    assert!(!admitted && replies.is_empty() && gateway.core.peers().is_empty());
}

#[test]
fn a_wrong_mac1_is_nobodys_knock() {
    let (gateway, mut knocks) = with_door(3);
    let mut forged = initiation(&client(&gateway));
    forged[120] ^= 1;
    gateway.receive(gateway.at, copies(&forged, 5));
    assert!(knocks.try_recv().is_err());
    assert_eq!(gateway.drops(DropReason::BadHandshake), 5);
}

#[test]
fn a_recorded_initiation_is_useless_after_its_peer_is_removed() {
    let (gateway, mut knocks) = with_door(3);
    let client = client(&gateway);
    let recorded = initiation(&client);
    gateway.receive(client.at, copies(&recorded, 1));
    assert!(admit(&gateway, &client).0 && knocks.try_recv().is_ok());
    gateway.receive(client.at, copies(&recorded, 1));
    assert_eq!(gateway.drops(DropReason::Replayed), 1);
    assert!(gateway.core.remove_peer(client.id));
    gateway.receive(client.at, copies(&recorded, 1));
    assert!(knocks.try_recv().is_err());
    assert_eq!(gateway.drops(DropReason::Replayed), 2);
    // Nor does it help that the engine is another one.
    let (next, mut knocks) = with_door(3);
    let key = gateway.key.clone();
    let (door, _) = Door::new();
    let policy = SixPnPolicy::by_host_field(HostId::new(3));
    let core = Core::new(&key, 1420, Box::new(policy), Some(door));
    let next = Side { core, key, ..next };
    next.core.remember(gateway.core.last_initiations());
    next.receive(client.at, copies(&recorded, 1));
    assert!(knocks.try_recv().is_err());
    assert_eq!(next.drops(DropReason::Replayed), 1);
}

#[test]
fn a_recorded_initiation_is_useless_where_the_peer_is_added_ahead_of_time() {
    let (a, b) = pair();
    let recorded = initiation(&a);
    assert_eq!(b.receive(a.at, copies(&recorded, 1)).replies.len(), 1);
    assert!(b.core.remove_peer(a.id));
    b.core.ensure_peer(&a.config(None)).unwrap();
    assert!(b.receive(a.at, copies(&recorded, 1)).replies.is_empty());
    assert_eq!(b.drops(DropReason::Replayed), 1);
}

#[test]
fn garbage_leaves_nothing_behind() {
    let (gateway, mut knocks) = with_door(3);
    let real = initiation(&client(&gateway));
    for number in 0..10_000_u32 {
        let mut garbage = real.clone();
        let at = 4 + usize::try_from(number).unwrap() % 128;
        garbage[at] ^= number.to_le_bytes()[0] | 1;
        garbage.truncate(148 - usize::try_from(number / 5000).unwrap());
        gateway.receive(client_at(number), vec![Packet::copy_from(&garbage[..])]);
    }
    assert!(knocks.try_recv().is_err());
    assert_eq!(gateway.core.waiting(), 0);
    assert!(gateway.core.peers().is_empty() && gateway.core.last_initiations().is_empty());
}

fn client_at(number: u32) -> SocketAddr {
    let [a, b, ..] = number.to_le_bytes();
    SocketAddr::from(([192, 0, a, b], 1000))
}

#[test]
fn each_key_has_one_last_initiation_whether_its_peer_is_here_or_not() {
    let (gateway, _knocks) = with_door(3);
    let client = client(&gateway);
    gateway.receive(client.at, client.send(&data()));
    assert!(admit(&gateway, &client).0);
    let once = gateway.core.last_initiations();
    assert_eq!(once.len(), 1);
    assert!(gateway.core.remove_peer(client.id));
    assert_eq!(gateway.core.last_initiations(), once);
    gateway.core.ensure_peer(&client.config(None)).unwrap();
    assert_eq!(gateway.core.last_initiations(), once);
}

#[test]
fn a_key_that_has_one_secret_with_everybody_is_no_peers() {
    let (gateway, _knocks) = with_door(3);
    let mut config = gateway.config(None);
    config.id = PeerId(9);
    config.public_key = PublicKey([0; 32]);
    let weak = gateway.core.ensure_peer(&config);
    assert!(matches!(weak, Err(WireGuardError::WeakKey { .. })));
}
