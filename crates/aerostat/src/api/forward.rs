//! Requests for machines of other hosts, sent on to the host that owns the machine.
//!
//! ```text
//!  caller ──► any host's API ── catalog: whose is {id}? ──ours──► handler ── worker::Handle
//!                  │
//!                  └─ another's ──► the same request over the host plane ──► the owner's API
//!                     the answer, stream or upgraded connection comes back as it is ◄──┘
//! ```
//!
//! What goes from host to host is the request of the Machines API itself: one protocol, with one
//! promise about its versions, and streams and WebSockets need no second form. Only the market
//! has questions of its own (`worker::Remote`).
//!
//! - A request that came from a host is never sent on, so that two catalogs that disagree make no
//!   loop. Who came over the host plane is a host (`rpc`); what the headers say counts only then.
//! - Lists, watches and waits are answered from the catalog of the host that was asked. Therefore
//!   a change is answered when that catalog has it too (within [`CATCH_UP_MAX`]): who stops a
//!   machine and then waits for it does not see it as it was before.
//! - Tokens do not travel: each host has its own.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use types::api::CreateMachine;
use types::fleet::HostStatus;
use types::machine::Machine;
use types::{AppName, HostId, MachineId};

use super::error::ApiError;
use super::guard::Ends;
use super::{Api, State as Shared};
use crate::catalog::{Entry, Filter};
use crate::rpc::{API_PORT, Caller, Unreachable};
use crate::worker::Reservation;

/// The host that sends a request on. For people who read along; the caller's address counts.
const FORWARDED: HeaderName = HeaderName::from_static("aerostat-forwarded");
/// The promise that a new machine redeems.
const RESERVATION: HeaderName = HeaderName::from_static("aerostat-reservation");
/// From the owner to the host that was asked: the machine, and its worker's revision after the
/// change.
const STATED: HeaderName = HeaderName::from_static("aerostat-stated");

/// What stands behind `/v1/apps/{app}/machines/{id}` in a path.
const MACHINE: &str = "";
const WAIT: &str = "wait";
const FILES: &str = "files";

/// Until the head of the owner's answer. The owner's own limits are shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(360);
/// An archive is unpacked before the answer.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3600);
/// What the catalog can answer as well is not waited for so long.
const GET_LIMIT: Duration = Duration::from_secs(3);
/// A new machine is recorded, and nothing more is waited for; its reservation lasts no longer.
const CREATE_LIMIT: Duration = Duration::from_secs(10);
/// Statements reach other hosts in milliseconds; one that is lost on the way comes with the
/// catalog's next repair, and nobody is kept waiting for that.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// The layer in front of every route: sends requests on that are for machines of other hosts.
pub(super) async fn forward(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let here = api.deps.rpc.host();
    if let Some(owner) = super::volumes::owner(parts.uri.path())
        && owner != here
        && parts.extensions.get::<Caller>().is_none()
    {
        return match send(&api, owner, parts, body, ANSWER_LIMIT).await {
            Ok(response) => response,
            Err(error) => ApiError::from(error).into_response(),
        };
    }
    let Some((verb, entry)) = machine(&api, &mut parts).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    if parts.extensions.get::<Caller>().is_some() {
        let is_change = parts.method != Method::GET;
        let mut response = next.run(Request::from_parts(parts, body)).await;
        if is_change && let Some(entry) = api.deps.catalog.get(&entry.machine.id) {
            state(&mut response, &entry.machine);
        }
        return response;
    }
    let is_get = verb == MACHINE && parts.method == Method::GET;
    let is_silent = entry.machine.host_status == HostStatus::Unreachable.as_str();
    if entry.host == here || verb == WAIT || (is_get && is_silent) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let from_catalog = is_get.then(|| parts.clone());
    let limit = match verb.as_str() {
        _ if is_get => GET_LIMIT,
        FILES => TRANSFER_LIMIT,
        _ => ANSWER_LIMIT,
    };
    for name in [FORWARDED, RESERVATION, STATED] {
        parts.headers.remove(name);
    }
    match send(&api, entry.host, parts, body, limit).await {
        Ok(response) => response,
        Err(error) => match from_catalog {
            Some(parts) => next.run(Request::from_parts(parts, Body::empty())).await,
            None => ApiError::from(error).into_response(),
        },
    }
}

/// The machine that a request is for, as the catalog has it, and what stands behind it in the path.
/// `None` for other requests, and for machines that are not there: their handlers say so.
async fn machine(api: &Api, parts: &mut Parts) -> Option<(String, std::sync::Arc<Entry>)> {
    let segments: Vec<&str> = parts.uri.path().split('/').collect();
    let ["", "v1", "apps", _, "machines", _, rest @ ..] = segments.as_slice() else {
        return None;
    };
    let verb = rest.join("/");
    let params = RawPathParams::from_request_parts(parts, api).await.ok()?;
    let find = |name: &str| params.iter().find(|(known, _)| *known == name);
    let id: MachineId = find("id")?.1.parse().ok()?;
    let app: AppName = find("app")?.1.parse().ok()?;
    let entry = api.deps.catalog.get(&id)?;
    (entry.app == app).then_some((verb, entry))
}

/// Asks `owner`, who promised room, for a new machine.
pub(super) async fn create(
    api: &Shared,
    owner: HostId,
    app: &AppName,
    body: &CreateMachine,
    reservation: Reservation,
) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(body).map_err(|error| ApiError::bad(error.to_string()))?;
    let mut request = Request::new(Body::from(json));
    *request.method_mut() = Method::POST;
    let path = format!("/v1/apps/{app}/machines");
    *request.uri_mut() = path
        .parse()
        .map_err(|_| ApiError::bad("the path cannot be read".into()))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(value) = HeaderValue::try_from(reservation.id.to_string()) {
        headers.insert(RESERVATION, value);
    }
    let (parts, body) = request.into_parts();
    Ok(send(api, owner, parts, body, CREATE_LIMIT).await?)
}

/// Posts `body` to `owner`, who decides.
pub(super) async fn post<T: serde::Serialize>(
    api: &Shared,
    owner: HostId,
    path: &str,
    body: &T,
) -> Result<Response, ApiError> {
    let bad = |error: String| ApiError::bad(error);
    let json = serde_json::to_vec(body).map_err(|error| bad(error.to_string()))?;
    let request = Request::post(path)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Body::from(json));
    let (parts, body) = request
        .map_err(|error| bad(error.to_string()))?
        .into_parts();
    Ok(send(api, owner, parts, body, ANSWER_LIMIT).await?)
}

/// Sends a request to `owner`, and returns its answer when the local catalog is as new.
pub(super) async fn send(
    api: &Shared,
    owner: HostId,
    mut parts: Parts,
    body: Body,
    limit: Duration,
) -> Result<Response, Unreachable> {
    let here = api.deps.rpc.host();
    let ours = parts.extensions.remove::<OnUpgrade>();
    let ends = parts.extensions.remove::<Ends>().unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    let path = parts.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let mut headers = parts.headers;
    strip_hop_by_hop(&mut headers);
    for name in [AUTHORIZATION, COOKIE, EXPECT] {
        headers.remove(name);
    }
    headers.insert(HOST, HeaderValue::from_static("aerostat"));
    if let Ok(value) = HeaderValue::try_from(here.to_string()) {
        headers.insert(FORWARDED, value);
    }
    *request.headers_mut() = headers;
    let mut response = api
        .deps
        .rpc
        .request(owner, API_PORT, request, limit)
        .await?;
    strip_hop_by_hop(response.headers_mut());
    if let Some(stated) = response.headers_mut().remove(STATED) {
        catch_up(api, &stated).await;
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(ours) = ours
    {
        let theirs = hyper::upgrade::on(&mut response);
        tokio::spawn(tunnel(ours, theirs, api.drain.clone(), ends));
    }
    Ok(response.map(Body::new))
}

/// Takes away what is between a sender and its next hop only (RFC 9110, 7.6.1). A wish to upgrade
/// stays: this hop grants it when the next one does.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let upgrade = match named.contains(&UPGRADE) {
        true => headers.get(UPGRADE).cloned(),
        false => None,
    };
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization"] {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Carries bytes both ways until both sides have ended, or the process or the caller's token does.
async fn tunnel(ours: OnUpgrade, theirs: OnUpgrade, drain: CancellationToken, ends: Ends) {
    let both = async {
        let (ours, theirs) = tokio::try_join!(ours, theirs).map_err(std::io::Error::other)?;
        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
        tokio::io::copy_bidirectional(&mut ours, &mut theirs).await
    };
    tokio::select! {
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "a forwarded stream ended early");
        },
        () = drain.cancelled() => {}
        () = ends.over() => {}
    }
}

/// Tells the host that asked which revision its catalog must have to show this change.
pub(super) fn state(response: &mut Response, machine: &Machine) {
    let stated = format!("{} {}", machine.id, machine.revision);
    if let Ok(value) = HeaderValue::try_from(stated) {
        response.headers_mut().insert(STATED, value);
    }
}

/// Waits until the local catalog has what the owner stated.
async fn catch_up(api: &Shared, stated: &HeaderValue) {
    let stated = stated.to_str().ok().and_then(|text| text.split_once(' '));
    let Some((id, revision)) = stated
        .and_then(|(id, revision)| Some((id.parse::<MachineId>().ok()?, revision.parse().ok()?)))
    else {
        return;
    };
    let catalog = &api.deps.catalog;
    let Ok(mut changes) = catalog.subscribe(Filter::All, Some(catalog.revision())) else {
        return;
    };
    let has = |entry: &Entry| entry.machine.id == id && entry.machine.revision >= revision;
    if catalog.get(&id).is_some_and(|entry| has(&entry)) {
        return;
    }
    let wait = async { while changes.next().await.is_ok_and(|entry| !has(&entry)) {} };
    if tokio::time::timeout(CATCH_UP_MAX, wait).await.is_err() {
        tracing::debug!(machine = %id, revision, "another host's word is late");
    }
}

/// Who asks for a new machine.
pub(super) enum Origin {
    Outside,
    /// A host that has been promised room here.
    Host(Reservation),
}

impl FromRequestParts<Api> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        if parts.extensions.get::<Caller>().is_none() {
            return Ok(Self::Outside);
        }
        let text = parts.headers.get(RESERVATION);
        let id = text.and_then(|value| value.to_str().ok()?.parse().ok());
        let id = id.ok_or_else(|| {
            ApiError::bad(format!(
                "a host that wants a machine here must have a reservation ({RESERVATION})"
            ))
        });
        Ok(Self::Host(Reservation { id: id? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let mut headers = pairs.collect();
        strip_hop_by_hop(&mut headers);
        headers
    }

    #[test]
    fn what_is_for_the_next_hop_only_stays_there() {
        let headers = stripped(&[
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("fly-machine-lease-nonce", "n"),
        ]);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("fly-machine-lease-nonce"));
    }

    #[test]
    fn a_wish_to_upgrade_is_passed_on() {
        let headers = stripped(&[
            ("connection", "Keep-Alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(headers.len(), 3);
    }
}
