//! A client with a small pool: connections of an endpoint are used one request at a time, and kept
//! for the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::{
    Address, CallError, Endpoint, Identity, ResolveError, ServiceResolver, Stream, Trust, Way, tls,
};

/// Idle connections kept per endpoint: more at a time are only seen in bursts.
const IDLE_MAX: usize = 8;
/// Endpoints whose connections and TLS settings are kept. Beyond, the pool begins anew.
const ENDPOINTS_MAX: usize = 256;
/// Requests to one endpoint at a time. A slow webhook is not helped by more.
const IN_FLIGHT_MAX: usize = 128;
/// What an answer may weigh: upstream's limit of a request, which webhooks answer with.
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// As long as the slowest way to a server that is there takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Body = Full<Bytes>;

/// Shared by everybody who asks others; clones share the connections.
#[derive(Clone, Default)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoints = self.lock().len();
        f.debug_struct("Client")
            .field("endpoints", &endpoints)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    resolver: Option<Arc<dyn ServiceResolver>>,
    identity: Option<Identity>,
    pools: Mutex<HashMap<Endpoint, Arc<Pool>>>,
}

struct Pool {
    tls: Arc<ClientConfig>,
    idle: Mutex<Vec<SendRequest<Body>>>,
    in_flight: Semaphore,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Bytes,
}

impl Client {
    /// `identity` is shown to servers that ask who calls.
    pub(crate) fn new(
        resolver: Option<Arc<dyn ServiceResolver>>,
        identity: Option<Identity>,
    ) -> Self {
        let shared = Shared {
            resolver,
            identity,
            pools: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// POSTs JSON and reads the answer, all within `timeout`.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", "kube-apiserver-admission");
        self.ask(endpoint, request, body, timeout).await
    }

    /// Sends a request without body and reads the answer, all within `timeout`.
    pub(crate) async fn get(
        &self,
        endpoint: &Endpoint,
        request: hyper::http::request::Builder,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.ask(endpoint, request, Bytes::new(), timeout).await
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        request: hyper::http::request::Builder,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let request = request.body(());
        let request = request.map_err(|error| CallError::Http(error.to_string()))?;
        let (parts, ()) = request.into_parts();
        let all = async {
            let (response, connection) = self.call(endpoint, &parts, body).await?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    let limit_bytes = ANSWER_BYTES_MAX;
                    CallError::TooLarge { limit_bytes }
                } else {
                    CallError::Http(error.to_string())
                }
            })?;
            connection.give_back();
            let body = body.to_bytes();
            Ok(Answer { code, body })
        };
        let answered = tokio::time::timeout(timeout, all).await;
        answered.unwrap_or(Err(CallError::Deadline))
    }

    /// Sends a request over a connection of its own and returns the answer as it comes, for what
    /// may last long or be upgraded.
    pub(crate) async fn forward(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, CallError> {
        let tls = self.pool(endpoint)?.tls.clone();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.tls_stream(endpoint, tls)).await;
        let stream = connected.map_err(|_| CallError::Deadline)??;
        send(stream, request).await
    }

    /// Sends a request as it is to a pod or a Service, over a connection of its own. With `tls`
    /// anybody may answer.
    pub(crate) async fn pass(
        &self,
        way: &Way<'_>,
        tls: bool,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, CallError> {
        let resolver = self.shared.resolver.as_ref();
        let resolver = resolver.ok_or(CallError::Resolve(ResolveError::NoWay))?;
        let (connected, name) = match *way {
            Way::Pod(address) => (resolver.dial(address), address.ip().to_string()),
            Way::Service {
                namespace,
                name,
                port,
            } => (
                resolver.connect(namespace, name, port),
                format!("{name}.{namespace}.svc"),
            ),
        };
        let stream = connected.await.map_err(CallError::Resolve)?;
        if !tls {
            return send(stream, request).await;
        }
        let config = tls::config(&Trust::Anyone, None)?;
        let name =
            ServerName::try_from(name).map_err(|error| CallError::Tls(format!("tls: {error}")))?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let shaken = tokio::time::timeout(CONNECT_TIMEOUT, shaken).await;
        let stream = shaken.map_err(|_| CallError::Deadline)?;
        let stream = stream.map_err(|error| CallError::Tls(tls::text(&error)))?;
        send(stream, request).await
    }

    /// Sends a request; the answer's body is the caller's to read. A kept connection that was
    /// closed in the meantime is not the fault of the request, which goes over the next one then.
    async fn call(
        &self,
        endpoint: &Endpoint,
        parts: &hyper::http::request::Parts,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Connection), CallError> {
        let pool = self.pool(endpoint)?;
        // Whoever waits here waits within the time of their request.
        let _permit = pool.in_flight.acquire().await;
        let authority = endpoint.address.authority();
        let host = HeaderValue::from_str(&authority);
        let host = host.map_err(|error| CallError::Http(error.to_string()))?;
        let request = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            request.headers_mut().insert(HOST, host.clone());
            request
        };
        while let Some(mut sender) = pool.take() {
            match sender.try_send_request(request()).await {
                Ok(response) => {
                    let pool = pool.clone();
                    return Ok((response, Connection { sender, pool }));
                }
                // It was closed before the request went out.
                Err(error) if error.message().is_some() => {}
                Err(error) => return Err(CallError::Http(error.error().to_string())),
            }
        }
        let mut sender = self.connect(endpoint, &pool.tls).await?;
        let response = sender.send_request(request()).await;
        let response = response.map_err(|error| CallError::Http(text(&error)))?;
        let pool = pool.clone();
        Ok((response, Connection { sender, pool }))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
    ) -> Result<SendRequest<Body>, CallError> {
        let stream = self.tls_stream(endpoint, tls.clone()).await?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| CallError::Http(text(&error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(sender)
    }

    async fn tls_stream(
        &self,
        endpoint: &Endpoint,
        tls: Arc<ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<Box<dyn Stream>>, CallError> {
        let stream = self
            .stream(&endpoint.address)
            .await
            .map_err(CallError::Resolve)?;
        let name = endpoint.address.server_name();
        let name =
            ServerName::try_from(name).map_err(|error| CallError::Tls(format!("tls: {error}")))?;
        let connected = TlsConnector::from(tls).connect(name, stream).await;
        connected.map_err(|error| CallError::Tls(tls::text(&error)))
    }

    async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, ResolveError> {
        match address {
            Address::Service {
                namespace,
                name,
                port,
            } => match &self.shared.resolver {
                Some(resolver) => resolver.connect(namespace, name, *port).await,
                None => Err(ResolveError::NoWay),
            },
            Address::Host { host, port } => {
                let host = host.trim_matches(['[', ']']);
                super::services::dial_host(host, *port).await
            }
        }
    }

    fn pool(&self, endpoint: &Endpoint) -> Result<Arc<Pool>, CallError> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(endpoint) {
            return Ok(pool.clone());
        }
        let tls = tls::config(&endpoint.trust, self.shared.identity.as_ref())?;
        let pool = Arc::new(Pool {
            tls: Arc::new(tls),
            idle: Mutex::default(),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        });
        if pools.len() >= ENDPOINTS_MAX {
            pools.clear();
        }
        pools.insert(endpoint.clone(), pool.clone());
        Ok(pool)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Arc<Pool>>> {
        let pools = self.shared.pools.lock();
        pools.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a request over a new connection, which may be upgraded.
async fn send<B>(stream: impl Stream, request: Request<B>) -> Result<Response<Incoming>, CallError>
where
    B: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    B::Data: Send,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| CallError::Http(text(&error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection that a request was handed on by ended");
        }
    });
    let response = sender.send_request(request).await;
    response.map_err(|error| CallError::Http(text(&error)))
}

/// hyper keeps what went wrong below to itself.
fn text(error: &hyper::Error) -> String {
    use std::error::Error;
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

impl Pool {
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        loop {
            let sender = idle.pop()?;
            if sender.is_ready() {
                return Some(sender);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Body>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose answer is being read.
struct Connection {
    sender: SendRequest<Body>,
    pool: Arc<Pool>,
}

impl Connection {
    /// The answer has been read to its end.
    fn give_back(self) {
        let Self { mut sender, pool } = self;
        tokio::spawn(async move {
            // It is ready in a moment, or closed.
            if sender.ready().await.is_ok() {
                let mut idle = pool.idle();
                if idle.len() < IDLE_MAX {
                    idle.push(sender);
                }
            }
        });
    }
}
