//! From the TUN device to the network.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use gotatun::packet::Packet;

use super::counters::DropReason;
use super::engine::Shared;
use super::peer::Peer;
use super::split::split;
use super::vnet::{VNET_HEADER_BYTES, VnetHeader};
use super::{BATCH_SEGMENTS_MAX, PACKET_BYTES_MAX};

/// Room for a batch of padded segments of the usual size.
const ARENA_BYTES: usize = 2 * BATCH_SEGMENTS_MAX * 1500;
/// WireGuard pads to this, so that lengths tell less.
const PADDING_BYTES: usize = 16;

struct Outbound<'a> {
    shared: &'a Shared,
    /// Where segments are put together; a batch is cut out of it without copying.
    arena: BytesMut,
    /// Segments that wait to be encrypted, all for `peer`.
    batch: Vec<Packet>,
    sealed: Vec<Packet>,
    peer: Option<Arc<Peer>>,
}

/// Works until the engine stops.
pub(super) fn run(shared: &Shared) {
    let mut buffer = vec![0; VNET_HEADER_BYTES + PACKET_BYTES_MAX];
    let mut outbound = Outbound {
        shared,
        arena: BytesMut::with_capacity(ARENA_BYTES),
        batch: Vec::with_capacity(BATCH_SEGMENTS_MAX),
        sealed: Vec::with_capacity(BATCH_SEGMENTS_MAX),
        peer: None,
    };
    while !shared.is_stopping() {
        match shared.tun.read(&mut buffer) {
            Ok(Some((header, packet))) => {
                if let Err(reason) = outbound.take(header, packet) {
                    shared.core.counters.add(reason, 1);
                }
            }
            Ok(None) => shared.core.counters.add(DropReason::Malformed, 1),
            Err(error) => {
                outbound.flush();
                let there = error.kind() == io::ErrorKind::WouldBlock;
                if !there {
                    tracing::warn!(link = shared.tun.link(), %error, "cannot read from TUN device");
                }
                shared.wait(there.then_some(&shared.tun));
            }
        }
    }
}

impl Outbound<'_> {
    fn take(&mut self, header: VnetHeader, packet: &mut [u8]) -> Result<(), DropReason> {
        let id = self.shared.core.route(packet)?;
        if self.peer.as_ref().is_none_or(|peer| peer.id != id) {
            self.flush();
            self.peer = Some(self.shared.core.peer(id).ok_or(DropReason::UnknownPeer)?);
        }
        split(header, packet, &mut |headers, payload| {
            self.push(headers, payload)
        })
        .map_err(|_| DropReason::Malformed)
    }

    fn push(&mut self, headers: &[u8], payload: &[u8]) {
        let bytes = headers.len() + payload.len();
        let mtu = usize::from(self.shared.tun.mtu());
        let padded = bytes.next_multiple_of(PADDING_BYTES).min(mtu).max(bytes);
        self.arena.reserve(padded);
        self.arena.extend_from_slice(headers);
        self.arena.extend_from_slice(payload);
        self.arena.resize(padded, 0);
        self.batch.push(Packet::from_bytes(self.arena.split()));
        if self.batch.len() >= BATCH_SEGMENTS_MAX {
            self.send();
        }
    }

    /// Sends what waits, and forgets the peer: it may be removed before the next packet.
    fn flush(&mut self) {
        self.send();
        self.peer = None;
    }

    fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let core = &self.shared.core;
        let Some(peer) = self.peer.take() else {
            // The rest of a super-packet whose peer has just gone.
            core.counters.add(DropReason::UnknownPeer, self.batch.len());
            return self.batch.clear();
        };
        if let Some(to) = core.seal(&peer, &mut self.batch, &mut self.sealed) {
            self.shared.underlay.send(to, &self.sealed, &core.counters);
            self.peer = Some(peer);
        }
        self.sealed.clear();
    }
}
