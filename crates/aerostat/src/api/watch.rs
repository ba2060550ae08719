//! `GET /v1/apps/{app}/watch?from=`: the catalog's changes as lines of JSON.
//!
//! The body is made as it is read, so a slow reader costs nothing: the catalog keeps the newest
//! statement of each machine, and that is what such a reader gets.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use types::api::WatchEvent;

use super::Api;
use super::error::ApiError;
use super::extract::Query;
use crate::catalog::{Entry, Filter, Subscription};
use crate::directory;

/// Less than the 30 s that are promised.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(25);

pub(super) async fn watch(
    State(api): State<Api>,
    app: directory::App,
    query: Query,
) -> Result<Response, ApiError> {
    let catalog = &api.deps.catalog;
    let filter = Filter::App(app.name);
    let from = query.parse("from", "a revision")?;
    let subscription = catalog
        .subscribe(filter, from)
        .map_err(|gone| ApiError::Gone { from: gone.from })?;
    let reader = Reader {
        subscription,
        caught_up: false,
        drain: api.drain.clone(),
    };
    Ok(lines(stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((event, reader))
    })))
}

/// An answer of newline-delimited JSON. Each line is sent when it is there.
pub(super) fn lines<T: Serialize>(
    items: impl futures::Stream<Item = T> + Send + 'static,
) -> Response {
    let lines = futures::StreamExt::map(items, |item| {
        let mut line = serde_json::to_vec(&item)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

struct Reader {
    subscription: Subscription,
    /// Whether the caller has been told that it has seen everything there was at the beginning.
    caught_up: bool,
    drain: CancellationToken,
}

impl Reader {
    /// The next line. `None` ends the watch: the process ends, or changes were forgotten that this
    /// reader had not seen; it comes again with its last revision and is told so with 410.
    async fn next(&mut self) -> Option<WatchEvent> {
        if !self.caught_up {
            match self.subscription.try_next().ok()? {
                Some(entry) => return Some(self.event(&entry)),
                None => {
                    self.caught_up = true;
                    return Some(self.bookmark());
                }
            }
        }
        let next = tokio::select! {
            next = tokio::time::timeout(BOOKMARK_INTERVAL, self.subscription.next()) => next,
            () = self.drain.cancelled() => return None,
        };
        match next {
            Ok(Ok(entry)) => Some(self.event(&entry)),
            Ok(Err(_)) => None,
            Err(_) => Some(self.bookmark()),
        }
    }

    /// The change that was returned last.
    fn event(&self, entry: &Entry) -> WatchEvent {
        WatchEvent::Machine {
            revision: self.subscription.revision(),
            machine: Box::new(entry.machine.clone()),
            app_name: None,
        }
    }

    fn bookmark(&self) -> WatchEvent {
        WatchEvent::Bookmark {
            revision: self.subscription.revision(),
        }
    }
}
