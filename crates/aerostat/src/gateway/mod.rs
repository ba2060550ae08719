//! The way in for clients outside: WireGuard peers, installed when they knock.
//!
//! ```text
//!  client ── UDP 51820 ──► engine ── unknown key ──► keeper ── look-up ──► directory
//!                            │  ▲                      │         └ found: route, resolver
//!                            │  └── admit (the held packet is answered) ┘ decline
//!                          wggate ──► machines, VIPs, `<net>::3` of the peer's own network
//!                                                     keeper ── silent, deleted ──► removed
//! ```
//!
//! The directory knows every peer; the gateway knows those that talk. A client that comes back
//! after its peer was removed for silence notices nothing: its next handshake brings the peer back
//! before the first packet is due. What may pass is decided by `addresses` (pure), whether a knock
//! is worth a look-up by `strangers` (pure); `keeper` waits and does as they say.
//!
//! The only thing that is kept on disk is the time of each peer's last handshake (`initiations`),
//! so that recorded handshakes do not open the door again.

mod addresses;
mod initiations;
mod keeper;
mod strangers;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use net::wireguard::{
    Backend as _, Drops, Engine, EngineConfig, Knocks, Offloads, PeerStatus, PrivateKey, Underlay,
    WireGuardError,
};
use net::{HostNet, TunError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use types::fleet::{GatewayRecord, PublicKeyText, WireGuardPeer};
use types::{HostId, NetworkId};

use crate::holder::{Protocol, held_by, holder};
use addresses::Addresses;

/// Silence after which a peer is removed. A session is of no use 180 s after its handshake
/// (`REJECT_AFTER_TIME`), and a handshake is something heard, so whoever was silent for longer
/// begins with a handshake anyway and loses nothing; the rest is for clocks that differ.
const IDLE: Duration = Duration::from_secs(190);

/// Why somebody could not be asked.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Lookup = dyn Fn(PublicKeyText) -> Answer<Option<WireGuardPeer>> + Send + Sync;
type OnNetwork = dyn Fn(NetworkId) -> Answer<()> + Send + Sync;

/// What a gateway works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This one.
    pub host: HostId,
    pub key: PrivateKey,
    /// On the underlay; port 0 takes any free one.
    pub listen: SocketAddr,
    pub net: HostNet,
    /// Keeps the times of the last handshakes.
    pub initiations: PathBuf,
    /// Silence after which a peer is removed; `None`: as long as nothing is lost by it.
    pub idle: Option<Duration>,
}

/// Why there is no gateway. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("UDP port {} of the gateway is taken{}; set `gateway_listen` to another", .address.port(), held_by(.holder.as_deref()))]
    PortTaken {
        address: SocketAddr,
        holder: Option<String>,
    },
    #[error("the gateway cannot listen on {address}; `gateway_listen` says where it should")]
    Listen {
        address: SocketAddr,
        source: WireGuardError,
    },
    #[error(
        "cannot set up the gateway's device {}; without /dev/net/tun, try `modprobe tun`",
        net::GATEWAY_LINK
    )]
    Tun { source: Box<TunError> },
    #[error("cannot start the gateway's engine")]
    Engine { source: WireGuardError },
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Knocks of keys that no peer had.
    pub knocks: u64,
    /// Of these, answered with a peer.
    pub admitted: u64,
    /// Of keys that nobody registered, or for another gateway.
    pub unknown: u64,
    /// Declined without asking, because the answer was known or the source asked too much.
    pub spared: u64,
    /// The look-up failed, or came too late for the client.
    pub failed: u64,
    /// Peers that were removed because they were silent.
    pub idle: u64,
    /// Peers that were removed because the directory no longer has them.
    pub deleted: u64,
}

/// A gateway that listens: who knocks waits until it runs.
pub struct Gateway {
    handle: Handle,
    knocks: Knocks,
    config: Config,
    addresses: Arc<Addresses>,
    lookup: Arc<Lookup>,
    on_network: Arc<OnNetwork>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// How others reach the gateway. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    engine: Arc<Engine>,
    port: u16,
    counts: Arc<Mutex<Counts>>,
    check: Arc<Notify>,
}

impl Gateway {
    /// Listens. Blocks; the underlay is the calling thread's network namespace.
    ///
    /// `lookup` asks the directory whose key it is; `on_network` makes ready what clients of a
    /// network need (the resolver), before the first of them is admitted, and may be called again.
    ///
    /// # Errors
    /// [`Error`]; most of them say what to do.
    pub fn start<L, A, N, B>(config: Config, lookup: L, on_network: N) -> Result<Self, Error>
    where
        L: Fn(PublicKeyText) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Option<WireGuardPeer>, BoxError>> + Send + 'static,
        N: Fn(NetworkId) -> B + Send + Sync + 'static,
        B: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let offloads = Offloads::default();
        // The port first: it is what is most likely refused, and asking changes nothing.
        let underlay = listen(config.listen, offloads)?;
        let tun = config.net.gateway_tun(offloads);
        let addresses = Arc::new(Addresses::new(config.host));
        let engine_config = EngineConfig {
            private_key: config.key.clone(),
            tun: tun.map_err(|source| Error::Tun {
                source: Box::new(source),
            })?,
            underlay,
        };
        let policy = addresses::GatewayPolicy(Arc::clone(&addresses));
        let (engine, knocks) = Engine::start_with_door(engine_config, policy)
            .map_err(|source| Error::Engine { source })?;
        engine.remember(initiations::read(&config.initiations));
        let address = engine.local_addr().map_err(|source| Error::Listen {
            address: config.listen,
            source: WireGuardError::Listen {
                address: config.listen,
                source,
            },
        })?;
        tracing::info!(host = %config.host, %address, "the gateway listens");
        let handle = Handle {
            engine: Arc::new(engine),
            port: address.port(),
            counts: Arc::default(),
            check: Arc::default(),
        };
        Ok(Self {
            handle,
            knocks,
            config,
            addresses,
            lookup: Arc::new(move |key| Box::pin(lookup(key))),
            on_network: Arc::new(move |network| Box::pin(on_network(network))),
        })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Lets clients in until `stop`. Then the device and every session are gone, once the last
    /// handle is.
    pub async fn run(self, stop: CancellationToken) {
        keeper::run(self, stop).await;
    }
}

impl Handle {
    /// The UDP port on the underlay.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How clients reach this gateway, if they reach this host at `advertise`.
    pub fn record(&self, advertise: IpAddr) -> GatewayRecord {
        GatewayRecord {
            public_key: self.engine.public_key().to_string(),
            endpoint: SocketAddr::new(advertise, self.port),
        }
    }

    /// Peers that are installed now.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.engine.peers()
    }

    /// Packets that were dropped since the start, by reason.
    pub fn drops(&self) -> Drops {
        self.engine.drops()
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the directory now whether it still has every peer that is installed; otherwise that
    /// happens every few seconds.
    pub fn check_peers(&self) {
        self.check.notify_one();
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Whether [`Gateway::start`] would have its port. Nothing is changed by asking.
///
/// # Errors
/// [`Error::PortTaken`] or [`Error::Listen`].
pub fn is_free(address: SocketAddr) -> Result<(), Error> {
    listen(address, Offloads::default()).map(drop)
}

fn listen(address: SocketAddr, offloads: Offloads) -> Result<Underlay, Error> {
    let result = Underlay::bind(address, offloads);
    result.map_err(|source| match source.io_kind() {
        Some(io::ErrorKind::AddrInUse) => Error::PortTaken {
            address,
            holder: holder(Protocol::Udp, address.port()),
        },
        Some(_) | None => Error::Listen { address, source },
    })
}
