//! What strangers and guests can send us, for fuzzing: anything may be dropped, nothing may panic.

use std::net::{Ipv6Addr, SocketAddr};

use gotatun::packet::Packet;

use super::coalesce::coalesce;
use super::core::{Core, Opened};
use super::counters::DropReason;
use super::key::PrivateKey;
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
    let core = Core::new(&key, 1420, Box::new(Nobody));
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

struct Nobody;

impl Policy for Nobody {
    fn route(&self, _: Ipv6Addr, _: Ipv6Addr) -> Result<PeerId, DropReason> {
        Err(DropReason::ForeignDestination)
    }

    fn allow(&self, _: PeerId, _: Ipv6Addr, _: Ipv6Addr) -> Result<(), DropReason> {
        Err(DropReason::ForeignSource)
    }
}
