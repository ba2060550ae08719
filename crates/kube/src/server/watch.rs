//! Watch over HTTP: a line of JSON per event, for as long as the client and the server like.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use super::body::{self, Body};
use super::codec::{Representation, negotiate};
use super::query::Query;
use super::router::Target;
use super::{Server, options, respond};
use crate::api::{self, Event, EventKind, Shown, Verbatim};
use crate::resource::{Row, Snapshot};
use crate::status::{Cause, Status};
use crate::table::{self, Header, IncludeObject};

/// Upstream's pace.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Without a wish of the client a watch lasts this long, up to twice, so that they do not all end
/// together.
const TIMEOUT_S_MIN: u64 = 1800;
/// What a line has beside the object: its type and revision.
const LINE_EXTRA: usize = 64;
/// Set on the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) async fn handle(
    server: &Arc<Server>,
    resource: &Row,
    target: &Target,
    query: &Query,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let namespace = target.namespace.as_deref();
    let selector = options::selector(resource, query)?;
    let representation = negotiate(request)?;
    let include = IncludeObject::parse(query.get("includeObject"))?;
    let wants_initial = initial_events(query)?;
    let from = options::revision(query)?;
    let api = &server.api;
    let mut encoder = Encoder {
        resource: resource.clone(),
        verbatim: Verbatim::of(resource),
        representation,
        include,
        header: Header::Yes,
    };
    let (initial, rev) = match from {
        Some(rev) if !wants_initial => (Vec::new(), api.caught_up_with(rev).await?),
        Some(_) | None => {
            let options = api::ListOptions {
                selector: selector.clone(),
                ..api::ListOptions::default()
            };
            let list = api.list_with(resource, namespace, &options).await?;
            let rev = list.rev;
            if let Some(from) = from.filter(|from| *from > rev) {
                return Err(Status::too_large(from, rev));
            }
            (state(&mut encoder, list, query), rev)
        }
    };
    let watch = match api.watch(resource.clone(), namespace, rev, selector) {
        Ok(watch) => watch,
        // Upstream tells this one inside the stream; clients look for it there.
        Err(status) if status.code == 410 => {
            return Ok(respond::bytes(
                StatusCode::OK,
                "application/json",
                error_line(&status),
            ));
        }
        Err(status) => return Err(status),
    };
    let asked_s = query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let timeout_s =
        asked_s.unwrap_or_else(|| rand::rng().random_range(TIMEOUT_S_MIN..TIMEOUT_S_MIN * 2));
    let stream = Stream {
        watch,
        encoder,
        initial: initial.into_iter(),
        ends: Instant::now() + Duration::from_secs(timeout_s),
        bookmarks: query
            .flag("allowWatchBookmarks")
            .then(|| tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY)),
        stopping: server.stopping.clone(),
        resources: server.api.resources().changed(),
        resource: resource.clone(),
        is_over: false,
    };
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((Ok(line), stream))
    });
    let mut response = respond::bytes(StatusCode::OK, "application/json", "");
    *response.body_mut() = body::stream(chunks);
    Ok(response)
}

/// What there is, as if it had just been added, and the mark that ends it.
fn state(encoder: &mut Encoder, list: api::List, query: &Query) -> Vec<Bytes> {
    if query.get("sendInitialEvents") == "false" {
        return Vec::new();
    }
    let mut lines: Vec<_> = list
        .items
        .into_iter()
        .map(|object| encoder.event(EventKind::Added.as_str(), object))
        .collect();
    if query.flag("sendInitialEvents") && query.flag("allowWatchBookmarks") {
        lines.push(encoder.bookmark(list.rev, true));
    }
    lines
}

/// Whether the client asks for the state before the changes.
fn initial_events(query: &Query) -> Result<bool, Status> {
    if query.get("sendInitialEvents").is_empty() {
        return Ok(false);
    }
    if query.get("resourceVersionMatch") != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = Cause::forbidden("resourceVersionMatch", why);
        return Err(Status::invalid_kind(
            "meta.k8s.io",
            "ListOptions",
            "",
            vec![cause],
        ));
    }
    Ok(query.flag("sendInitialEvents"))
}

struct Stream {
    watch: api::Watch,
    encoder: Encoder,
    initial: std::vec::IntoIter<Bytes>,
    ends: Instant,
    bookmarks: Option<Interval>,
    stopping: tokio::sync::watch::Receiver<bool>,
    resources: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    resource: Row,
    is_over: bool,
}

impl Stream {
    /// The next line; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.initial.next() {
            return Some(line);
        }
        if self.is_over {
            return None;
        }
        tokio::select! {
            // Events first: a bookmark must not overtake them.
            biased;
            event = self.encoder.next(&mut self.watch) => Some(event.unwrap_or_else(|status| {
                self.is_over = true;
                error_line(&status)
            })),
            () = due(&mut self.bookmarks) => Some(self.encoder.bookmark(self.watch.rev(), false)),
            () = tokio::time::sleep_until(self.ends) => {
                self.is_over = true;
                self.bookmarks.as_ref().map(|_| self.encoder.bookmark(self.watch.rev(), false))
            }
            () = super::stopped(&mut self.stopping) => None,
            () = redefined(&mut self.resources, &self.resource) => None,
        }
    }
}

/// Resolves when a custom resource is no longer what it was: clients begin anew then, and see its
/// objects as they are defined now.
async fn redefined(resources: &mut tokio::sync::watch::Receiver<Arc<Snapshot>>, resource: &Row) {
    let Row::Custom(custom) = resource else {
        return std::future::pending().await;
    };
    let is_other = |served: &Arc<Snapshot>| {
        let found = served.find(custom.group, custom.version, custom.plural);
        !matches!(found, Some(Row::Custom(found)) if Arc::ptr_eq(found, custom))
    };
    if resources.wait_for(is_other).await.is_err() {
        std::future::pending().await
    }
}

async fn due(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(bookmarks) => drop(bookmarks.tick().await),
        None => std::future::pending().await,
    }
}

struct Encoder {
    resource: Row,
    verbatim: Verbatim,
    representation: Representation,
    include: IncludeObject,
    /// A Table tells its columns once per watch.
    header: Header,
}

impl Encoder {
    /// The line of the next event.
    async fn next(&mut self, watch: &mut api::Watch) -> Result<Bytes, Status> {
        let shown = match self.representation {
            Representation::Object => watch.next_shown().await?,
            Representation::Partial | Representation::Table => Shown::Object(watch.next().await?),
        };
        match shown {
            Shown::Object(Event { kind, object, .. }) => Ok(self.event(kind.as_str(), object)),
            Shown::Stored { kind, entry, rev } => {
                let mut line = Vec::with_capacity(entry.value.len() + LINE_EXTRA);
                let kind = kind.as_str();
                line.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
                self.verbatim.object(&entry, rev, &mut line);
                line.extend_from_slice(b"}\n");
                Ok(line.into())
            }
        }
    }

    fn event(&mut self, kind: &str, object: Value) -> Bytes {
        let object = match self.representation {
            Representation::Object => object,
            Representation::Partial => table::partial(&object),
            Representation::Table => {
                let header = std::mem::replace(&mut self.header, Header::No);
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::render(&self.resource, &[object], meta, self.include, header)
            }
        };
        line(&json!({"type": kind, "object": object}))
    }

    fn bookmark(&mut self, rev: u64, ends_initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": rev.to_string()});
        if ends_initial {
            meta["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": meta,
        });
        self.event("BOOKMARK", object)
    }
}

fn error_line(status: &Status) -> Bytes {
    line(&json!({"type": "ERROR", "object": status.to_json()}))
}

fn line(event: &Value) -> Bytes {
    Bytes::from(event.to_string() + "\n")
}
