//! From the network to the TUN device.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use gotatun::packet::Packet;

use super::coalesce::coalesce;
use super::core::Opened;
use super::counters::DropReason;
use super::engine::Shared;
use super::split::split;
use super::vnet::VnetHeader;
use super::{BATCH_SEGMENTS_MAX, PACKET_BYTES_MAX};

/// Room for some trains.
const ARENA_BYTES: usize = 4 * PACKET_BYTES_MAX;

struct Inbound<'a> {
    shared: &'a Shared,
    /// Received datagrams are copied here once, decrypted in place and cut out.
    arena: BytesMut,
    /// Datagrams that wait to be decrypted, all from `from`.
    batch: Vec<Packet>,
    from: Option<SocketAddr>,
    opened: Opened,
}

/// Works until the engine stops.
pub(super) fn run(shared: &Shared) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut inbound = Inbound {
        shared,
        arena: BytesMut::with_capacity(ARENA_BYTES),
        batch: Vec::with_capacity(BATCH_SEGMENTS_MAX),
        from: None,
        opened: Opened::default(),
    };
    while !shared.is_stopping() {
        match shared.underlay.receive(&mut buffer) {
            Ok(train) => {
                inbound.take(
                    train.from,
                    buffer[..train.bytes].chunks(train.segment_bytes),
                );
            }
            Err(error) => {
                inbound.flush();
                let there = error.kind() == io::ErrorKind::WouldBlock;
                if !there {
                    tracing::warn!(%error, "cannot receive from the network");
                }
                shared.wait(there.then_some(&shared.underlay));
            }
        }
    }
}

impl Inbound<'_> {
    fn take<'d>(&mut self, from: SocketAddr, datagrams: impl Iterator<Item = &'d [u8]>) {
        if self.from != Some(from) {
            self.flush();
            self.from = Some(from);
        }
        for datagram in datagrams {
            self.arena.reserve(datagram.len());
            self.arena.extend_from_slice(datagram);
            self.batch.push(Packet::from_bytes(self.arena.split()));
        }
        // A train is a batch of its own, but for a few small datagrams.
        if self.batch.len() >= BATCH_SEGMENTS_MAX / 2 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(from) = self.from else {
            return;
        };
        let core = &self.shared.core;
        core.open(from, &mut self.batch, &mut self.opened);
        for (to, reply) in self.opened.replies.drain(..) {
            self.shared.underlay.send(to, &[reply], &core.counters);
        }
        if self.shared.tun.coalesces() {
            coalesce(&self.opened.packets, &mut |header, pieces| {
                self.write(header, pieces)
            });
        } else {
            for packet in &self.opened.packets {
                self.write(VnetHeader::PLAIN, &[packet.as_ref()]);
            }
        }
        self.opened.packets.clear();
    }

    fn write(&self, header: VnetHeader, pieces: &[&[u8]]) {
        match self.shared.tun.write(header, pieces) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // What has just been put together is taken apart again, this once.
                let mut whole = pieces.concat();
                let _ = split(header, &mut whole, &mut |headers, payload| {
                    self.write(VnetHeader::PLAIN, &[headers, payload]);
                });
            }
            Err(_) => self.shared.core.counters.add(DropReason::TunFailed, 1),
        }
    }
}
