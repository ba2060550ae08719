//! What strangers and guests can send us, for fuzzing: anything may be dropped, nothing may panic.

use std::net::{Ipv6Addr, SocketAddr};

use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::packet::{Packet, WgKind};

use super::coalesce::coalesce;
use super::core::{Core, Opened};
use super::counters::DropReason;
use super::initiation::Responder;
use super::key::PrivateKey;
use super::knock::Door;
use super::peer::{PeerConfig, PeerId};
use super::policy::Policy;
use super::split::split;
use super::vnet::VnetHeader;

/// A frame of the TUN device, which a guest's own virtio-net header may stand behind: splits it,
/// and coalesces what comes out.
#[doc(hidden)]
pub fn fuzz_frame(frame: &[u8]) {
    let Some((header, packet)) = VnetHeader::parse(frame) else {
        return;
    };
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut packet = packet.to_vec();
    let _ = split(header, &mut packet, &mut |headers, payload| {
        packets.push([headers, payload].concat());
    });
    let count = packets.len();
    let mut frames = 0;
    coalesce(&packets, &mut |_, _| frames += 1);
    assert!(frames <= count, "{frames} frames of {count} packets");
}

/// A datagram from anywhere, to an engine with one peer.
#[doc(hidden)]
pub fn fuzz_datagram(datagram: &[u8]) {
    let key = PrivateKey::from_bytes([7; 32]);
    let core = Core::new(&key, 1420, Box::new(Nobody), None);
    let from = SocketAddr::from(([192, 0, 2, 1], 51820));
    let peer = PeerConfig {
        id: PeerId(1),
        public_key: PrivateKey::from_bytes([9; 32]).public(),
        endpoint: Some(from),
        keepalive_s: None,
    };
    let _ = core.ensure_peer(&peer);
    let mut opened = Opened::default();
    core.open(from, &mut vec![Packet::copy_from(datagram)], &mut opened);
    assert!(opened.packets.is_empty(), "nobody has a session");
}

/// An initiation from anywhere to an engine with a door, which is private key 7, 7, 7, …: as it
/// came, and with its mac1 set right, so that it gets past that.
#[doc(hidden)]
pub fn fuzz_initiation(datagram: &[u8]) {
    let key = PrivateKey::from_bytes([7; 32]);
    let responder = Responder::new(&key);
    let mut datagram = datagram.to_vec();
    if let Ok(WgKind::HandshakeInit(message)) = Packet::copy_from(&datagram[..]).try_into_wg() {
        let ours = responder.open(&message).map(|opened| opened.sender.0);
        let theirs = parse_handshake_anon(responder.secret(), responder.public(), &message);
        let theirs = theirs.ok().map(|half| half.peer_static_public);
        assert_eq!(ours, theirs, "gotatun reads another sender");
    }
    let (door, mut knocks) = Door::new();
    let core = Core::new(&key, 1420, Box::new(Nobody), Some(door));
    let from = SocketAddr::from(([192, 0, 2, 1], 51820));
    let mut opened = Opened::default();
    core.open(
        from,
        &mut vec![Packet::copy_from(&datagram[..])],
        &mut opened,
    );
    if let Some(covered) = datagram.len().checked_sub(32) {
        let mac_key = Blake2s256::new()
            .chain_update(b"mac1----")
            .chain_update(responder.public())
            .finalize();
        let mac = <Blake2sMac<U16> as Mac>::new_from_slice(&mac_key)
            .expect("32 bytes are a key")
            .chain_update(&datagram[..covered])
            .finalize()
            .into_bytes();
        datagram[covered..covered + 16].copy_from_slice(&mac);
        core.open(
            from,
            &mut vec![Packet::copy_from(&datagram[..])],
            &mut opened,
        );
    }
    assert!(opened.packets.is_empty() && core.peers().is_empty());
    assert!(opened.replies.is_empty(), "nobody was admitted");
    let waiting = core.waiting();
    assert!(waiting <= 1, "one key was said");
    assert_eq!(knocks.try_recv().is_ok(), waiting == 1);
}

struct Nobody;

impl Policy for Nobody {
    fn route(&self, _: Ipv6Addr, _: Ipv6Addr) -> Result<PeerId, DropReason> {
        Err(DropReason::ForeignDestination)
    }

    fn allow(&self, _: PeerId, _: Ipv6Addr, _: Ipv6Addr) -> Result<(), DropReason> {
        Err(DropReason::ForeignSource)
    }
}
