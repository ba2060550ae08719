//! `GET /v1/apps/{app}/machines?watch=true&from=` (and `/v1/orgs/{org}/machines`, and the older
//! `/v1/apps/{app}/watch`): the catalog's changes as lines of JSON, or as server-sent events.
//!
//! The body is made as it is read, so a slow reader costs nothing: the catalog keeps the newest
//! statement of each machine, and that is what such a reader gets.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use types::api::WatchEvent;
use types::{AppName, OrgSlug};

use super::error::ApiError;
use super::extract::Query;
use super::guard::{Ends, Grant};
use super::{Api, State as Shared};
use crate::catalog::{Entry, Filter, Subscription};
use crate::directory;

/// Less than the 30 s that are promised.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(25);
const EVENT_STREAM: &str = "text/event-stream";
/// What a browser's `EventSource` sends when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A watch shows machines whole and all of them: one that a filter had let through, and then no
/// longer, would stay in the reader's list for ever.
const FILTERS: [&str; 6] = [
    "state",
    "region",
    "summary",
    "cursor",
    "limit",
    "updated_after",
];

/// Whose machines somebody watches.
#[derive(Debug, Clone)]
pub(super) enum Whose {
    App(AppName),
    /// Those of its apps that the caller may see.
    Org(OrgSlug, Grant),
}

/// `GET /v1/apps/{app}/watch?from=`
pub(super) async fn watch(
    State(api): State<Api>,
    app: directory::App,
    ends: Ends,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&api, Whose::App(app.name), ends, &query, &headers)
}

/// What happens to these machines after the revision that the query or the headers name.
pub(super) fn answer(
    api: &Shared,
    whose: Whose,
    ends: Ends,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let filter = FILTERS
        .into_iter()
        .find(|name| query.get(name).is_some())
        .or_else(|| query.with_prefix("metadata.").next().map(|_| "metadata"));
    if let Some(filter) = filter {
        return Err(ApiError::bad(format!(
            "a watch takes no filter, such as {filter}"
        )));
    }
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let from = match query.parse("from", "a revision")? {
        Some(from) => Some(from),
        None => header(&LAST_EVENT_ID)
            .map(str::parse)
            .transpose()
            .map_err(|_| ApiError::bad("Last-Event-ID must be a revision".into()))?,
    };
    // One who may see everything is not asked for each machine.
    let whose = match whose {
        Whose::Org(slug, grant) if grant.reads_all(&slug) => Whose::Org(slug, Grant::Root),
        whose @ (Whose::App(_) | Whose::Org(..)) => whose,
    };
    let filter = match &whose {
        Whose::App(app) => Filter::App(app.clone()),
        Whose::Org(..) => Filter::All,
    };
    let subscription = api.deps.catalog.subscribe(filter, from);
    let reader = Reader {
        subscription: subscription.map_err(|gone| ApiError::Gone { from: gone.from })?,
        whose,
        directory: api.deps.directory.clone(),
        caught_up: false,
        ends,
        drain: api.drain.clone(),
    };
    let events = stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((event, reader))
    });
    let is_stream = header(&ACCEPT).is_some_and(|accept| accept.contains(EVENT_STREAM));
    Ok(match is_stream {
        true => server_sent(events),
        false => lines(events),
    })
}

/// An answer of newline-delimited JSON. Each line is sent when it is there.
pub(super) fn lines<T: Serialize>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = items.map(|item| {
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

/// An answer of server-sent events (HTML, "9.2 Server-sent events"). JSON has no line feeds, so
/// one `data` line is enough.
fn server_sent(events: impl Stream<Item = WatchEvent> + Send + 'static) -> Response {
    let events = events.map(|event| {
        let (name, revision) = match &event {
            WatchEvent::Machine { revision, .. } => ("machine", *revision),
            WatchEvent::Bookmark { revision } => ("bookmark", *revision),
        };
        let data = serde_json::to_string(&event)?;
        let text = format!("event: {name}\nid: {revision}\ndata: {data}\n\n");
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    let headers = [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

struct Reader {
    subscription: Subscription,
    whose: Whose,
    directory: directory::Handle,
    /// Whether the caller has been told that it has seen everything there was at the beginning.
    caught_up: bool,
    ends: Ends,
    drain: CancellationToken,
}

impl Reader {
    /// The next event. `None` ends the watch: the process or the caller's token ends, or changes
    /// were forgotten that this reader had not seen; it comes again with its last revision and is
    /// told so with 401 or 410.
    async fn next(&mut self) -> Option<WatchEvent> {
        while !self.caught_up {
            match self.subscription.try_next().ok()? {
                Some(entry) if self.is_wanted(&entry).await => return Some(self.event(&entry)),
                Some(_) => {}
                None => {
                    self.caught_up = true;
                    return Some(self.bookmark());
                }
            }
        }
        let bookmark_at = tokio::time::Instant::now() + BOOKMARK_INTERVAL;
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout_at(bookmark_at, self.subscription.next()) => next,
                () = self.drain.cancelled() => return None,
                () = self.ends.over() => return None,
            };
            match next {
                Ok(Ok(entry)) if self.is_wanted(&entry).await => return Some(self.event(&entry)),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(self.bookmark()),
            }
        }
    }

    /// Whether the machine is one of those that are watched. Those of an app that is gone are
    /// nobody's.
    async fn is_wanted(&self, entry: &Entry) -> bool {
        match &self.whose {
            Whose::App(_) => true,
            Whose::Org(slug, grant) => {
                let app = self.directory.app(&entry.app).await;
                app.is_ok_and(|app| app.org == *slug && grant.reads(&app))
            }
        }
    }

    /// The change that was returned last.
    fn event(&self, entry: &Entry) -> WatchEvent {
        WatchEvent::Machine {
            revision: self.subscription.revision(),
            machine: Box::new(entry.machine.clone()),
            app_name: match self.whose {
                Whose::App(_) => None,
                Whose::Org(..) => Some(entry.app.clone()),
            },
        }
    }

    fn bookmark(&self) -> WatchEvent {
        WatchEvent::Bookmark {
            revision: self.subscription.revision(),
        }
    }
}
