//! Client of Firecracker's API: HTTP over a Unix socket, one request after the other.
//!
//! Firecracker answers 200 or 204, or an error whose body has a `fault_message`. It reads bodies
//! of up to 51,200 bytes and hangs up on longer ones, so those are refused here.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::model::Fault;
use crate::shim::through_dir;

/// `HTTP_MAX_PAYLOAD_SIZE` of Firecracker.
pub(super) const BODY_BYTES_MAX: usize = 51_200;
/// Answers are configurations and messages.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Firecracker listens after 1 to 12 ms.
const CONNECT_POLL: Duration = Duration::from_millis(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that configure take well under a millisecond, a start about ten.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("cannot connect to Firecracker's API")]
    Connect { source: io::Error },
    #[error("cannot speak to Firecracker's API")]
    Handshake { source: hyper::Error },
    #[error("the body of {method} {path} has {bytes} bytes; Firecracker takes {BODY_BYTES_MAX}")]
    TooLong {
        method: Method,
        path: String,
        bytes: usize,
    },
    #[error("Firecracker did not answer {method} {path}")]
    Silent {
        method: Method,
        path: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("Firecracker refused {method} {path} with {status}: {fault}")]
    Refused {
        method: Method,
        path: String,
        status: StatusCode,
        fault: String,
    },
}

#[derive(Debug)]
pub(super) struct Api {
    sender: SendRequest<Full<Bytes>>,
}

impl Api {
    /// Connects, waiting for the socket to appear. May be dropped.
    pub(super) async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let stream = loop {
            match dial(socket) {
                Ok(stream) => break stream,
                Err(source) if Instant::now() >= deadline => {
                    return Err(ApiError::Connect { source });
                }
                // Not there, or there and not listening yet.
                Err(_) => sleep(CONNECT_POLL).await,
            }
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| ApiError::Handshake { source })?;
        // Its end is seen by the next request.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub(super) async fn put<T: Serialize>(&mut self, path: &str, body: &T) -> Result<(), ApiError> {
        self.call(Method::PUT, path, json(body), CALL_TIMEOUT).await
    }

    /// For what takes as long as the machine has memory.
    pub(super) async fn put_slow<T: Serialize>(
        &mut self,
        path: &str,
        body: &T,
        patience: Duration,
    ) -> Result<(), ApiError> {
        self.call(Method::PUT, path, json(body), patience).await
    }

    pub(super) async fn patch<T: Serialize>(
        &mut self,
        path: &str,
        body: &T,
    ) -> Result<(), ApiError> {
        self.call(Method::PATCH, path, json(body), CALL_TIMEOUT)
            .await
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(), ApiError> {
        let bytes = body.len();
        if bytes > BODY_BYTES_MAX {
            let path = path.to_owned();
            return Err(ApiError::TooLong {
                method,
                path,
                bytes,
            });
        }
        let exchange = async {
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header("Host", "localhost")
                .header("Accept", "application/json")
                .header("Content-Type", "application/json")
                .body(Full::new(body))?;
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body))
        };
        let answered = timeout(patience, exchange).await;
        let answered = answered.unwrap_or_else(|late| Err(late.into()));
        let (status, body) = answered.map_err(|source| ApiError::Silent {
            method: method.clone(),
            path: path.to_owned(),
            source,
        })?;
        if status.is_success() {
            return Ok(());
        }
        let fault = serde_json::from_slice::<Fault>(&body);
        Err(ApiError::Refused {
            method,
            path: path.to_owned(),
            status,
            fault: fault.map_or_else(
                |_| String::from_utf8_lossy(&body).into_owned(),
                |fault| fault.fault_message,
            ),
        })
    }
}

fn json<T: Serialize>(body: &T) -> Bytes {
    // Bodies are our own types: maps with string keys and no failing serialisers.
    Bytes::from(serde_json::to_vec(body).expect("a body is JSON"))
}

/// Connects to a Unix socket at a path of any length.
pub(super) fn dial(socket: &Path) -> io::Result<UnixStream> {
    through_dir(socket, |path| {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    })
}
