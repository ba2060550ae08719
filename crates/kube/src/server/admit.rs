//! The way of every request before its verb: who sends it, in whose name, whether there is a seat
//! for it, and whether they may.
//!
//! ```text
//! authenticate ── 401 ── impersonate ── 403 ── fairness ── 429 ── authorize ── 403 ── router
//!                             └── audit: begins ────────────────────── ends with the answer
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use jiff::Timestamp;
use tracing::debug;

use super::audit::{self, Record};
use super::auth::{self, Call};
use super::body::Body;
use super::metrics::Meter;
use super::{Server, codec, respond, router};
use crate::api::Notes;
use crate::identity::{BadCertificate, Peer, User, impersonation};
use crate::status::Status;

/// Upstream's time for a request that is not a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What requests of one connection have in common.
pub(super) struct Connection {
    pub(super) peer: Option<Result<Peer, BadCertificate>>,
    pub(super) address: Option<SocketAddr>,
}

/// Answers a request, whatever comes.
pub(super) async fn answer(
    server: Arc<Server>,
    from: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let call = Call::parse(request.method(), request.uri());
    let (method, path) = (request.method().clone(), call.path.clone());
    let id = audit::id(request.headers());
    let meter = Meter::begin(&server, &request, &call);
    let wants_yaml = codec::wants_yaml(&request);
    // The futures of all the verbs are in one; on the heap it does not travel with the caller.
    let answered = Box::pin(known(server, &from, call, &id, request)).await;
    let response = answered.unwrap_or_else(|status| respond::status(&status));
    let response = if wants_yaml {
        codec::in_yaml(response).await
    } else {
        response
    };
    debug!(%method, path, code = response.status().as_u16(), "request");
    meter.end(audit::mark(response, &id))
}

/// Whoever it is from: a refusal before that is nobody's, and not in the audit log.
async fn known(
    server: Arc<Server>,
    from: &Connection,
    call: Call,
    id: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let user = authenticated(&server, from, &request).await?;
    let acting = acting(&server, &user, &request);
    let notes = Notes::default();
    let record = server.audit.as_ref().and_then(|audit| {
        let acting = acting.as_ref().ok().and_then(Option::as_ref);
        let head = (id, request.uri(), request.headers());
        Record::begin(audit, &call, head, (&user, acting), from, &notes)
    });
    if let Some(recorder) = record.as_ref().and_then(Record::recorder) {
        request.extensions_mut().insert(recorder);
    }
    request.extensions_mut().insert(notes.clone());
    let answered = match acting {
        Ok(acting) => seated(server, acting.unwrap_or(user), call, &notes, request).await,
        Err(status) => Err(status),
    };
    let response = answered.unwrap_or_else(|status| respond::status(&status));
    Ok(match record {
        Some(record) => record.end(response).await,
        None => response,
    })
}

async fn seated(
    server: Arc<Server>,
    user: User,
    call: Call,
    notes: &Notes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if auth::is_stream(&call) {
        return allowed(server, user, call, notes, request).await;
    }
    let (marks, pass) = server.fairness.enter(&user, &call.asked).await;
    let answered = match pass {
        Ok(_pass) => {
            let work = allowed(server, user, call, notes, request);
            let answered = tokio::time::timeout(REQUEST_TIMEOUT, work).await;
            answered.unwrap_or_else(|_| Err(Status::request_timeout()))
        }
        Err(status) => Err(status),
    };
    let response = answered.unwrap_or_else(|status| respond::status(&status));
    Ok(marks.mark(response))
}

async fn allowed(
    server: Arc<Server>,
    user: User,
    call: Call,
    notes: &Notes,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let decision = auth::authorize(server.api.authorizer(), &user, &call);
    let (word, reason) = match &decision {
        Ok(reason) => ("allow", reason.as_str()),
        Err(_) => ("forbid", ""),
    };
    notes.annotate("authorization.k8s.io/decision", word);
    notes.annotate("authorization.k8s.io/reason", reason);
    decision?;
    router::handle(server, Arc::new(user), call, request).await
}

/// Who sends the request; 401 if its credentials are not good.
async fn authenticated(
    server: &Server,
    from: &Connection,
    request: &Request<Incoming>,
) -> Result<User, Status> {
    let now = Timestamp::now().as_second();
    let (peer, headers) = (from.peer.as_ref(), request.headers());
    let identity = &server.identity;
    let known = identity.authenticate(&server.api, peer, headers, now).await;
    known.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        debug!(%error, cause, "a request is not let in");
        Status::unauthorized()
    })
}

/// In whose name the request is sent, if not in the sender's; 403 if its sender may not.
fn acting(
    server: &Server,
    user: &User,
    request: &Request<Incoming>,
) -> Result<Option<User>, Status> {
    let Some(asked) = impersonation(request.headers())? else {
        return Ok(None);
    };
    for need in &asked.needs {
        let decision = server.api.authorizer().allowed(user, need);
        if !decision.is_allowed() {
            return Err(need.refusal(user, decision.reason()));
        }
    }
    Ok(Some(asked.user))
}
