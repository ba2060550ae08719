//! The encrypted mesh between the hosts of the fleet.
//!
//! ```text
//!   directory: hosts ──► set_hosts ──► peers (pure: what changes)
//!                                        │
//!  the host's namespace                  ▼             the daemon's namespace
//!   machines ─┐                  ┌────────────────┐
//!   gateway ──┼─ route ─ wgmesh ─┤ WireGuard      ├─ UDP 51821 ──► other hosts
//!   us ───────┘                  │ engine, policy │
//!    └─ echoes, one a second     └────────────────┘
//!         └──► probe: loss, round trip ──► status
//! ```
//!
//! Each host is a peer of every other. Which one a packet goes to is read from its destination,
//! unless `overrides` knows better; what a peer may send is decided by the same function
//! (`policy`). Peers say something every [`KEEPALIVE_S`] seconds, so a session is there before the
//! first packet needs it, and one whose other end has begun anew is replaced by itself.
//!
//! The mesh knows hosts, not machines: nothing here changes when a machine comes or goes. It reads
//! no table of another role; what it is to know is told to it.

mod overrides;
mod peers;
mod policy;
mod probe;
mod prober;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use net::wireguard::{
    Backend as _, Engine, EngineConfig, Offloads, PeerConfig, PrivateKey, Tun, Underlay,
    WireGuardError,
};
use net::{HostNet, NetError, Sockets, TunError};
use tracing::{info, warn};
use types::HostId;
use types::fleet::HostRecord;

use crate::holder::{Protocol, held_by, holder};
use peers::Known;
use probe::Window;

pub use overrides::{Override, Overrides, Refused};
pub use status::{Reporter, Word};

/// Ten seconds before stateful firewalls forget a UDP flow (30 s is the shortest that is common),
/// and what WireGuard's own manual recommends.
const KEEPALIVE_S: u16 = 25;

/// What a mesh works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This one.
    pub host: HostId,
    pub key: PrivateKey,
    /// On the underlay; port 0 takes any free one.
    pub listen: SocketAddr,
    pub net: HostNet,
}

/// Why there is no mesh. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("UDP port {} of the mesh is taken{}; set `mesh_listen` to another", .address.port(), held_by(.holder.as_deref()))]
    PortTaken {
        address: SocketAddr,
        holder: Option<String>,
    },
    #[error("the mesh cannot listen on {address}; `mesh_listen` says where it should")]
    Listen {
        address: SocketAddr,
        source: WireGuardError,
    },
    #[error(
        "this host has no TUN device, which the mesh needs: try `modprobe tun`; inside a \
         container, give it the device /dev/net/tun"
    )]
    NoTun { source: Box<TunError> },
    #[error(
        "another process holds the mesh's device {} in {netns}; `aerostat down` ends it",
        net::MESH_LINK
    )]
    TunHeld {
        netns: String,
        source: Box<TunError>,
    },
    #[error(
        "cannot set up the mesh's device {}; `aerostat doctor` says what this host lacks",
        net::MESH_LINK
    )]
    Tun { source: Box<TunError> },
    #[error("cannot start the mesh's engine")]
    Engine { source: WireGuardError },
    #[error("cannot enter the host's namespace")]
    Namespace(#[source] NetError),
}

/// A running mesh. Clones share it; it ends, and its device goes, with the last of them.
#[derive(Debug, Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: HostId,
    engine: Engine,
    port: u16,
    sockets: Sockets,
    overrides: Arc<Overrides>,
    peers: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    hosts: BTreeMap<HostId, Known>,
    windows: BTreeMap<HostId, Window>,
}

impl Mesh {
    /// Starts without peers. Blocks; the underlay is the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error`]; most of them say what to do.
    pub fn start(config: Config) -> Result<Self, Error> {
        let offloads = Offloads::default();
        // The port first: it is what is most likely refused, and asking changes nothing.
        let underlay = listen(config.listen, offloads)?;
        let tun = open_tun(&config.net, offloads)?;
        let sockets = config.net.sockets().map_err(Error::Namespace)?;
        let overrides = Arc::new(Overrides::default());
        let engine = EngineConfig {
            private_key: config.key,
            tun,
            underlay,
        };
        let policy = policy::policy(config.host, Arc::clone(&overrides));
        let engine = Engine::start(engine, policy).map_err(|source| Error::Engine { source })?;
        let listens = engine.local_addr().map_err(|source| Error::Listen {
            address: config.listen,
            source: WireGuardError::Listen {
                address: config.listen,
                source,
            },
        })?;
        info!(host = %config.host, address = %listens, "the mesh listens");
        let shared = Shared {
            host: config.host,
            engine,
            port: listens.port(),
            sockets,
            overrides,
            peers: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The UDP port on the underlay.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// Who owns addresses whose machines have moved.
    pub fn overrides(&self) -> &Overrides {
        &self.shared.overrides
    }

    /// Makes all other hosts of `records` peers, and no others. A record that cannot be one is
    /// logged and left out; the rest is not held up by it.
    pub fn set_hosts(&self, records: &[HostRecord]) {
        let own = self.shared.engine.public_key();
        let wanted = peers::wanted(self.shared.host, own, records);
        for (host, why) in &wanted.unusable {
            warn!(%host, reason = %why, "a host of the fleet cannot be a peer of the mesh");
        }
        let mut peers = self.peers();
        let changes = peers::changes(&peers.hosts, &wanted.hosts);
        for host in &changes.remove {
            self.shared.engine.remove_peer((*host).into());
            peers.windows.remove(host);
            info!(%host, "a host is no longer a peer of the mesh");
        }
        for host in &changes.ensure {
            if let Some(known) = wanted.hosts.get(host) {
                self.ensure(*host, known);
            }
        }
        peers.hosts = wanted.hosts;
    }

    fn ensure(&self, host: HostId, known: &Known) {
        let config = PeerConfig {
            id: host.into(),
            public_key: known.key,
            endpoint: Some(known.endpoint),
            keepalive_s: Some(KEEPALIVE_S),
        };
        match self.shared.engine.ensure_peer(&config) {
            Ok(()) => info!(%host, endpoint = %known.endpoint, "a host is a peer of the mesh"),
            Err(error) => {
                let error = types::chain(&error);
                warn!(%host, error, "a host cannot be made a peer of the mesh");
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether [`Mesh::start`] would have its port. Nothing is changed by asking.
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

fn open_tun(net: &HostNet, offloads: Offloads) -> Result<Tun, Error> {
    net.mesh_tun(offloads).map_err(|source| {
        let kind = match &source {
            TunError::Device(error) => error.io_kind(),
            TunError::Net(_) => None,
        };
        let source = Box::new(source);
        match kind {
            // No such file, or a file whose module is not there.
            Some(io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Error::NoTun { source }
            }
            Some(io::ErrorKind::ResourceBusy) => Error::TunHeld {
                netns: net.netns().display().to_string(),
                source,
            },
            Some(_) | None => Error::Tun { source },
        }
    })
}
