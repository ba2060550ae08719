//! The server under load and connections to it.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::Process;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Windows that a list of many megabytes does not wait for.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

pub(crate) struct Target {
    address: String,
    tls: TlsConnector,
    pub(crate) process: Process,
    /// Names are new in every run.
    run: u64,
    next: AtomicU64,
}

/// One client, with a connection of its own.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

impl Target {
    pub(crate) fn open(kubeconfig: &str, process: Process) -> Result<Arc<Self>, Failure> {
        let text = std::fs::read_to_string(kubeconfig)?;
        let pem = |name: &str| -> Result<Vec<u8>, Failure> {
            let value = value(&text, name).ok_or_else(|| format!("{kubeconfig} has no {name}"))?;
            Ok(BASE64_STANDARD.decode(value)?)
        };
        let server = value(&text, "server").ok_or("the kubeconfig names no server")?;
        let mut roots = rustls::RootCertStore::empty();
        let ca = pem("certificate-authority-data")?;
        roots.add(CertificateDer::from_pem_slice(&ca)?)?;
        let certificate = CertificateDer::from_pem_slice(&pem("client-certificate-data")?)?;
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate],
                PrivateKeyDer::from_pem_slice(&pem("client-key-data")?)?,
            )?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        Ok(Arc::new(Self {
            address: server.trim_start_matches("https://").to_owned(),
            tls: TlsConnector::from(Arc::new(tls)),
            process,
            run: u64::try_from(run)?,
            next: AtomicU64::new(0),
        }))
    }

    /// A name that no object has yet, and its number.
    pub(crate) fn name(&self) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, format!("load-{}-{number}", self.run))
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = self.tls.connect(name, stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        let address = self.address.clone();
        Ok(Connection { sender, address })
    }
}

impl Connection {
    /// Sends a request; the answer's body is still to come.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<hyper::body::Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and returns what came back.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Writes an object; anything but success is an error.
    pub(crate) async fn write(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let (status, body) = self.ask(method, path, body).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
    }
}

pub(crate) fn configmaps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// A ConfigMap with one value of `bytes`.
pub(crate) fn configmap(name: &str, bytes: usize, letter: char) -> Bytes {
    let data = letter.to_string().repeat(bytes);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"{data}"}}}}"#
    )
    .into()
}

/// The first value of that name, as a kubeconfig of one cluster and one user has it.
fn value<'a>(kubeconfig: &'a str, name: &str) -> Option<&'a str> {
    let lines: HashMap<_, _> = kubeconfig
        .lines()
        .rev()
        .filter_map(|line| line.trim().trim_start_matches("- ").split_once(':'))
        .collect();
    lines.get(name).map(|value| value.trim().trim_matches('"'))
}

/// Milliseconds.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
