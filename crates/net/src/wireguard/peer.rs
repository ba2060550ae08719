//! Peers, and the table that finds them by id, key and session index.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gotatun::noise::Tunn;
use types::HostId;

use super::initiation::{Shared, Timestamp};
use super::key::PublicKey;

/// Names a peer to the policy. Chosen by whoever adds it; of the mesh, the bits of its host id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl From<HostId> for PeerId {
    fn from(host: HostId) -> Self {
        Self(host.bits())
    }
}

/// What a peer is to be.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub id: PeerId,
    pub public_key: PublicKey,
    /// Where it was last known to be; without one, it has to speak first.
    pub endpoint: Option<SocketAddr>,
    /// Says something at least this often, so that devices between us keep the way open. Also
    /// makes us shake hands at once.
    pub keepalive_s: Option<u16>,
}

/// What a peer is.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    pub id: PeerId,
    pub public_key: PublicKey,
    /// Where it last spoke from.
    pub endpoint: Option<SocketAddr>,
    /// Age of the current session; `None` if there is none.
    pub last_handshake: Option<Duration>,
    /// Since its last authentic packet; `None` if there was none.
    pub last_heard: Option<Duration>,
    /// Inner bytes sent, with padding.
    pub tx_bytes: u64,
    /// Inner bytes received and allowed.
    pub rx_bytes: u64,
}

pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) key: PublicKey,
    pub(super) shared: Shared,
    session: Mutex<Session>,
    pub(super) tx_bytes: AtomicU64,
    pub(super) rx_bytes: AtomicU64,
    /// Whether it has a deadline. Changed only under the lock of `session`.
    pub(super) armed: AtomicBool,
}

/// What a peer's lock guards.
pub(super) struct Session {
    pub(super) tunn: Tunn,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) keepalive_s: Option<u16>,
    /// When something was last sent or received.
    pub(super) active: Instant,
    /// When something authentic was last received.
    pub(super) heard: Option<Instant>,
    /// The time of the last initiation that was accepted, also before the peer was here.
    pub(super) initiated: Option<Timestamp>,
    /// Indices under which this peer's messages may come.
    pub(super) indices: Vec<u32>,
    /// Taken out of the table; what still holds it must not bring it back.
    pub(super) removed: bool,
}

impl Peer {
    pub(super) fn new(
        config: &PeerConfig,
        tunn: Tunn,
        shared: Shared,
        initiated: Option<Timestamp>,
        now: Instant,
    ) -> Self {
        Self {
            id: config.id,
            key: config.public_key,
            shared,
            session: Mutex::new(Session {
                tunn,
                endpoint: config.endpoint,
                keepalive_s: config.keepalive_s,
                active: now,
                heard: None,
                initiated,
                indices: Vec::new(),
                removed: false,
            }),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            armed: AtomicBool::new(false),
        }
    }

    /// A thread that panicked while it held the lock ends the engine's thread, not the peer.
    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) by_id: HashMap<PeerId, Arc<Peer>>,
    pub(super) by_key: HashMap<PublicKey, Arc<Peer>>,
    /// By the receiver index of messages to us. Written while a peer is locked, so nobody locks a
    /// peer while holding this table.
    pub(super) by_index: HashMap<u32, Arc<Peer>>,
}

impl Table {
    pub(super) fn insert(&mut self, peer: &Arc<Peer>) {
        self.by_id.insert(peer.id, Arc::clone(peer));
        self.by_key.insert(peer.key, Arc::clone(peer));
    }

    /// Takes a peer out, but for its indices, which only its lock lets one see.
    pub(super) fn remove(&mut self, id: PeerId) -> Option<Arc<Peer>> {
        let peer = self.by_id.remove(&id)?;
        self.by_key.remove(&peer.key);
        Some(peer)
    }
}
