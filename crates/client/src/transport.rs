//! How requests travel: HTTP/1.1 over a Unix socket or TCP, one connection each.
//!
//! Connections are not kept: on this host one costs less than a tenth of a millisecond, and a
//! connection that is never reused is never found dead by the second request.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
use types::api::ErrorBody;

use crate::Error;

/// More than any list of machines that one host can hold.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What this side allows for everything but `wait` and `exec`, which bring their own time.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request.
type Pieces = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client of one Machines API. Cloning is cheap.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    token: Option<String>,
}

enum Address {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

/// Shows where to, never the token.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address())
    }
}

/// Text that does not say where a Machines API is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a Machines API; try `http://127.0.0.1:4280`")]
pub struct InvalidUrl(pub String);

impl Client {
    /// Over the Unix socket at `path`; whoever may open it needs no token.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(Address::Unix(path.as_ref().to_owned()), None)
    }

    /// Over TCP to `base_url`, such as `http://127.0.0.1:4280`. A path in it is dropped, as Fly's
    /// clients do.
    ///
    /// # Errors
    /// If `base_url` is not `http://host[:port]`. (TLS comes with hosts other than this one.)
    pub fn tcp(base_url: &str, token: impl Into<String>) -> Result<Self, InvalidUrl> {
        let problem = || InvalidUrl(base_url.to_owned());
        let uri: Uri = base_url.parse().map_err(|_| problem())?;
        let authority = match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) if !authority.as_str().contains('@') => authority,
            _ => return Err(problem()),
        };
        let port = authority.port_u16().unwrap_or(80);
        let address = Address::Tcp(format!("{}:{port}", authority.host()));
        Ok(Self::new(address, Some(token.into())))
    }

    fn new(address: Address, token: Option<String>) -> Self {
        let inner = Arc::new(Inner { address, token });
        Self { inner }
    }

    /// Where requests go to, for messages.
    pub fn address(&self) -> String {
        match &self.inner.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(authority) => format!("http://{authority}"),
        }
    }

    async fn connect(&self) -> Result<Either<UnixStream, TcpStream>, Error> {
        let connect = async {
            match &self.inner.address {
                Address::Unix(path) => UnixStream::connect(path).await.map(Either::Left),
                Address::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await?;
                    // Keys typed into an exec must not wait for the answer to the ones before.
                    stream.set_nodelay(true)?;
                    Ok(Either::Right(stream))
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|source| Error::Unreachable {
                address: self.address(),
                source,
            })
    }

    /// Sends `call` and returns the head of the answer, whatever its status.
    pub(crate) async fn open(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let body = Full::new(call.body.clone().unwrap_or_default());
        let body = body.map_err(|never| match never {}).boxed_unsync();
        self.exchange(call, body).await
    }

    /// Sends `call` with a body that comes piece by piece. When it breaks, so does the request.
    pub(crate) async fn send_stream(
        &self,
        call: &Call,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response<Incoming>, Error> {
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed_unsync();
        let response = self.exchange(call, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(call, response).await)
    }

    async fn exchange(&self, call: &Call, body: Pieces) -> Result<Response<Incoming>, Error> {
        let broken = |source| Error::Broken {
            address: self.address(),
            source,
        };
        let exchange = async {
            let stream = TokioIo::new(self.connect().await?);
            let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            // Ends with the connection: when the answer was read or dropped. Its error also
            // reaches whoever reads the answer.
            tokio::spawn(connection.with_upgrades());
            let request = self.request(call, body)?;
            sender.send_request(request).await.map_err(broken)
        };
        tokio::time::timeout(call.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(call.timeout)))
    }

    fn request(&self, call: &Call, body: Pieces) -> Result<Request<Pieces>, Error> {
        let host = match &self.inner.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(authority) => authority,
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path_and_query())
            .header(header::HOST, host)
            .header(header::USER_AGENT, "aerostat");
        if let Some(token) = &self.inner.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(body)
            .map_err(|source| self.unreadable(call, source))
    }

    /// Sends `call`; an answer that is no success becomes [`Error::Api`].
    pub(crate) async fn send(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        let response = self.open(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(call, response).await)
    }

    /// Reads the error of an answer that is no success.
    pub(crate) async fn refusal(&self, call: &Call, response: Response<Incoming>) -> Error {
        let status = response.status().as_u16();
        let bytes = match self.collect(call, response).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        // A body that is not ours comes from a proxy in between; its text is all there is.
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            error: String::from_utf8_lossy(&bytes).chars().take(400).collect(),
            ..ErrorBody::default()
        });
        let body = Box::new(body);
        Error::Api { status, body }
    }

    /// Sends `call` and reads the answer as a `T`.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let response = self.send(call).await?;
        self.read(call, response).await
    }

    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        call: &Call,
        response: Response<Incoming>,
    ) -> Result<T, Error> {
        let bytes = self.collect(call, response).await?;
        serde_json::from_slice(&bytes).map_err(|source| self.unreadable(call, source))
    }

    pub(crate) async fn collect(
        &self,
        call: &Call,
        response: Response<Incoming>,
    ) -> Result<Bytes, Error> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        match tokio::time::timeout(call.timeout, body).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(source)) => Err(self.unreadable(call, source)),
            Err(_) => Err(self.timed_out(call.timeout)),
        }
    }

    pub(crate) fn unreadable(
        &self,
        call: &Call,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Answer {
            request: format!("{} {}", call.method, call.path),
            address: self.address(),
            source: source.into(),
        }
    }

    pub(crate) fn timed_out(&self, timeout: Duration) -> Error {
        Error::Timeout {
            address: self.address(),
            timeout,
        }
    }
}

/// One request, before it is sent.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    timeout: Duration,
}

impl Call {
    /// `path` consists of constants and ids, which need no escaping.
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            timeout: REQUEST_TIMEOUT,
        }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: String) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn query_if(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body<T: Serialize>(mut self, body: &T) -> Self {
        // Bodies are our own types: maps with string keys and no failing serialisers.
        self.body = Some(
            serde_json::to_vec(body)
                .expect("a request body is JSON")
                .into(),
        );
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn path_and_query(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let path = format!("{}?", self.path);
        let query_start = path.len();
        form_urlencoded::Serializer::for_suffix(path, query_start)
            .extend_pairs(&self.query)
            .finish()
    }
}

/// Text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let mut segment = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => segment.push(byte.into()),
            false => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_with_a_host() {
        let client = Client::tcp("http://127.0.0.1:4280/path/", "secret").unwrap();
        assert_eq!(client.address(), "http://127.0.0.1:4280");
        assert_eq!(format!("{client:?}"), "Client(http://127.0.0.1:4280)");
        let v6 = Client::tcp("http://[::1]:4280", "secret").unwrap();
        assert_eq!(v6.address(), "http://[::1]:4280");
        for text in [
            "127.0.0.1:4280",
            "https://a",
            "http://u:p@a",
            "",
            "unix:///x",
        ] {
            assert!(Client::tcp(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_is_escaped() {
        let call = Call::get("/v1/x".into()).query("command", "a b&c");
        assert_eq!(call.path_and_query(), "/v1/x?command=a+b%26c");
    }

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("web.default"), "web.default");
        assert_eq!(segment("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }

    #[tokio::test]
    async fn a_missing_socket_says_what_to_try() {
        let client = Client::unix("/nonexistent/api.sock");
        let error = client
            .open(&Call::get("/v1/apps".into()))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/api.sock"), "{text}");
        assert!(text.contains("try `aerostat up`"), "{text}");
    }
}
