//! Who may call. A Unix socket is guarded by its file mode, the host plane by the mesh; a port on
//! loopback can be reached by every user of the host, and by every web page in a browser on it.
//!
//! ```text
//!  TCP ── Host, Origin ── token(s) ─ verify ─ revoked? ── need(method, path) ── Grant ─► handlers
//!  Unix socket ───────────────────────────────────────────────────────────── Grant::Root ─►
//!  host plane ── is_for_hosts(path) ──────────────────────────────────────── Grant::Host ─►
//! ```
//!
//! Hence a token that allows what the request does; and no request that a browser could have been
//! tricked into: one with an `Origin` comes from a page, and one with a foreign `Host` from a page
//! whose name was made to resolve to loopback (DNS rebinding).

mod ends;
mod grant;
mod need;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use types::OrgSlug;
use types::token::Verb;

use super::error::ApiError;
use crate::directory;
use crate::tokens::{Access, PublicKeyText, Target, TokenError, Verified};

pub(super) use ends::Ends;
pub(super) use grant::{Grant, of_app};
use need::{Need, is_for_hosts, need};

/// Names under which this API may be called: loopback, and what machines call it.
const HOSTS: [&str; 5] = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "_api.internal",
    "aerostat.internal",
];

/// Tokens in one request. Each costs a signature or more.
const TOKENS_MAX: usize = 8;

/// Asks callers over TCP for tokens. Clones share the directory.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    directory: directory::Handle,
}

/// For a socket that only root can open.
pub(super) fn trust(router: Router) -> Router {
    router.layer(Extension(Grant::Root))
}

/// For the host plane.
pub(super) fn trust_hosts(router: Router) -> Router {
    router
        .layer(from_fn(only_for_hosts))
        .layer(Extension(Grant::Host))
        .layer(from_fn(name_request))
}

async fn only_for_hosts(request: Request, next: Next) -> Response {
    if is_for_hosts(request.uri().path()) {
        return next.run(request).await;
    }
    ApiError::NotForHosts.into_response()
}

impl Guard {
    pub(super) fn new(directory: directory::Handle) -> Self {
        Self { directory }
    }

    /// Puts the guard in front of every route.
    pub(super) fn protect(self, router: Router) -> Router {
        router
            .layer(from_fn_with_state(self, check))
            .layer(from_fn(name_request))
    }

    /// The tokens of an `Authorization` header that are of this fleet and not revoked.
    ///
    /// # Errors
    /// If there is none; why the first is not good.
    pub(super) fn verify(&self, header: &str) -> Result<Vec<Verified>, ApiError> {
        let (scheme, tokens) = header.trim().split_once(' ').ok_or(ApiError::NoToken)?;
        let known = ["bearer", "flyv1"];
        if !known.iter().any(|name| scheme.eq_ignore_ascii_case(name)) {
            return Err(ApiError::NoToken);
        }
        // Fly's clients may send several at once.
        let texts = tokens.split(',').map(str::trim);
        let texts = texts.filter(|text| !text.is_empty()).take(TOKENS_MAX);
        let mut good = Vec::new();
        let mut why = ApiError::NoToken;
        for text in texts {
            match self.verify_one(text) {
                Ok(token) => good.push(token),
                Err(error) if matches!(why, ApiError::NoToken) => why = error,
                Err(_) => {}
            }
        }
        if good.is_empty() { Err(why) } else { Ok(good) }
    }

    fn verify_one(&self, text: &str) -> Result<Verified, ApiError> {
        let key = |id| self.directory.token_key(id).map(PublicKeyText);
        let token = Verified::of(text, key).map_err(|error| match error {
            TokenError::UnknownKey if !self.directory.has_token_key() => ApiError::NoTokenKeyYet,
            other => ApiError::BadToken(other),
        })?;
        if self.directory.is_revoked(token.revocation_ids()) {
            return Err(ApiError::TokenRevoked);
        }
        Ok(token)
    }

    async fn admit(&self, request: &Parts) -> Result<Option<(Grant, Need)>, ApiError> {
        let uri = &request.uri;
        let query = uri.query().unwrap_or_default();
        let need = need(&request.method, uri.path(), query);
        check_caller(&request.headers)?;
        if need == Need::Nothing {
            return Ok(None);
        }
        let header = request.headers.get(AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok());
        let tokens = self.verify(header.ok_or(ApiError::NoToken)?)?;
        let grant = Grant::Tokens(Arc::from(tokens));
        self.ask(&need, |access| grant.check(access)).await?;
        if let Need::OrgLists { org } = &need {
            self.check_lists(&grant, org)?;
        }
        Ok(Some((grant, need)))
    }

    /// Somebody who may see one app of the organisation may see lists of it, with that app alone.
    fn check_lists(&self, grant: &Grant, org: &OrgSlug) -> Result<(), ApiError> {
        let whole = grant.check(Access::To(Target {
            org: Some(org.as_str()),
            ..Target::fleet(Verb::Read)
        }));
        let Err(denied) = whole else { return Ok(()) };
        let mut apps = self.directory.apps().into_iter();
        match apps.any(|app| app.org == *org && grant.reads(&app)) {
            true => Ok(()),
            false => Err(denied),
        }
    }

    /// What `answer` says of the access that is needed.
    async fn ask<T: Default>(
        &self,
        need: &Need,
        answer: impl Fn(Access<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        match need {
            // What is not there is told apart by the handlers.
            Need::Nothing | Need::Token | Need::NoSuchThing | Need::OrgLists { .. } => {
                answer(Access::Platform)
            }
            Need::Fleet(verb) => answer(Access::To(Target::fleet(*verb))),
            Need::Org { verb, org } => answer(Access::To(Target {
                org: Some(org.as_str()),
                ..Target::fleet(*verb)
            })),
            Need::App { verb, app, machine } => {
                answer(Access::Platform)?;
                let found = match self.directory.app(app).await {
                    Ok(found) => found,
                    Err(directory::Error::Refused(_)) => return Ok(T::default()),
                    Err(error) => return Err(error.into()),
                };
                answer(Access::To(Target {
                    verb: *verb,
                    org: Some(found.org.as_str()),
                    app: Some(app.as_str()),
                    machine: machine.as_ref().map(|id| id.as_str()),
                }))
            }
        }
    }
}

/// Nothing that a browser could have been tricked into.
fn check_caller(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        return Err(ApiError::ForeignOrigin);
    }
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    if !HOSTS.contains(&without_port(host)) {
        return Err(ApiError::ForeignHost {
            host: host.chars().take(80).collect(),
        });
    }
    Ok(())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match guard.admit(&parts).await {
        Ok(None) => next.run(Request::from_parts(parts, body)).await,
        Ok(Some((grant, need))) => {
            let ends = Ends::default();
            parts.extensions.insert(grant.clone());
            parts.extensions.insert(ends.clone());
            let response = next.run(Request::from_parts(parts, body)).await;
            if ends::is_stream(response.status(), response.headers())
                && let Ok(Some(at)) = guard.ask(&need, |access| Ok(grant.ends_at(access))).await
            {
                ends.set(at);
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Gives every answer a name that can be found in the log.
pub(super) async fn name_request(request: Request, next: Next) -> Response {
    let id = ulid::Ulid::new().to_string();
    let span = tracing::info_span!("request", %id, method = %request.method(), path = request.uri().path());
    let mut response = tracing::Instrument::instrument(next.run(request), span).await;
    let headers = response.headers_mut();
    if let (false, Ok(id)) = (headers.contains_key(REQUEST_ID), HeaderValue::try_from(id)) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

const REQUEST_ID: &str = "fly-request-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_could_send_is_refused() {
        let check = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (
                    axum::http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            });
            check_caller(&pairs.collect())
        };
        for host in [
            "localhost:4280",
            "[::1]:4280",
            "[::1]",
            "_api.internal:4280",
        ] {
            assert!(check(&[("host", host)]).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:4280",
            "",
            "127.0.0.1.evil.example",
        ] {
            let refused = check(&[("host", host)]);
            assert!(
                matches!(refused, Err(ApiError::ForeignHost { .. })),
                "{host}"
            );
        }
        let page = check(&[("host", "localhost"), ("origin", "http://localhost")]);
        assert!(matches!(page, Err(ApiError::ForeignOrigin)));
    }
}
