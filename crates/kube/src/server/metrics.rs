//! What is counted of requests, and `/metrics`.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};

use super::auth::{self, Call};
use super::body::{self, Body};
use super::router::Verb;
use super::{Server, respond};
use crate::metrics::Metrics;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Paths that are no objects' and are told apart.
const PATHS: [&str; 7] = [
    "/livez", "/readyz", "/healthz", "/metrics", "/version", "/api", "/apis",
];
/// Endpoints below objects that have no row of their own.
const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// `/metrics`
pub(super) fn answer(server: &Server) -> Response<Body> {
    let text = server.api.metrics().text(&server.api);
    respond::bytes(StatusCode::OK, TEXT, text)
}

/// What a request is about, in words that are all known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
}

impl Labels {
    fn of(server: &Server, request: &Request<Incoming>, call: &Call) -> Self {
        let mut labels = Self {
            verb: verb(request, call),
            dry_run: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            scope: "",
        };
        let Some(target) = &call.target else {
            let path = PATHS.into_iter().find(|path| call.path == *path);
            labels.subresource = path.unwrap_or("");
            return labels;
        };
        let Some(row) = target.row(server.api.resources()) else {
            return labels;
        };
        (labels.group, labels.version) = (row.group, row.version);
        labels.resource = row.plural;
        if let Some(below) = &target.subresource {
            let below = below.split('/').next().unwrap_or_default();
            let known = row.subresource(below).map(|one| one.name);
            let known = known.or_else(|| STREAMS.into_iter().find(|one| *one == below));
            labels.subresource = known.unwrap_or("");
        }
        labels.scope = match (&target.name, target.verb, &target.namespace) {
            (Some(_), _, _) | (None, Verb::Create, _) => "resource",
            (None, _, Some(_)) => "namespace",
            (None, _, None) => "cluster",
        };
        if call.query.get("dryRun") == "All" {
            labels.dry_run = "All";
        }
        labels
    }

    fn of_request(&self) -> [&'static str; 7] {
        [
            self.verb,
            self.dry_run,
            self.group,
            self.version,
            self.resource,
            self.subresource,
            self.scope,
        ]
    }

    fn of_long_running(&self) -> [&'static str; 6] {
        [
            self.verb,
            self.group,
            self.version,
            self.resource,
            self.subresource,
            self.scope,
        ]
    }
}

/// Upstream's names of verbs.
fn verb(request: &Request<Incoming>, call: &Call) -> &'static str {
    if auth::is_stream(call)
        && let Some(target) = &call.target
        && target.subresource.as_deref() != Some("log")
    {
        return "CONNECT";
    }
    match call.target.as_ref().map(|target| target.verb) {
        Some(Verb::Get) => "GET",
        Some(Verb::List) => "LIST",
        Some(Verb::Watch) => "WATCH",
        Some(Verb::Create) => "POST",
        Some(Verb::Update) => "PUT",
        Some(Verb::Patch) => {
            let kind = request.headers().get(CONTENT_TYPE);
            let is_apply =
                kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply"));
            if is_apply { "APPLY" } else { "PATCH" }
        }
        Some(Verb::Delete) => "DELETE",
        Some(Verb::DeleteCollection) => "DELETECOLLECTION",
        None => match *request.method() {
            Method::GET | Method::HEAD => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        },
    }
}

/// A request that is being answered. Dropped without an end, its client has gone.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    labels: Labels,
    began: Instant,
    stage: Stage,
}

/// What is counted as being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Changing,
    /// A stream before its answer begins; it holds no place.
    Opening,
    Streaming,
}

impl Meter {
    pub(super) fn begin(server: &Server, request: &Request<Incoming>, call: &Call) -> Self {
        let metrics = Arc::clone(server.api.metrics());
        let labels = Labels::of(server, request, call);
        let stage = match labels.verb {
            "WATCH" | "CONNECT" => Stage::Opening,
            "GET" | "LIST" => Stage::Reading,
            _ => Stage::Changing,
        };
        match stage {
            Stage::Reading => metrics.reading.inc(),
            Stage::Changing => metrics.mutating.inc(),
            Stage::Opening | Stage::Streaming => {}
        }
        Self {
            metrics,
            labels,
            began: Instant::now(),
            stage,
        }
    }

    /// The answer begins; a stream is counted when it ends.
    pub(super) fn end(mut self, response: Response<Body>) -> Response<Body> {
        let code = response.status();
        if response.body().size_hint().exact().is_none() {
            self.leave();
            self.stage = Stage::Streaming;
            let labels = self.labels.of_long_running();
            self.metrics.long_running.with_label_values(&labels).inc();
            return response.map(|inner| body::until_over(inner, move || self.count(code)));
        }
        self.count(code);
        response
    }

    fn count(&self, code: StatusCode) {
        let [verb, dry_run, group, version, resource, subresource, scope] =
            self.labels.of_request();
        let labels = [
            verb,
            dry_run,
            group,
            version,
            resource,
            subresource,
            scope,
            code.as_str(),
        ];
        self.metrics.requests.with_label_values(&labels).inc();
        let seconds = self.began.elapsed().as_secs_f64();
        let durations = &self.metrics.durations;
        durations.with_label_values(&labels[..7]).observe(seconds);
    }

    /// Gives up its place.
    fn leave(&mut self) {
        match self.stage {
            Stage::Reading => self.metrics.reading.dec(),
            Stage::Changing => self.metrics.mutating.dec(),
            Stage::Streaming => {
                let labels = self.labels.of_long_running();
                self.metrics.long_running.with_label_values(&labels).dec();
            }
            Stage::Opening => {}
        }
        self.stage = Stage::Opening;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.leave();
    }
}
