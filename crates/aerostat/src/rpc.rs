//! Requests from host to host, over the host plane of the mesh.
//!
//! ```text
//!  Rpc::call(host, "/directory/v1/app", …) ──TCP from fdaa:0:0:<us>:0:1:1──► router of the role
//!        ▲                                                                     │ Caller(HostId)
//!        └──────────────────────── JSON, 200 ◄─────────────────────────────────┘
//! ```
//!
//! The mesh has encrypted the packets and made sure that each comes from the host in its source
//! address, and the guards let nobody but hosts reach these ports; so the address a connection
//! comes from *is* the caller, and nothing else is asked. What a role answers, refusals included,
//! is its own type; only what hinders the asking is [`Unreachable`].

#[cfg(test)]
pub(crate) mod loopback;

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use types::sixpn::{HOST_PLANE, host_addr};
use types::{HostId, SixPn};

/// The Machines API as other hosts reach it.
pub const API_PORT: u16 = net::API_PORT;
/// What the roles of hosts ask of each other.
pub const RPC_PORT: u16 = net::RPC_PORT;

/// Time for a connection: some round trips of the longest way on earth.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A host that goes away in the middle of a request says nothing more. A connection on which
/// nothing has come back for this long, not even to the kernel's own probes, is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const PROBE_AFTER_S: u32 = 5;
const PROBE_INTERVAL_S: u32 = 2;
/// What [`Rpc::call`] speaks, and streams of rows.
pub(crate) const JSON: &str = "application/json";
/// An answer that is not a stream.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A host that could not be asked. What was asked may have happened all the same.
#[derive(Debug, thiserror::Error)]
#[error("host {host} cannot be reached")]
pub struct Unreachable {
    pub host: HostId,
    pub source: std::io::Error,
}

/// Asks other hosts. Clones share the way there.
#[derive(Debug, Clone)]
pub struct Rpc {
    host: HostId,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// Over the mesh, from the host's namespace.
    Mesh(net::Sockets),
    #[cfg(test)]
    Loopback(loopback::Loopback),
}

impl Rpc {
    /// `host` is this one, `sockets` are of its namespace.
    pub fn new(host: HostId, sockets: net::Sockets) -> Self {
        let way = Way::Mesh(sockets);
        Self { host, way }
    }

    /// This host.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The address of a host on the host plane.
    pub fn address(host: HostId) -> Ipv6Addr {
        host_addr(HOST_PLANE, host)
    }

    /// Listens on this host's address in the host plane.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn listen(&self, port: u16) -> std::io::Result<TcpListener> {
        let at = SocketAddrV6::new(Self::address(self.host), port, 0, 0);
        match &self.way {
            Way::Mesh(sockets) => sockets.listen(at).await,
            #[cfg(test)]
            Way::Loopback(hosts) => hosts.listen(self.host, port).await,
        }
    }

    /// A connection to a port of `host`.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn connect(&self, host: HostId, port: u16) -> Result<TcpStream, Unreachable> {
        let to = SocketAddrV6::new(Self::address(host), port, 0, 0);
        let source = Some(Self::address(self.host));
        let connected = match &self.way {
            Way::Mesh(sockets) => sockets.connect(source, to, CONNECT_TIMEOUT).await,
            #[cfg(test)]
            Way::Loopback(hosts) => hosts.connect(self.host, host, port).await,
        };
        connected
            .and_then(|stream| tune(&stream).map(|()| stream))
            .map_err(|source| Unreachable { host, source })
    }

    /// Sends an HTTP request to `port` of `host`; the answer's body is still to be read. Carries
    /// upgrades. The deadline is for the answer's head.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn request<B>(
        &self,
        host: HostId,
        port: u16,
        request: hyper::Request<B>,
        deadline: Duration,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Unreachable>
    where
        B: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
        B::Data: Send,
    {
        let unreachable = |error| Unreachable {
            host,
            source: std::io::Error::other(error),
        };
        let asked = async {
            let stream = TokioIo::new(self.connect(host, port).await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(unreachable)?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "a connection to another host ended early");
                }
            });
            sender.send_request(request).await.map_err(unreachable)
        };
        tokio::time::timeout(deadline, asked)
            .await
            .unwrap_or_else(|_| {
                let source = std::io::ErrorKind::TimedOut.into();
                Err(Unreachable { host, source })
            })
    }

    /// Sends `body`, which is of type `media`, to a role of `host`. What it answers is 200, and
    /// still to be read; the deadline is for the answer's head.
    ///
    /// # Errors
    /// [`Unreachable`], also if the answer is another.
    pub async fn post(
        &self,
        host: HostId,
        path: &str,
        media: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Unreachable> {
        let unreachable = |source| Unreachable { host, source };
        let request = hyper::Request::post(path)
            .header(header::HOST, "aerostat")
            .header(header::CONTENT_TYPE, media)
            .body(Full::new(body))
            .map_err(|e| unreachable(std::io::Error::other(e)))?;
        let response = self.request(host, RPC_PORT, request, deadline).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                let text = format!("{path} is answered with {status}");
                Err(unreachable(std::io::Error::other(text)))
            }
        }
    }

    /// [`Self::post`], and the whole answer, which is to be there by the deadline and has at most
    /// `answer_bytes_max`.
    ///
    /// # Errors
    /// [`Unreachable`], also if the answer is too long.
    pub async fn ask(
        &self,
        host: HostId,
        path: &str,
        media: &'static str,
        body: Bytes,
        (answer_bytes_max, deadline): (usize, Duration),
    ) -> Result<Bytes, Unreachable> {
        let unreachable = |source| Unreachable { host, source };
        let asked = async {
            let response = self.post(host, path, media, body, deadline).await?;
            let body = Limited::new(response.into_body(), answer_bytes_max);
            let body = body.collect().await;
            let body = body.map_err(|e| unreachable(std::io::Error::other(e)))?;
            Ok(body.to_bytes())
        };
        tokio::time::timeout(deadline, asked)
            .await
            .unwrap_or_else(|_| Err(unreachable(std::io::ErrorKind::TimedOut.into())))
    }

    /// [`Self::ask`] in JSON. `A` is what the role over there answers, usually a `Result` of two
    /// types that JSON can carry.
    ///
    /// # Errors
    /// [`Unreachable`], also if the answer cannot be read.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        host: HostId,
        path: &str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, Unreachable> {
        let unreachable = |source| Unreachable { host, source };
        let body = serde_json::to_vec(question).map_err(|e| unreachable(e.into()))?;
        let limits = (ANSWER_BYTES_MAX, deadline);
        let answer = self.ask(host, path, JSON, body.into(), limits).await?;
        serde_json::from_slice(&answer).map_err(|e| unreachable(e.into()))
    }
}

/// For a connection between hosts: small messages go at once, and silence is noticed.
///
/// # Errors
/// As `setsockopt(2)`.
pub(crate) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let silence_ms = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_AFTER_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_INTERVAL_S)?;
    // Also ends the probing (tcp(7)).
    setsockopt(stream, sockopt::TcpUserTimeout, &silence_ms)?;
    Ok(())
}

/// The host that asks: an extractor for handlers behind [`serve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub HostId);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        // `serve` has put it there, or nobody has passed it.
        parts.extensions.get().copied().ok_or(StatusCode::FORBIDDEN)
    }
}

/// The answer of a handler: JSON and 200, whatever it says.
#[derive(Debug)]
pub struct Answer<A>(pub A);

impl<A: Serialize> IntoResponse for Answer<A> {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static(JSON);
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, json)], body).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// Answers hosts until `stop`. Whoever is no host is refused.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(from_fn(name_caller));
    // A host that is cut off in the middle must not leave its connections here for ever.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = tune(stream) {
            tracing::debug!(%error, "cannot tune a connection of another host");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "answering other hosts has ended");
    }
}

async fn name_caller(
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let Some(caller) = caller(from) else {
        return Ok(StatusCode::FORBIDDEN.into_response());
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The host whose address in the host plane this is.
pub(crate) fn caller(from: SocketAddr) -> Option<Caller> {
    #[cfg(test)]
    if let Some(host) = loopback::caller(from) {
        return Some(Caller(host));
    }
    let SocketAddr::V6(from) = from else {
        return None;
    };
    let address = SixPn::from_addr(*from.ip())?;
    (Rpc::address(address.host) == *from.ip()).then_some(Caller(address.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_in_the_host_plane_is_a_caller() {
        let from = |text: &str| caller(SocketAddr::new(text.parse().unwrap(), 40000));
        let three = Some(Caller(HostId::new(3)));
        assert_eq!(from("fdaa:0:0:a7b:3:0:1:1"), three);
        // A host in somebody's network, a machine, another address of the host plane.
        assert_eq!(from("fdaa:0:7:a7b:3:0:1:1"), None);
        assert_eq!(from("fdaa:0:0:a7b:3:5:1:2"), None);
        assert_eq!(from("fdaa:0:0:a7b:3:0:1:2"), None);
        assert_eq!(from("127.0.0.1"), None);
    }
}
