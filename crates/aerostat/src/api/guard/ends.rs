//! When a stream has to end because the token that opened it is over.
//!
//! A request is checked when it comes; logs, commands and watches then go on for as long as they
//! like. Whoever answers with a stream takes [`Ends`] along and stops when [`Ends::over`] returns.
//! The guard fills it in once it sees that the answer is one: other requests cost nothing.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;

/// The clock may be set meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(600);
/// Types of answers that go on.
const STREAMS: [&str; 2] = ["application/x-ndjson", "text/event-stream"];

/// The end of what a stream's caller may. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Ends(Arc<OnceLock<Timestamp>>);

impl Ends {
    pub(super) fn set(&self, at: Timestamp) {
        // Only one guard stands in front of a request.
        let _ = self.0.set(at);
    }

    /// Returns when it is over; never, where nothing ends. May be dropped. To be called when the
    /// answer has begun.
    pub(in crate::api) async fn over(&self) {
        let Some(at) = self.0.get() else {
            return std::future::pending().await;
        };
        while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LOOK_MAX)).await;
        }
    }
}

/// What callers over sockets of root and from hosts have never ends.
impl<S: Sync> FromRequestParts<S> for Ends {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Whether an answer that begins so goes on for as long as it likes.
pub(super) fn is_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    status == StatusCode::SWITCHING_PROTOCOLS
        || kind.is_some_and(|kind| STREAMS.iter().any(|stream| kind.starts_with(stream)))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[tokio::test]
    async fn a_stream_is_over_at_its_end_and_one_without_an_end_never() {
        let soon = Duration::from_millis(200);
        let ends = Ends::default();
        assert!(tokio::time::timeout(soon, ends.over()).await.is_err());
        ends.set(Timestamp::now() + SignedDuration::from_millis(20));
        let over = tokio::time::timeout(Duration::from_secs(10), ends.over());
        assert!(over.await.is_ok());
        // From then on.
        let over = tokio::time::timeout(Duration::from_secs(10), ends.over());
        assert!(over.await.is_ok());
    }
}
