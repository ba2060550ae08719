//! The resolver that every machine asks, at `fdaa::3`.
//!
//! ```text
//! query -> which network (source address) -> question: what is asked (pure)
//!            ours    -> answer: from `Names` as that network sees them (pure)
//!            foreign -> forward: the host's own resolvers, outside of the host's namespace
//! ```
//!
//! The guard at each machine's link lets it use only its own addresses as source, so the source
//! of a query says truthfully which network asks. Sockets for queries are in the host's namespace,
//! those for forwarding where the process is.

mod answer;
mod catalog;
mod forward;
mod fuzz;
mod handler;
mod question;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::net::NetError as ServeError;
use net::{HostNet, NetError};
use tokio_util::sync::CancellationToken;
use types::sixpn::RESOLVER;
use types::{AppName, MachineId, NetworkId};

#[doc(hidden)]
pub use fuzz::fuzz_query;

use forward::Forwarder;
use handler::Handler;

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
}

/// A machine that names lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: MachineId,
    pub app: AppName,
    pub region: String,
    pub address: Ipv6Addr,
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
    #[error("cannot listen on [{RESOLVER}]:{PORT}")]
    Listen { source: io::Error },
    #[error("the resolver ended by itself")]
    Serve { source: ServeError },
}

/// A resolver that listens: queries wait in its sockets until it runs.
pub struct Dns {
    server: hickory_server::Server<Handler>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Listens in the host's network. To be called inside a tokio runtime.
///
/// # Errors
/// If the namespace cannot be entered, or another resolver listens there.
pub async fn bind(config: Config, names: Arc<dyn Names>) -> Result<Dns, Error> {
    let Config { net, resolv_conf } = config;
    let sockets = tokio::task::spawn_blocking(move || net.enter(listen)).await;
    let sockets = sockets.map_err(|stopped| Error::Listen {
        source: stopped.into(),
    })?;
    let (udp, tcp) = sockets
        .map_err(|source| Error::Enter { source })?
        .and_then(|(udp, tcp)| {
            let udp = tokio::net::UdpSocket::from_std(udp)?;
            Ok((udp, tokio::net::TcpListener::from_std(tcp)?))
        })
        .map_err(|source| Error::Listen { source })?;
    let mut server = hickory_server::Server::new(Handler::new(names, Forwarder::new(resolv_conf)));
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE_TIMEOUT, TCP_RESPONSES_MAX);
    Ok(Dns { server })
}

/// Runs inside the host's namespace.
fn listen() -> io::Result<(UdpSocket, TcpListener)> {
    // Bound to the address, not to all: an answer must come from where the question went.
    let udp = UdpSocket::bind((RESOLVER, PORT))?;
    let tcp = TcpListener::bind((RESOLVER, PORT))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

impl Dns {
    /// Answers until `stop`; then what is being answered is finished.
    ///
    /// # Errors
    /// If a socket fails for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = self.server.block_until_done() => Some(ended),
        };
        match ended {
            Some(ended) => ended,
            None => self.server.shutdown_gracefully().await,
        }
        .map_err(|source| Error::Serve { source })
    }
}
