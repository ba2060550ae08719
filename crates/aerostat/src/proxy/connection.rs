//! One connection to a VIP: a backend is chosen and dialled, and bytes go both ways.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use net::Sockets;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::balance::pick;
use super::pipes::Pipes;
use super::relay::{Moved, relay};
use super::upstream::{Upstreams, Using};

/// Time for one backend while there are others: the first SYN and its answer, on the longest way.
/// The last one left gets all the time there is, since a SYN may be lost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time until some backend has to be there.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the kernel asks whether the other end is still there, in seconds.
const KEEPALIVE_IDLE_S: u32 = 60;
const KEEPALIVE_INTERVAL_S: u32 = 15;
const KEEPALIVE_PROBES: u32 = 4;

/// Time that sent bytes may stay without an answer, in milliseconds: a host that was cut off for
/// less keeps its connections.
const UNANSWERED_MS: u32 = 120_000;

/// What a port of a VIP is about, for its connections.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) at: SocketAddrV6,
    /// `<app>/<service>`.
    pub(super) service: String,
    /// This host in the service's network: where backends are dialled from.
    pub(super) source: Ipv6Addr,
    pub(super) upstreams: watch::Receiver<Upstreams>,
    pub(super) sockets: Sockets,
    pub(super) pipes: Arc<Pipes>,
    /// The last connection found no backend. Said when it changes, not each time: clients of a
    /// service that is down come again and again.
    pub(super) is_failing: AtomicBool,
    /// Chooses among backends that are as good.
    pub(super) turn: AtomicUsize,
}

/// What is told of a connection when it is over, however it ends.
struct Access<'a> {
    port: &'a Port,
    client: SocketAddr,
    backend: Option<SocketAddrV6>,
    moved: Moved,
    began: Instant,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// Both directions came to their end.
    Done,
    /// No backend could be reached.
    NoBackend,
    /// One of the two connections failed.
    Broken,
    /// The VIP went, or this process does.
    Stopped,
    /// The client's connection could not be set up.
    Refused,
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        let backend = self.backend.map(tracing::field::display);
        info!(
            service = self.port.service,
            client = %self.client,
            vip = %self.port.at,
            backend,
            from_client_bytes = self.moved.from_client.load(Ordering::Relaxed),
            to_client_bytes = self.moved.to_client.load(Ordering::Relaxed),
            took_ms = self.began.elapsed().as_millis(),
            end = ?self.end,
            "connection to a service"
        );
    }
}

/// Serves `client` until both sides have ended or `stop`; what is not ended properly is reset.
/// `_permit` counts it among the open ones.
pub(super) async fn serve(
    port: Arc<Port>,
    client: TcpStream,
    from: SocketAddr,
    stop: CancellationToken,
    _permit: [OwnedSemaphorePermit; 2],
) {
    let mut access = Access {
        port: &port,
        client: from,
        backend: None,
        moved: Moved::default(),
        began: Instant::now(),
        end: End::Stopped,
    };
    let work = connect_and_relay(&client, &mut access);
    let backend = stop.run_until_cancelled(work).await;
    match backend {
        Some(Ok(())) => access.end = End::Done,
        Some(Err(end)) => {
            access.end = end;
            reset(&client);
        }
        None => reset(&client),
    }
}

async fn connect_and_relay(client: &TcpStream, access: &mut Access<'_>) -> Result<(), End> {
    let port = access.port;
    tune(client).map_err(|_| End::Refused)?;
    let Some((backend, _using)) = dial(port, access).await else {
        if !port.is_failing.swap(true, Ordering::Relaxed) {
            warn!(service = port.service, vip = %port.at, "no backend of a service can be reached");
        }
        return Err(End::NoBackend);
    };
    if port.is_failing.swap(false, Ordering::Relaxed) {
        info!(service = port.service, vip = %port.at, "a backend of a service is reached again");
    }
    // However this is left but by the end of both directions, the backend is told, too.
    let mut backend = ResetUnlessDone {
        stream: backend,
        is_done: false,
    };
    tune(&backend.stream).map_err(|_| End::Broken)?;
    let relayed = relay(client, &backend.stream, &port.pipes, &access.moved).await;
    backend.is_done = relayed.is_ok();
    relayed.map_err(|_| End::Broken)
}

/// The first backend that answers; the ones that are less busy and more likely to answer first.
async fn dial(port: &Port, access: &mut Access<'_>) -> Option<(TcpStream, Using)> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let upstreams = port.upstreams.borrow().clone();
    let mut tried = vec![false; upstreams.len()];
    for attempt in 1..=upstreams.len() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            break;
        }
        let loads: Vec<_> = upstreams
            .iter()
            .zip(&tried)
            .map(|(upstream, tried)| upstream.load(now, *tried))
            .collect();
        let index = pick(&loads, port.turn.fetch_add(1, Ordering::Relaxed))?;
        tried[index] = true;
        let upstream = &upstreams[index];
        let using = upstream.use_it();
        access.backend = Some(upstream.address);
        let timeout = if attempt == upstreams.len() {
            left
        } else {
            CONNECT_TIMEOUT.min(left)
        };
        let connected = port
            .sockets
            .connect(Some(port.source), upstream.address, timeout);
        match connected.await {
            Ok(stream) => {
                upstream.answered();
                return Some((stream, using));
            }
            Err(error) => {
                tracing::debug!(backend = %upstream.address, %error, "a backend is not reached");
                if is_backends_fault(&error) {
                    upstream.failed(Instant::now());
                }
            }
        }
    }
    None
}

/// Not if this host has run out of something.
fn is_backends_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
    )
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNANSWERED_MS)?;
    Ok(())
}

/// Closing `stream` is a RST from now on: its peer must not take what it got for all there was.
pub(super) fn reset(stream: &TcpStream) {
    // Refused only if it is not connected any more.
    let _ = stream.set_zero_linger();
}

struct ResetUnlessDone {
    stream: TcpStream,
    is_done: bool,
}

impl Drop for ResetUnlessDone {
    fn drop(&mut self) {
        if !self.is_done {
            reset(&self.stream);
        }
    }
}
