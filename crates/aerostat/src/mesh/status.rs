//! What the mesh says of itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::wireguard::{Backend as _, PeerStatus};
use types::HostId;
use types::fleet::{HostStatus, MeshPeer, MeshStatus};

use super::Mesh;

/// What others know of a host: membership, and the catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Word {
    pub status: HostStatus,
    /// How long ago its own word was heard; `None`: never.
    pub age: Option<Duration>,
}

/// Answers with the status of the mesh. Clones share what they ask.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn() -> MeshStatus + Send + Sync>);

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

impl Reporter {
    pub fn new(status: impl Fn() -> MeshStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(status))
    }

    pub fn status(&self) -> MeshStatus {
        (self.0)()
    }
}

impl Mesh {
    /// Every other host of the fleet as it is seen from here; `word` is asked for each.
    pub fn status(&self, word: impl Fn(HostId) -> Word) -> MeshStatus {
        let engine = &self.shared.engine;
        let known = engine.peers();
        let now = Instant::now();
        let peers = self.peers();
        let show = |(&id, host): (&HostId, &super::Known)| {
            let session = known.iter().find(|peer| peer.id == id.into());
            let quality = peers.windows.get(&id).map(|window| window.quality(now));
            let quality = quality.unwrap_or_default();
            let word = word(id);
            MeshPeer {
                id,
                name: host.name.clone(),
                status: word.status,
                endpoint: session.map_or(Some(host.endpoint), |peer| peer.endpoint),
                handshake_age_s: session.and_then(handshake_age_s),
                tx_bytes: session.map_or(0, |peer| peer.tx_bytes),
                rx_bytes: session.map_or(0, |peer| peer.rx_bytes),
                loss_percent: quality.loss_percent,
                round_trip_ms: quality.round_trip.map(|time| time.as_secs_f64() * 1000.0),
                word_age_s: word.age.map(|age| age.as_secs_f64()),
            }
        };
        let drops = engine.drops();
        MeshStatus {
            host: self.shared.host,
            public_key: engine.public_key().to_string(),
            port: self.shared.port,
            peers: peers.hosts.iter().map(show).collect(),
            drops: drops
                .iter()
                .map(|(reason, packets)| (reason.as_str().to_owned(), packets))
                .collect(),
        }
    }

    /// A reporter of this mesh.
    pub fn reporter(&self, word: impl Fn(HostId) -> Word + Send + Sync + 'static) -> Reporter {
        let mesh = self.clone();
        Reporter::new(move || mesh.status(&word))
    }
}

fn handshake_age_s(peer: &PeerStatus) -> Option<f64> {
    peer.last_handshake.map(|age| age.as_secs_f64())
}
