//! The way to other hosts, and what is asked of this one.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use types::HostId;

use super::Replication;
use crate::catalog::codec::{Ask, BODY_BYTES_MAX, Digest, Malformed, decode_push, encode_position};
use crate::rpc::{Caller, Rpc};

pub(super) const PUSH: &str = "/catalog/v1/push";
pub(super) const ROWS: &str = "/catalog/v1/rows";
pub(super) const DIGEST: &str = "/catalog/v1/digest";

/// Asks another host's catalog: bytes there, bytes back.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// # Errors
    /// If there is no answer, or one that is no success.
    async fn ask(
        &self,
        host: HostId,
        path: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> io::Result<Bytes>;
}

#[async_trait]
impl Transport for Rpc {
    async fn ask(
        &self,
        host: HostId,
        path: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> io::Result<Bytes> {
        let limits = (BODY_BYTES_MAX, deadline);
        Self::ask(self, host, path, "application/octet-stream", body, limits)
            .await
            .map_err(io::Error::other)
    }
}

pub(super) fn router(replication: Replication) -> Router {
    Router::new()
        .route(PUSH, post(push))
        .route(ROWS, post(rows))
        .route(DIGEST, post(digest))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(replication)
}

/// Rows and the word of the host that sends them.
async fn push(
    State(replication): State<Replication>,
    Caller(caller): Caller,
    body: Bytes,
) -> Response {
    let Ok(_permit) = replication.shared.busy.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (word, page) = match decode_push(body) {
        Ok(push) => push,
        Err(malformed) => return refuse(&replication, caller, &malformed),
    };
    let origin = page.origin;
    // Statements are signed one by one, so a page of somebody else's could leave some out.
    if origin != caller {
        return StatusCode::FORBIDDEN.into_response();
    }
    replication.hear(word, Duration::ZERO);
    let merged = replication.take_page(caller, page, false).await;
    if merged.gap {
        replication.want(caller);
    }
    let position = replication.shared.catalog.position(origin);
    encode_position(position.unwrap_or_default()).into_response()
}

async fn rows(
    State(replication): State<Replication>,
    Caller(caller): Caller,
    body: Bytes,
) -> Response {
    let ask = match Ask::decode(body) {
        Ok(ask) => ask,
        Err(malformed) => return refuse(&replication, caller, &malformed),
    };
    match replication.page(ask.origin, ask.after, ask.whole) {
        Some(page) => {
            let mut bytes = Vec::new();
            page.encode(&mut bytes);
            bytes.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Where the caller is; answered with where this host is.
async fn digest(
    State(replication): State<Replication>,
    Caller(caller): Caller,
    body: Bytes,
) -> Response {
    let theirs = match Digest::decode(body) {
        Ok(digest) => digest,
        Err(malformed) => return refuse(&replication, caller, &malformed),
    };
    let ours = replication.digest();
    if replication.is_behind(&theirs) {
        replication.want(caller);
    }
    replication.hear_all(theirs.words);
    ours.encode().into_response()
}

fn refuse(replication: &Replication, caller: HostId, malformed: &Malformed) -> Response {
    replication.count_malformed(caller, malformed);
    (StatusCode::BAD_REQUEST, malformed.to_string()).into_response()
}
