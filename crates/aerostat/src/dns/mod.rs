//! The resolver that every machine asks, at `fdaa::3`, and WireGuard peers at `<net>::3`.
//!
//! ```text
//! query -> which network (source address) -> question: what is asked (pure)
//!            ours    -> answer, offered: from `Names` as that network sees them (pure)
//!            foreign -> forward: the host's own resolvers, outside of the host's namespace
//! ```
//!
//! The guards at each machine's link and at the tunnels let each use only its own addresses as
//! source, so the source of a query says truthfully which network asks. Sockets for queries are in the host's namespace,
//! those for forwarding where the process is.

mod answer;
mod catalog;
mod forward;
mod fuzz;
mod handler;
mod offered;
mod question;
mod services;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::net::NetError as ServeError;
use net::{HostNet, NetError, Sockets};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use types::service::ServicePort;
use types::sixpn::{RESOLVER, network_resolver};
use types::{AppName, MachineId, NetworkId};

pub use catalog::CatalogNames;
#[doc(hidden)]
pub use fuzz::fuzz_query;

use forward::Forwarder;
use handler::{Handler, Resolver};

/// A TCP connection that is silent for so long is closed.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Responses of one TCP connection that may wait to be read. Connections themselves are bounded
/// per machine by the guard.
const TCP_RESPONSES_MAX: usize = 16;

const PORT: u16 = 53;

/// What names lead to, as one network sees it. Only machines that are started and want names.
pub trait Names: Send + Sync + 'static {
    /// The machines of `app`; empty if `network` has no such app.
    fn app(&self, network: NetworkId, app: &AppName) -> Vec<Named>;
    fn machine(&self, network: NetworkId, id: &MachineId) -> Option<Named>;
    fn all(&self, network: NetworkId) -> Vec<Named>;
    /// The service with this name, which is in lower case and has no final dot.
    fn service(&self, network: NetworkId, name: &str) -> Option<Offered>;
}

/// A machine that names lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: MachineId,
    pub app: AppName,
    pub region: String,
    pub address: Ipv6Addr,
}

/// What a service's name leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// `None`: to the backends themselves.
    pub vip: Option<Ipv6Addr>,
    pub ports: Vec<ServicePort>,
    /// Those that take part; none if there is a VIP.
    pub backends: Vec<Backend>,
}

/// One that stands behind a headless service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub address: Ipv6Addr,
    /// In lower case; empty if it has no name of its own.
    pub hostname: String,
    /// Its own port for each of the service's.
    pub ports: Vec<u16>,
}

#[derive(Debug)]
pub struct Config {
    /// The host's network, in which machines ask.
    pub net: HostNet,
    /// Lists the resolvers that foreign names are asked of; `/etc/resolv.conf` on most hosts.
    /// Read anew for each query, since DHCP and people change it.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot enter the host's network")]
    Enter { source: NetError },
    #[error("cannot give this host the resolver's address in network {network}")]
    Address {
        network: NetworkId,
        source: NetError,
    },
    #[error("cannot listen on [{address}]:{PORT}")]
    Listen {
        address: Ipv6Addr,
        source: io::Error,
    },
    #[error("the resolver ended by itself")]
    Serve { source: ServeError },
}

type Server = hickory_server::Server<Resolver>;

/// A resolver that listens: queries wait in its sockets until it runs.
pub struct Dns {
    server: Server,
    handle: Handle,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Where else the resolver is asked. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("dns::Handle").finish_non_exhaustive()
    }
}

struct Shared {
    net: HostNet,
    sockets: Sockets,
    handler: Arc<Handler>,
    /// Asked at `<net>::3`. Dropping a server closes its sockets.
    networks: Mutex<HashMap<NetworkId, Server>>,
}

/// Listens in the host's network. To be called inside a tokio runtime.
///
/// # Errors
/// If the namespace cannot be entered, or another resolver listens there.
pub async fn bind(config: Config, names: Arc<dyn Names>) -> Result<Dns, Error> {
    let Config { net, resolv_conf } = config;
    let (net, sockets) = blocking(move || net.sockets().map(|sockets| (net, sockets)))
        .await
        .map_err(|source| Error::Enter { source })?;
    let handler = Arc::new(Handler::new(names, Forwarder::new(resolv_conf)));
    let everybody = Resolver {
        handler: Arc::clone(&handler),
        only: None,
    };
    let server = listen(&sockets, RESOLVER, everybody).await?;
    let shared = Shared {
        net,
        sockets,
        handler,
        networks: Mutex::default(),
    };
    Ok(Dns {
        server,
        handle: Handle(Arc::new(shared)),
    })
}

async fn listen(sockets: &Sockets, address: Ipv6Addr, resolver: Resolver) -> Result<Server, Error> {
    // Bound to the address, not to all: an answer must come from where the question went.
    let at = SocketAddrV6::new(address, PORT, 0, 0);
    let fail = |source| Error::Listen { address, source };
    let udp = sockets.datagrams(at).await.map_err(fail)?;
    let tcp = sockets.listen(at).await.map_err(fail)?;
    let mut server = Server::new(resolver);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE_TIMEOUT, TCP_RESPONSES_MAX);
    Ok(server)
}

/// Runs `f`, which enters the namespace and talks to the kernel there.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Handle {
    /// Answers the WireGuard peers of `network` at `<net>::3`, and nobody else there. May be
    /// repeated.
    ///
    /// # Errors
    /// If the host cannot have the address, or not listen at it.
    pub async fn serve_network(&self, network: NetworkId) -> Result<(), Error> {
        let shared = &self.0;
        let mut networks = shared.networks.lock().await;
        if networks.contains_key(&network) {
            return Ok(());
        }
        let net = shared.net.clone();
        blocking(move || net.ensure_resolver(network))
            .await
            .map_err(|source| Error::Address { network, source })?;
        let resolver = Resolver {
            handler: Arc::clone(&shared.handler),
            only: Some(network),
        };
        let server = listen(&shared.sockets, network_resolver(network), resolver).await?;
        networks.insert(network, server);
        Ok(())
    }

    /// Takes that back; not served is fine.
    ///
    /// # Errors
    /// If the address cannot be taken from the host; it is not answered any more all the same.
    pub async fn forget_network(&self, network: NetworkId) -> Result<(), Error> {
        let mut networks = self.0.networks.lock().await;
        if networks.remove(&network).is_none() {
            return Ok(());
        }
        let net = self.0.net.clone();
        blocking(move || net.remove_resolver(network))
            .await
            .map_err(|source| Error::Address { network, source })
    }
}

impl Dns {
    /// For the gateway, whose peers ask at other addresses.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until `stop`; then what is being answered is finished.
    ///
    /// # Errors
    /// If a socket fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = self.server.block_until_done() => Some(ended),
        };
        self.handle.0.networks.lock().await.clear();
        match ended {
            Some(ended) => ended,
            None => self.server.shutdown_gracefully().await,
        }
        .map_err(|source| Error::Serve { source })
    }
}
