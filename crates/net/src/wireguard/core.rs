//! The protocol without I/O: plain packets in, datagrams out, and the other way round.
//!
//! Called by three threads. A peer is locked for at most `LOCK_SEGMENTS_MAX` packets at a time,
//! so that one direction waits microseconds for the other. Lock order: a peer, then the table.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgData, WgKind};
use gotatun::tun::MtuWatcher;

use super::counters::{Counters, DropReason, reason};
use super::error::WireGuardError;
use super::flood::{self, Flood};
use super::initiation::{Responder, Shared};
use super::key::PrivateKey;
use super::knock::{Door, source};
use super::memory::Memory;
use super::peer::{Peer, PeerConfig, PeerId, PeerStatus, Session, Table};
use super::policy::Policy;
use super::segment::{addresses, total_bytes};
use super::timers::{Timers, next_tick};

/// Packets under one lock: about 12 µs of ChaCha20-Poly1305.
const LOCK_SEGMENTS_MAX: usize = 16;
/// From one source without proof that it can receive there; more have to show a cookie.
const HANDSHAKES_PER_S_MAX: u64 = 100;

/// A datagram and where it goes.
pub(super) type Outgoing = (SocketAddr, Packet);

/// What came out of received datagrams.
#[derive(Default)]
pub(super) struct Opened {
    /// Inner packets that the policy allows, without padding.
    pub(super) packets: Vec<Packet>,
    pub(super) replies: Vec<Outgoing>,
}

pub(super) struct Core {
    responder: Responder,
    limiter: Arc<RateLimiter>,
    /// Takes the place of `limiter` when too much comes from everywhere: asks all for a cookie.
    strict: RateLimiter,
    flood: Mutex<Flood>,
    indices: IndexTable,
    table: RwLock<Table>,
    pub(super) timers: Timers,
    pub(super) counters: Counters,
    policy: Box<dyn Policy>,
    /// Without one, strangers are dropped.
    door: Option<Door>,
    memory: Mutex<Memory>,
    mtu: u16,
}

impl Core {
    pub(super) fn new(
        key: &PrivateKey,
        mtu: u16,
        policy: Box<dyn Policy>,
        door: Option<Door>,
    ) -> Self {
        let responder = Responder::new(key);
        let limiter = RateLimiter::new(responder.public(), HANDSHAKES_PER_S_MAX);
        let strict = RateLimiter::new(responder.public(), 0);
        Self {
            limiter: Arc::new(limiter),
            strict,
            flood: Mutex::new(Flood::new(Instant::now())),
            responder,
            indices: IndexTable::from_os_rng(),
            table: RwLock::default(),
            timers: Timers::default(),
            counters: Counters::default(),
            policy,
            door,
            memory: Mutex::default(),
            mtu,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.read().by_id.get(&id).cloned()
    }

    /// Adds a peer, or makes it what `config` says. With the same key its session goes on.
    pub(super) fn ensure_peer(
        &self,
        config: &PeerConfig,
    ) -> Result<Option<Outgoing>, WireGuardError> {
        let peer = config.id;
        if config.public_key.0 == self.responder.public().to_bytes() {
            return Err(WireGuardError::OwnKey { peer });
        }
        let shared = self.responder.shared(&config.public_key);
        let shared = shared.ok_or(WireGuardError::WeakKey { peer })?;
        let fresh = self.insert(config, &shared)?;
        let mut session = fresh.lock();
        session.endpoint = config.endpoint.or(session.endpoint);
        session.keepalive_s = config.keepalive_s;
        session.tunn.set_persistent_keepalive(config.keepalive_s);
        if config.keepalive_s.is_none() {
            return Ok(None);
        }
        // The first keepalive makes the handshake.
        let Some(endpoint) = session.endpoint else {
            return Ok(None);
        };
        let first = self.wake(&fresh, &mut session);
        Ok(first.map(|packet| (endpoint, packet)))
    }

    /// The peer with the id and key of `config`, made if it is not there.
    fn insert(&self, config: &PeerConfig, shared: &Shared) -> Result<Arc<Peer>, WireGuardError> {
        let peer = config.id;
        let (old, fresh) = {
            let mut table = self.write();
            match table.by_key.get(&config.public_key) {
                Some(other) if other.id != peer => {
                    let other = other.id;
                    return Err(WireGuardError::KeyTaken { peer, other });
                }
                Some(known) => return Ok(Arc::clone(known)),
                None => {
                    let old = table.remove(peer);
                    let last = self.memory().last(&config.public_key);
                    let (tunn, shared) = (self.tunn(config), shared.clone());
                    let fresh = Arc::new(Peer::new(config, tunn, shared, last, Instant::now()));
                    table.insert(&fresh);
                    (old, fresh)
                }
            }
        };
        if let Some(old) = old {
            self.retire(&old);
        }
        Ok(fresh)
    }

    fn tunn(&self, config: &PeerConfig) -> Tunn {
        Tunn::new(
            self.responder.secret().clone(),
            config.public_key.0.into(),
            None,
            config.keepalive_s,
            self.indices.clone(),
            Arc::clone(&self.limiter),
        )
    }

    pub(super) fn remove_peer(&self, id: PeerId) -> bool {
        let removed = self.write().remove(id);
        if let Some(peer) = &removed {
            self.retire(peer);
        }
        removed.is_some()
    }

    /// Ends what others may still do with a peer that they found before it was removed.
    fn retire(&self, peer: &Peer) {
        let mut session = peer.lock();
        session.removed = true;
        if let Some(last) = session.initiated {
            self.memory().remember(peer.key, last);
        }
        let mut table = self.write();
        for index in session.indices.drain(..) {
            table.by_index.remove(&index);
        }
    }

    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let peers: Vec<_> = self.read().by_id.values().cloned().collect();
        let mut all: Vec<_> = peers.iter().map(|peer| status(peer)).collect();
        all.sort_by_key(|peer| peer.id);
        all
    }

    /// The peer that an inner packet goes to.
    pub(super) fn route(&self, packet: &[u8]) -> Result<PeerId, DropReason> {
        let (source, destination) = addresses(packet)?;
        self.policy.route(source, destination)
    }

    /// Encrypts packets, already padded, into `sealed`. Returns where they go; `None` drops them.
    pub(super) fn seal(
        &self,
        peer: &Arc<Peer>,
        packets: &mut Vec<Packet>,
        sealed: &mut Vec<Packet>,
    ) -> Option<SocketAddr> {
        let mut packets = packets.drain(..);
        let mut to = None;
        while packets.len() > 0 {
            let mut session = peer.lock();
            to = session.endpoint;
            if to.is_none() || session.removed {
                drop(session);
                self.counters.add(DropReason::NoEndpoint, packets.len());
                return None;
            }
            sealed.extend(self.wake(peer, &mut session));
            let waits = session.tunn.time_since_last_handshake().is_none();
            let mut bytes = 0;
            for mut packet in packets.by_ref().take(LOCK_SEGMENTS_MAX) {
                bytes += packet.as_ref().len();
                if waits {
                    // It is kept until there is a session, and must not keep its whole batch.
                    packet = Packet::copy_from(packet.as_ref());
                }
                if let Some(message) = session.tunn.handle_outgoing_packet(packet, None) {
                    sealed.push(self.register(peer, &mut session, message));
                }
            }
            drop(session);
            add(&peer.tx_bytes, bytes);
        }
        to
    }

    /// Takes in datagrams that came from `from`.
    pub(super) fn open(&self, from: SocketAddr, datagrams: &mut Vec<Packet>, opened: &mut Opened) {
        let mut run: Vec<Packet<WgData>> = Vec::with_capacity(LOCK_SEGMENTS_MAX);
        let limited = SocketAddr::new(source(from.ip()), from.port());
        for datagram in datagrams.drain(..) {
            let counts = flood::counts(datagram.as_ref());
            let limiter = match counts && self.flood().is_crowded(Instant::now()) {
                true => &self.strict,
                false => &*self.limiter,
            };
            match limiter.verify_packet(limited, datagram) {
                Ok(WgKind::Data(message)) => {
                    let index = message.header.receiver_idx;
                    let other = run
                        .first()
                        .is_some_and(|first| first.header.receiver_idx != index);
                    if other || run.len() >= LOCK_SEGMENTS_MAX {
                        self.open_data(from, &mut run, opened);
                    }
                    run.push(message);
                }
                Ok(message) => {
                    self.open_data(from, &mut run, opened);
                    // Whoever sends few handshakes is believed without a cookie.
                    limiter.try_reset_count();
                    if counts && !self.flood().admits(limited.ip(), Instant::now()) {
                        self.counters.add(DropReason::Crowded, 1);
                        continue;
                    }
                    self.open_handshake(from, message, opened);
                }
                // Too many from there: a cookie.
                Err(TunnResult::WriteToNetwork(reply)) => {
                    limiter.try_reset_count();
                    opened.replies.push((from, reply.into()));
                }
                Err(TunnResult::Err(error)) => self.counters.add(reason(&error), 1),
                Err(TunnResult::Done | TunnResult::WriteToTunnel(_)) => {}
            }
        }
        self.open_data(from, &mut run, opened);
    }

    /// Decrypts messages of one session.
    fn open_data(&self, from: SocketAddr, run: &mut Vec<Packet<WgData>>, opened: &mut Opened) {
        let Some(first) = run.first() else {
            return;
        };
        let peer = self
            .read()
            .by_index
            .get(&first.header.receiver_idx.get())
            .cloned();
        let Some(peer) = peer else {
            self.counters.add(DropReason::NoSession, run.len());
            run.clear();
            return;
        };
        let start = opened.packets.len();
        {
            let mut session = peer.lock();
            if session.removed {
                self.counters.add(DropReason::NoSession, run.len());
                return run.clear();
            }
            let mut heard = false;
            if let Some(packet) = self.wake(&peer, &mut session) {
                opened
                    .replies
                    .push((session.endpoint.unwrap_or(from), packet));
            }
            for message in run.drain(..) {
                match session.tunn.handle_incoming_packet(WgKind::Data(message)) {
                    TunnResult::WriteToTunnel(packet) => {
                        heard = true;
                        if !packet.as_ref().is_empty() {
                            opened.packets.push(packet);
                        }
                    }
                    TunnResult::Err(error) => self.counters.add(reason(&error), 1),
                    TunnResult::WriteToNetwork(reply) => opened.replies.push((from, reply.into())),
                    TunnResult::Done => {}
                }
            }
            if heard {
                session.endpoint = Some(from);
                session.heard = Some(session.active);
                self.send_queued(&peer, &mut session, opened);
            }
        }
        self.guard(&peer, start, opened);
    }

    /// Drops what the policy does not allow of `opened.packets` from `start` on.
    fn guard(&self, peer: &Peer, start: usize, opened: &mut Opened) {
        let mut kept = start;
        let mut bytes = 0;
        for at in start..opened.packets.len() {
            let allowed = addresses(opened.packets[at].as_ref())
                .and_then(|(source, destination)| self.policy.allow(peer.id, source, destination));
            if let Err(reason) = allowed {
                self.counters.add(reason, 1);
                continue;
            }
            let packet = &mut opened.packets[at];
            // `addresses` has seen that there is this much.
            let total = total_bytes(packet.as_ref()).unwrap_or(0);
            packet.truncate(total);
            bytes += total;
            opened.packets.swap(kept, at);
            kept += 1;
        }
        opened.packets.truncate(kept);
        add(&peer.rx_bytes, bytes);
    }

    /// Sends what waited for a session.
    fn send_queued(&self, peer: &Arc<Peer>, session: &mut Session, opened: &mut Opened) {
        let Some(to) = session.endpoint else {
            return;
        };
        if session.tunn.time_since_last_handshake().is_none() {
            return;
        }
        let mut mtu = MtuWatcher::new(self.mtu);
        let messages: Vec<WgKind> = session.tunn.get_queued_packets(&mut mtu).collect();
        for message in messages {
            let message = self.register(peer, session, message);
            opened.replies.push((to, message));
        }
    }

    /// Notes that the peer is in use. If it had no deadline, its clock stood still: brings it up
    /// to date first, which may give something to send.
    fn wake(&self, peer: &Arc<Peer>, session: &mut Session) -> Option<Packet> {
        session.active = Instant::now();
        if session.removed || peer.armed.swap(true, Ordering::Relaxed) {
            return None;
        }
        let due = session.tunn.update_timers();
        self.schedule(peer, session);
        // An error says that the last session is over, which is why there was no deadline.
        due.ok()
            .flatten()
            .map(|message| self.register(peer, session, message))
    }

    fn schedule(&self, peer: &Arc<Peer>, session: &Session) {
        let has_session = session.tunn.time_since_last_handshake().is_some();
        let silent_for = session.active.elapsed();
        match next_tick(has_session, session.keepalive_s.is_some(), silent_for) {
            Some(wait) if !session.removed => self.timers.push(Instant::now() + wait, peer),
            _ => peer.armed.store(false, Ordering::Relaxed),
        }
    }

    /// The peer's deadline has come.
    pub(super) fn tick(&self, peer: &Arc<Peer>) -> Option<Outgoing> {
        let mut session = peer.lock();
        let message = match session.tunn.update_timers() {
            Ok(message) => message,
            // gotatun gives up then; a peer with a keepalive is wanted for good.
            Err(_) if session.keepalive_s.is_some() => session
                .tunn
                .format_handshake_initiation(false)
                .map(Into::into),
            Err(_) => None,
        };
        let message = message.map(|message| self.register(peer, &mut session, message));
        self.schedule(peer, &session);
        Some((session.endpoint?, message?))
    }

    /// Notes the index under which the answer to a handshake will come, and forgets old ones.
    fn register(&self, peer: &Arc<Peer>, session: &mut Session, message: WgKind) -> Packet {
        let index = match &message {
            WgKind::HandshakeInit(message) => message.sender_idx.get(),
            WgKind::HandshakeResp(message) => message.sender_idx.get(),
            WgKind::CookieReply(_) | WgKind::Data(_) => return message.into(),
        };
        if !session.removed {
            let mut table = self.write();
            session.indices.retain(|old| {
                let used = self.indices.in_use(*old);
                if !used {
                    table.by_index.remove(old);
                }
                used
            });
            session.indices.push(index);
            table.by_index.insert(index, Arc::clone(peer));
        }
        message.into()
    }
}

fn status(peer: &Peer) -> PeerStatus {
    let session = peer.lock();
    PeerStatus {
        id: peer.id,
        public_key: peer.key,
        endpoint: session.endpoint,
        last_handshake: session.tunn.time_since_last_handshake(),
        last_heard: session.heard.map(|heard| heard.elapsed()),
        tx_bytes: peer.tx_bytes.load(Ordering::Relaxed),
        rx_bytes: peer.rx_bytes.load(Ordering::Relaxed),
    }
}

fn add(counter: &std::sync::atomic::AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}

mod handshake;
#[cfg(test)]
mod tests;
