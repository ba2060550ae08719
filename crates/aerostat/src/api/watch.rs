//! `GET /v1/apps/{app}/watch?from=`: the catalog's changes as lines of JSON.
//!
//! The body is made as it is read, so a slow reader costs nothing: the catalog keeps the newest
//! statement of each machine, and that is what such a reader gets.

use std::sync::Arc;
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
    let (first, from) = match query.parse("from", "a revision")? {
        Some(from) => (Vec::new(), from),
        None => {
            let snapshot = catalog.list(&filter);
            (snapshot.entries, snapshot.revision)
        }
    };
    let subscription = catalog
        .subscribe(filter, Some(from))
        .map_err(|gone| ApiError::Gone { from: gone.from })?;
    let reader = Reader {
        first: first.into_iter(),
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
    /// What there was at the beginning, if the caller did not say where to go on.
    first: std::vec::IntoIter<Arc<Entry>>,
    subscription: Subscription,
    /// Whether the caller has been told that it has seen everything there was at the beginning.
    caught_up: bool,
    drain: CancellationToken,
}

impl Reader {
    /// The next line. `None` ends the watch: the process ends, or changes were forgotten that this
    /// reader had not seen; it comes again with its last revision and is told so with 410.
    async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(entry) = self.first.next() {
            return Some(event(&entry));
        }
        if !self.caught_up {
            match self.subscription.try_next().ok()? {
                Some(entry) => return Some(event(&entry)),
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
            Ok(Ok(entry)) => Some(event(&entry)),
            Ok(Err(_)) => None,
            Err(_) => Some(self.bookmark()),
        }
    }

    fn bookmark(&self) -> WatchEvent {
        WatchEvent::Bookmark {
            revision: self.subscription.revision(),
        }
    }
}

fn event(entry: &Entry) -> WatchEvent {
    let machine = Box::new(entry.machine.clone());
    WatchEvent::Machine {
        revision: machine.revision,
        machine,
    }
}
