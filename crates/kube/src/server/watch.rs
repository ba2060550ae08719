//! Watch over HTTP: a line of JSON per event, for as long as the client and the server like.

mod initial;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use super::body::{self, Body};
use super::codec::{Representation, negotiate_watch};
use super::query::Query;
use super::router::Target;
use super::{Server, options, respond};
use crate::api::{self, Event, EventKind, Shown, Verbatim};
use crate::resource::{Row, Snapshot};
use crate::status::Status;
use crate::table::{self, Header, IncludeObject};
use initial::{Initial, Listed};

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
    let representation = negotiate_watch(request)?;
    let include = IncludeObject::parse(query.get("includeObject"))?;
    options::check_match(query, true)?;
    let wants_initial = query.flag("sendInitialEvents");
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
        Some(rev) if !wants_initial => (Initial::none(), api.caught_up_with(rev).await?),
        Some(_) | None => {
            let options = api::ListOptions {
                selector: selector.clone(),
                ..api::ListOptions::default()
            };
            let listed = Listed::of(api, resource, namespace, &options, representation).await?;
            let rev = listed.rev();
            if let Some(from) = from.filter(|from| *from > rev) {
                return Err(Status::too_large(from, rev));
            }
            (Initial::of(listed, query, &mut encoder), rev)
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
    let stream = Stream {
        watch,
        encoder,
        initial,
        end: Box::pin(end(
            Instant::now() + lifetime(query)?,
            server.stopping.clone(),
            server.api.resources().changed(),
            resource.clone(),
        )),
        bookmarks: query
            .flag("allowWatchBookmarks")
            .then(|| tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY)),
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

/// How long the client wants to watch, or has to.
fn lifetime(query: &Query) -> Result<Duration, Status> {
    let asked_s = query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let any = TIMEOUT_S_MIN..TIMEOUT_S_MIN * 2;
    let seconds = asked_s.unwrap_or_else(|| rand::rng().random_range(any));
    Ok(Duration::from_secs(seconds))
}

struct Stream {
    watch: api::Watch,
    encoder: Encoder,
    initial: Initial,
    /// One future for the whole watch: timers are not set anew with every event.
    end: BoxFuture<'static, End>,
    bookmarks: Option<Interval>,
    is_over: bool,
}

/// Why a watch is over that nothing is wrong with.
enum End {
    /// It has had its time.
    Due,
    /// The server stops, or what is watched is no longer what it was.
    Changed,
}

async fn end(
    due: Instant,
    mut stopping: tokio::sync::watch::Receiver<bool>,
    mut resources: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    resource: Row,
) -> End {
    tokio::select! {
        () = tokio::time::sleep_until(due) => End::Due,
        () = super::stopped(&mut stopping) => End::Changed,
        () = redefined(&mut resources, &resource) => End::Changed,
    }
}

impl Stream {
    /// The next line; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(lines) = self.initial.next(&mut self.encoder) {
            return Some(lines);
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
            end = &mut self.end => {
                self.is_over = true;
                match (end, &self.bookmarks) {
                    (End::Due, Some(_)) => Some(self.encoder.bookmark(self.watch.rev(), false)),
                    (End::Due, None) | (End::Changed, _) => None,
                }
            }
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
                self.stored(kind, &entry, rev, &mut line);
                Ok(line.into())
            }
        }
    }

    /// Appends the line of an object that is shown as it is stored.
    fn stored(&self, kind: EventKind, entry: &store::Entry, rev: u64, to: &mut Vec<u8>) {
        to.extend_from_slice(br#"{"type":""#);
        to.extend_from_slice(kind.as_str().as_bytes());
        to.extend_from_slice(br#"","object":"#);
        self.verbatim.object(entry, rev, to);
        to.extend_from_slice(b"}\n");
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
    let mut line = respond::text_of(event);
    line.push(b'\n');
    line.into()
}
