//! A TLS server on loopback that a test tells what to answer, and the way to it from an API.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::egress::{ResolveError, ServiceResolver, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub(crate) struct TlsServer {
    pub(crate) port: u16,
    ca_pem: String,
    connections: Arc<AtomicUsize>,
}

impl TlsServer {
    /// Answers until the runtime ends, with a certificate of its own for `names`.
    pub(crate) async fn start<H, F>(names: &[&str], answer: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send,
    {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
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
        let server = Self {
            port: listener.local_addr().expect("bound").port(),
            ca_pem: made.cert.pem(),
            connections: Arc::default(),
        };
        let connections = server.connections.clone();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let connections = connections.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    connections.fetch_add(1, Ordering::Relaxed);
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    // It ends when the client goes.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    /// How many were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A `caBundle` that trusts it.
    pub(crate) fn bundle(&self) -> String {
        BASE64_STANDARD.encode(&self.ca_pem)
    }
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
