//! Requests to the server as the administrator sends them: one connection each, nothing cached.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::common::TestServer;

pub(super) struct Http {
    port: u16,
    tls: TlsConnector,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The events of a watch that has ended.
    pub(super) fn events(&self) -> Value {
        let lines = self.text.lines().map(serde_json::from_str);
        lines
            .collect::<Result<Vec<Value>, _>>()
            .map_or(Value::Null, Value::Array)
    }
}

impl Http {
    pub(super) fn new(server: &TestServer) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let admin = server.pki.admin().expect("credentials");
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes()).expect("PEM");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(server.pki.ca_pem())).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate(&admin.certificate_pem)], key)
            .expect("a certificate");
        Self {
            port: server.port,
            tls: TlsConnector::from(Arc::new(config)),
        }
    }

    pub(super) async fn send(&self, request: &Sent) -> Answer {
        let response = self.call(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// The events of a watch up to the first of `last` type (20 seconds at most).
    pub(super) async fn watch(&self, path: &str, last: &str) -> Vec<Value> {
        let mut body = self.call(&Sent::get(path)).await.into_body();
        let mut text = Vec::new();
        let mut events: Vec<Value> = Vec::new();
        let read = async {
            while let Some(Ok(frame)) = body.frame().await {
                text.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                let whole = text
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |at| at + 1);
                let lines: Vec<u8> = text.drain(..whole).collect();
                let lines = lines
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty());
                events
                    .extend(lines.map(|line| serde_json::from_slice::<Value>(line).expect("JSON")));
                if events.iter().any(|event| event["type"] == last) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
        events
    }

    async fn call(&self, sent: &Sent) -> Response<hyper::body::Incoming> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = self
            .tls
            .connect(name, stream.expect("connects"))
            .await
            .expect("TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(sent.method.as_str())
            .uri(&sent.path)
            .header("host", "localhost")
            .header("user-agent", "conformance/1")
            .header("accept", &sent.accept);
        if !sent.body.is_empty() {
            request = request.header("content-type", &sent.media);
        }
        let body = Full::new(Bytes::from(sent.body.clone()));
        let request = request.body(body).expect("a request");
        sender.send_request(request).await.expect("an answer")
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) accept: String,
    pub(super) media: String,
    pub(super) body: String,
}

impl Sent {
    pub(super) fn new(method: &str, path: &str, body: &str) -> Self {
        let media = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            accept: "application/json".to_owned(),
            media: media.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(super) fn get(path: &str) -> Self {
        Self::new("GET", path, "")
    }
}
