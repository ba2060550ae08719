//! The HTTP server: TLS connections, each request routed, authorized and answered.
//!
//! ```text
//! accept ── TLS, client certificate ── route ── authorize ─┬─ discovery, health, OpenAPI
//!                                                          ├─ verbs over Api (JSON or Table)
//!                                                          ├─ watch (a stream of lines)
//!                                                          └─ logs, exec, attach (PodStreams)
//! ```

mod admit;
pub(crate) mod aggregate;
mod audit;
mod auth;
mod body;
mod codec;
mod discovery;
mod exec;
mod fairness;
pub(crate) mod fuzz;
mod logs;
mod metrics;
mod openapi;
mod openapi_v2;
mod options;
mod pods;
mod proxy;
mod query;
mod relay;
mod respond;
mod reviews;
mod router;
mod scale;
mod usage;
mod verbs;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch as signal};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::identity::Identity;
use crate::streams::PodStreams;
use crate::usage::PodUsage;
use fairness::Fairness;

pub use audit::{Audit, AuditConfig, AuditError};
pub use openapi::VERSION;

/// Far beyond what clients of one host open; each costs a task and its TLS state.
const CONNECTIONS_MAX: usize = 1024;
/// A stranger may not hold a connection without saying anything.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests in flight get this long when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often events past their hour are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Failing to accept is about file descriptors; waiting lets some be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the server is made of.
pub struct ServerConfig {
    pub listener: TcpListener,
    /// From [`pki::Pki::server_config`].
    pub tls: rustls::ServerConfig,
    pub streams: Arc<dyn PodStreams>,
    pub identity: Identity,
    /// None: there is no audit log.
    pub audit: Option<Audit>,
    /// None: `metrics.k8s.io` is not served here.
    pub usage: Option<Arc<dyn PodUsage>>,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// What every request needs.
struct Server {
    api: Api,
    streams: Arc<dyn PodStreams>,
    identity: Identity,
    audit: Option<Audit>,
    usage: Option<Arc<dyn PodUsage>>,
    fairness: Fairness,
    /// Becomes true when the server stops: watches and streams end.
    stopping: signal::Receiver<bool>,
    aggregated: aggregate::Aggregated,
}

/// Where a server answers.
pub struct Entrance {
    pub listener: TcpListener,
    /// From [`pki::Pki::server_config`](crate::pki::Pki::server_config).
    pub tls: rustls::ServerConfig,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Serves until `shutdown` resolves, then drains.
pub async fn serve(config: ServerConfig, api: Api, shutdown: impl Future<Output = ()>) {
    let (_, none) = mpsc::channel(1);
    serve_with(config, api, none, shutdown).await;
}

/// The same, also at `entrances` that come later.
pub async fn serve_with(
    config: ServerConfig,
    api: Api,
    mut entrances: mpsc::Receiver<Entrance>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = signal::channel(false);
    let server = Arc::new(Server {
        fairness: Fairness::new(api.store().clone()),
        api,
        streams: config.streams,
        identity: config.identity,
        audit: config.audit,
        usage: config.usage,
        stopping,
        aggregated: aggregate::Aggregated::default(),
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Ends with this function: nobody comes in any more, and nothing is kept.
    let mut tasks = JoinSet::new();
    tasks.spawn(expire_events(server.clone()));
    let keeper = server.api.clone();
    tasks.spawn(async move { crate::custom::keeper::run(&keeper).await });
    tasks.spawn(aggregate::keep(server.clone()));
    let (listener, tls) = (config.listener, config.tls);
    let first = Entrance { listener, tls };
    tasks.spawn(accept(server.clone(), connections.clone(), first));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            Some(entrance) = entrances.recv() => {
                tasks.spawn(accept(server.clone(), connections.clone(), entrance));
            }
            () = &mut shutdown => break,
        }
    }
    tasks.shutdown().await;
    let _ = stop.send(true);
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.acquire_many(all))
        .await
        .is_err()
    {
        warn!("some connections did not end in time");
    }
}

/// Takes connections in, for as long as it is polled.
async fn accept(server: Arc<Server>, connections: Arc<Semaphore>, entrance: Entrance) {
    let acceptor = TlsAcceptor::from(Arc::new(entrance.tls));
    info!(address = ?entrance.listener.local_addr().ok(), "kubernetes API is served");
    loop {
        let stream = match entrance.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            warn!(
                max = CONNECTIONS_MAX,
                "too many connections; one is refused"
            );
            continue;
        };
        let (server, acceptor) = (server.clone(), acceptor.clone());
        tokio::spawn(async move {
            connection(server, acceptor, stream).await;
            drop(permit);
        });
    }
}

/// Resolves when the server stops.
async fn stopped(stopping: &mut signal::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn expire_events(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    loop {
        ticks.tick().await;
        let now = jiff::Timestamp::now().as_second();
        if let Err(error) = server.api.expire(u64::try_from(now).unwrap_or(0)).await {
            warn!(%error, "old events stay for now");
        }
    }
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
        Err(_) => return debug!("TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let from = Arc::new(admit::Connection {
        peer: server.identity.peer(certificates),
        address: stream.get_ref().0.peer_addr().ok(),
    });
    let mut stopping = server.stopping.clone();
    let service = hyper::service::service_fn(move |request| {
        let (server, from) = (server.clone(), from.clone());
        async move { Ok::<_, Infallible>(admit::answer(server, from, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "connection ended");
    }
}
