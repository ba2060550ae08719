//! An answer that somebody else gives to a request of ours.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::Server;
use super::body::{self, Body};
use crate::status::Status;

/// What becomes of the connection, if the request asks for another protocol.
pub(super) fn upgrade(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let asks = request.headers().contains_key(UPGRADE);
    asks.then(|| hyper::upgrade::on(request))
}

/// What stays between two ends of one connection.
pub(super) fn hop_by_hop() -> [HeaderName; 4] {
    [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("transfer-encoding"),
        HeaderName::from_static("proxy-connection"),
    ]
}

/// Hands the answer on as it comes; after an upgrade, bytes both ways until either end goes or the
/// server stops.
pub(super) fn answer(
    server: &Server,
    mut response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(upgrade) = upgrade
    {
        let theirs = hyper::upgrade::on(&mut response);
        let mut stopping = server.stopping.clone();
        tokio::spawn(async move {
            let (Ok(ours), Ok(theirs)) = (upgrade.await, theirs.await) else {
                return debug!("a connection that was handed on was not upgraded");
            };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            tokio::select! {
                // Either end may go as it likes.
                _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
                () = super::stopped(&mut stopping) => {}
            }
        });
        let (parts, _) = response.into_parts();
        return Response::from_parts(parts, body::full(""));
    }
    let (mut parts, incoming) = response.into_parts();
    parts.version = hyper::Version::default();
    for header in hop_by_hop() {
        parts.headers.remove(header);
    }
    let broken = |error: hyper::Error| Status::unavailable(error.to_string());
    Response::from_parts(parts, incoming.map_err(broken).boxed_unsync())
}
