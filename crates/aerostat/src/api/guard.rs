//! Who may call over TCP. A Unix socket is guarded by its file mode; a port on loopback can be
//! reached by every user of the host, and by every web page in a browser on it.
//!
//! Hence a token; and no request that a browser could have been tricked into: one with an `Origin`
//! comes from a page, and one with a foreign `Host` from a page whose name was made to resolve to
//! loopback (DNS rebinding).

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Names under which this API may be called: loopback, and what machines call it.
const HOSTS: [&str; 5] = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "_api.internal",
    "aerostat.internal",
];

/// Compared as digests: how long that takes says nothing about the token.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    token: [u8; 32],
}

impl Guard {
    pub(super) fn new(token: &str) -> Self {
        Self {
            token: Sha256::digest(token).into(),
        }
    }

    /// Puts the guard in front of every route.
    pub(super) fn protect(self, router: Router) -> Router {
        router
            .layer(from_fn_with_state(self, check))
            .layer(from_fn(name_request))
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
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
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let tokens = given.and_then(|given| {
            let (scheme, tokens) = given.trim().split_once(' ')?;
            let known = ["bearer", "flyv1"]
                .iter()
                .any(|name| scheme.eq_ignore_ascii_case(name));
            known.then_some(tokens)
        });
        // Fly's clients may send several tokens at once.
        let mut tokens = tokens.unwrap_or_default().split(',');
        let known =
            tokens.any(|token| <[u8; 32]>::from(Sha256::digest(token.trim())) == self.token);
        known.then_some(()).ok_or(ApiError::Unauthorized)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admit(request.headers()) {
        Ok(()) => next.run(request).await,
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

    fn admit(headers: &[(&'static str, &str)]) -> Result<(), ApiError> {
        let pairs = headers.iter().map(|(name, value)| {
            (
                axum::http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        Guard::new("secret").admit(&pairs.collect())
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        let host = ("host", "127.0.0.1:4280");
        assert!(admit(&[host, ("authorization", "Bearer secret")]).is_ok());
        assert!(admit(&[host, ("authorization", "FlyV1 other,secret")]).is_ok());
        for wrong in [
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer Secret",
            "Basic secret",
        ] {
            let refused = admit(&[host, ("authorization", wrong)]);
            assert!(matches!(refused, Err(ApiError::Unauthorized)), "{wrong}");
        }
        assert!(matches!(admit(&[host]), Err(ApiError::Unauthorized)));
    }

    #[test]
    fn what_a_browser_could_send_is_refused_even_with_the_token() {
        let token = ("authorization", "Bearer secret");
        for host in [
            "localhost:4280",
            "[::1]:4280",
            "[::1]",
            "_api.internal:4280",
        ] {
            assert!(admit(&[token, ("host", host)]).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:4280",
            "",
            "127.0.0.1.evil.example",
        ] {
            let refused = admit(&[token, ("host", host)]);
            assert!(
                matches!(refused, Err(ApiError::ForeignHost { .. })),
                "{host}"
            );
        }
        let page = admit(&[token, ("host", "localhost"), ("origin", "http://localhost")]);
        assert!(matches!(page, Err(ApiError::ForeignOrigin)));
    }
}
