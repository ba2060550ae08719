//! Outgoing HTTPS: what the API server asks of others, which are webhooks and aggregated APIs.
//!
//! ```text
//!   Endpoint { address: URL or service, trust } ── pool ── TLS ── ServiceResolver | TCP
//! ```
//!
//! Connections are kept and used again. How pods are reached is not known here: a [`Dialer`] does
//! it, which whoever assembles the server brings.

mod client;
mod config;
mod services;
mod tls;

use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::client::Client;
pub(crate) use self::config::{api_service, client_config};
pub use self::services::ClusterServices;
pub(crate) use self::tls::{Identity, Trust};

/// A byte stream to some server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens connections to addresses in the network of the pods.
pub trait Dialer: std::fmt::Debug + Send + Sync {
    /// A connection to `to`. An address that is not in that network is refused
    /// (`PermissionDenied`): whoever writes an object chooses its addresses, and this server may
    /// reach more than they do.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn Stream>>>;
}

/// Opens connections to services of the cluster.
pub trait ServiceResolver: std::fmt::Debug + Send + Sync {
    /// A connection to an address of a pod.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, Result<Box<dyn Stream>, ResolveError>> {
        let _ = to;
        Box::pin(std::future::ready(Err(ResolveError::NoWay)))
    }

    /// A connection to one of the endpoints behind a port of a service.
    fn connect<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, ResolveError>>;
}

/// Why a service cannot be reached. Clients see the texts, which are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("service {name:?} not found")]
    NoService { name: String },
    #[error("no service port {port} found for service {name:?}")]
    NoPort { name: String, port: u16 },
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints { name: String },
    #[error("dial tcp {address}: {}", dial_text(source))]
    Dial {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("this API server has no way to the services of the cluster")]
    NoWay,
}

/// As Go words the failures that people meet.
fn dial_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::PermissionDenied => "not an address of the cluster's network".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// Where something is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
    Host {
        host: String,
        port: u16,
    },
}

impl Address {
    /// The name that its certificate has to be for.
    pub(crate) fn server_name(&self) -> String {
        match self {
            Address::Service {
                namespace, name, ..
            } => format!("{name}.{namespace}.svc"),
            Address::Host { host, .. } => host.trim_matches(['[', ']']).to_owned(),
        }
    }

    /// As it stands in a URL. Upstream leaves the port of a URL out if it was left out.
    pub(crate) fn authority(&self) -> String {
        match self {
            Address::Service { port, .. } => format!("{}:{port}", self.server_name()),
            Address::Host { host, port: 443 } => host.clone(),
            Address::Host { host, port } => format!("{host}:{port}"),
        }
    }
}

/// Where a request is handed on to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    Pod(SocketAddr),
    /// Some endpoint behind a port of a Service.
    Service {
        namespace: &'a str,
        name: &'a str,
        port: u16,
    },
}

/// An address, and who is trusted to be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) trust: Trust,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Resolve(ResolveError),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Http(String),
    #[error("context deadline exceeded")]
    Deadline,
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
}
