//! Messages that are not data: who sent them, and what becomes of strangers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use gotatun::noise::TunnResult;
use gotatun::packet::{Packet, WgHandshakeInit, WgKind};

use super::super::counters::{DropReason, handshake_reason};
use super::super::error::WireGuardError;
use super::super::initiation::Timestamp;
use super::super::key::PublicKey;
use super::super::knock::{Door, Held};
use super::super::peer::{Peer, PeerConfig};
use super::{Core, Opened};

/// Who wants a handshake.
enum Initiator {
    Peer(Arc<Peer>, Timestamp),
    Stranger(PublicKey, Held),
}

impl Core {
    pub(super) fn open_handshake(&self, from: SocketAddr, message: WgKind, opened: &mut Opened) {
        let peer = match &message {
            WgKind::HandshakeInit(initiation) => match self.initiator(from, initiation) {
                Ok(Initiator::Peer(peer, timestamp)) => Ok((peer, Some(timestamp))),
                Ok(Initiator::Stranger(key, held)) => return self.knock(key, held),
                Err(reason) => Err(reason),
            },
            WgKind::HandshakeResp(message) => self.by_index(message.receiver_idx.get()),
            WgKind::CookieReply(message) => self.by_index(message.receiver_idx.get()),
            WgKind::Data(message) => self.by_index(message.header.receiver_idx.get()),
        };
        match peer {
            Ok((peer, timestamp)) => self.answer(&peer, from, message, timestamp, opened),
            Err(reason) => self.counters.add(reason, 1),
        }
    }

    /// Who sent an initiation. The header of `initiation` argues the order of what is done.
    fn initiator(
        &self,
        from: SocketAddr,
        message: &Packet<WgHandshakeInit>,
    ) -> Result<Initiator, DropReason> {
        let opened = self.responder.open(message);
        let opened = opened.ok_or(DropReason::BadHandshake)?;
        let key = opened.sender;
        let known = self.read().by_key.get(&key).cloned();
        if let Some(peer) = known {
            let timestamp = opened.time(message, &peer.shared);
            let timestamp = timestamp.ok_or(DropReason::BadTag)?;
            return Ok(Initiator::Peer(peer, timestamp));
        }
        if self.door.is_none() {
            return Err(DropReason::UnknownPeer);
        }
        let shared = self.responder.shared(&key);
        let shared = shared.ok_or(DropReason::BadHandshake)?;
        let timestamp = opened.time(message, &shared);
        let timestamp = timestamp.ok_or(DropReason::BadTag)?;
        if self.memory().last(&key) >= Some(timestamp) {
            return Err(DropReason::Replayed);
        }
        let held = Held {
            message: Packet::copy_from(&**message),
            from,
            timestamp,
            shared,
        };
        Ok(Initiator::Stranger(key, held))
    }

    fn knock(&self, key: PublicKey, held: Held) {
        let Some(door) = &self.door else {
            return self.counters.add(DropReason::UnknownPeer, 1);
        };
        if let Err(reason) = door.hold(key, held, Instant::now()) {
            self.counters.add(reason, 1);
        }
    }

    /// Makes a stranger a peer and answers what it knocked with. Whether it was still waiting; if
    /// not, nothing is changed.
    pub(in super::super) fn admit(
        &self,
        config: &PeerConfig,
        opened: &mut Opened,
    ) -> Result<bool, WireGuardError> {
        let held = self.door.as_ref();
        let held = held.and_then(|door| door.take(&config.public_key, Instant::now()));
        let Some(held) = held else {
            return Ok(false);
        };
        let peer = self.insert(config, &held.shared)?;
        peer.lock().keepalive_s = config.keepalive_s;
        let message = WgKind::HandshakeInit(held.message);
        self.answer(&peer, held.from, message, Some(held.timestamp), opened);
        Ok(true)
    }

    /// Whether it was waiting.
    pub(in super::super) fn decline(&self, key: &PublicKey) -> bool {
        let door = self.door.as_ref();
        let held = door.and_then(|door| door.take(key, Instant::now()));
        if held.is_some() {
            self.counters.add(DropReason::UnknownPeer, 1);
        }
        held.is_some()
    }

    /// Strangers that wait.
    pub(in super::super) fn waiting(&self) -> usize {
        self.door.as_ref().map_or(0, Door::waiting)
    }

    /// The last initiation of every peer, now or once; who is here comes last.
    pub(in super::super) fn last_initiations(&self) -> Vec<(PublicKey, Timestamp)> {
        let peers: Vec<_> = self.read().by_id.values().cloned().collect();
        let peers = peers.iter();
        let here: BTreeMap<_, _> = peers
            .filter_map(|peer| Some((peer.key, peer.lock().initiated?)))
            .collect();
        let memory = self.memory();
        let gone = memory.iter().filter(|(key, _)| !here.contains_key(key));
        let mut all: Vec<_> = gone.collect();
        drop(memory);
        all.extend(here);
        all
    }

    pub(in super::super) fn remembers(&self, key: &PublicKey) -> bool {
        self.memory().last(key).is_some()
    }

    pub(in super::super) fn remember(
        &self,
        initiations: impl IntoIterator<Item = (PublicKey, Timestamp)>,
    ) {
        let mut memory = self.memory();
        for (key, timestamp) in initiations {
            memory.remember(key, timestamp);
        }
    }

    /// Has a peer take in what is not data. An initiation comes with its time.
    fn answer(
        &self,
        peer: &Arc<Peer>,
        from: SocketAddr,
        message: WgKind,
        timestamp: Option<Timestamp>,
        opened: &mut Opened,
    ) {
        let mut session = peer.lock();
        if session.removed {
            return self.counters.add(DropReason::UnknownPeer, 1);
        }
        if timestamp.is_some() && timestamp <= session.initiated {
            return self.counters.add(DropReason::Replayed, 1);
        }
        if let Some(packet) = self.wake(peer, &mut session) {
            opened
                .replies
                .push((session.endpoint.unwrap_or(from), packet));
        }
        match session.tunn.handle_incoming_packet(message) {
            // Initiation and response both are answered only if they were authentic.
            TunnResult::WriteToNetwork(reply) => {
                session.endpoint = Some(from);
                session.heard = Some(session.active);
                session.initiated = timestamp.or(session.initiated);
                let reply = self.register(peer, &mut session, reply);
                opened.replies.push((from, reply));
                self.send_queued(peer, &mut session, opened);
            }
            TunnResult::Err(error) => self.counters.add(handshake_reason(&error), 1),
            TunnResult::Done | TunnResult::WriteToTunnel(_) => {}
        }
    }

    /// With no time: only initiations have one.
    fn by_index(&self, index: u32) -> Result<(Arc<Peer>, Option<Timestamp>), DropReason> {
        let peer = self.read().by_index.get(&index).cloned();
        Ok((peer.ok_or(DropReason::NoSession)?, None))
    }
}
