//! A webhook server that a test tells what to answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::egress::{ResolveError, ServiceResolver, Stream};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Answer = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// The name that the certificate is for, beside `localhost`.
pub(crate) const SERVICE: &str = "hook.default.svc";

pub(crate) struct Hook {
    pub(crate) port: u16,
    ca_pem: String,
    asked: Arc<Mutex<Vec<Value>>>,
    connections: Arc<AtomicUsize>,
}

impl Hook {
    /// `answer` makes the `response` of a review of its `request`; the uid is filled in. What has
    /// a field `raw` is answered as it is, `delay_ms` after that time.
    pub(crate) async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let names = vec!["localhost".to_owned(), SERVICE.to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
            .expect("TLS");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let hook = Self {
            port,
            ca_pem: made.cert.pem(),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (asked, connections) = (hook.asked.clone(), hook.connections.clone());
        let answer: Answer = Arc::new(answer);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked, answer) = (acceptor.clone(), asked.clone(), answer.clone());
                let connections = connections.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connections.fetch_add(1, Ordering::Relaxed);
                        serve(TokioIo::new(stream), asked, answer).await;
                    }
                });
            }
        });
        hook
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A `clientConfig` by URL.
    pub(crate) fn by_url(&self) -> Value {
        json!({"url": format!("https://localhost:{}/hook", self.port), "caBundle": self.bundle()})
    }

    /// A `clientConfig` by service.
    pub(crate) fn by_service(&self) -> Value {
        json!({"service": {"namespace": "default", "name": "hook", "path": "/hook"},
            "caBundle": self.bundle()})
    }

    fn bundle(&self) -> String {
        BASE64_STANDARD.encode(&self.ca_pem)
    }
}

async fn serve(
    io: TokioIo<tokio_rustls::server::TlsStream<TcpStream>>,
    asked: Arc<Mutex<Vec<Value>>>,
    answer: Answer,
) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (asked, answer) = (asked.clone(), answer.clone());
        async move {
            let body = request
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("JSON");
            let question = &review["request"];
            asked.lock().expect("no panic").push(question.clone());
            let mut response = answer(question);
            if let Some(delay) = response["delay_ms"].as_u64() {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            let text = match response["raw"].as_str() {
                Some(raw) => raw.to_owned(),
                None => {
                    response["uid"] = question["uid"].clone();
                    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"],
                        "response": response})
                    .to_string()
                }
            };
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        }
    });
    // It ends when the client goes.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .await;
}

/// The patch of a response.
pub(crate) fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch",
        "patch": BASE64_STANDARD.encode(operations.to_string())})
}

/// Every service is on this port of loopback.
#[derive(Debug)]
pub(crate) struct OnLoopback(pub(crate) u16);

impl ServiceResolver for OnLoopback {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
        _: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Stream>, ResolveError>> {
        Box::pin(async move {
            match TcpStream::connect(("127.0.0.1", self.0)).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(_) => Err(ResolveError::NoEndpoints {
                    name: name.to_owned(),
                }),
            }
        })
    }
}
