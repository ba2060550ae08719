//! A request of ours, asked of another API server: who asks goes along in headers, which that
//! server believes because our client certificate says that we may say so.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use tracing::debug;

use super::super::Server;
use super::super::body::Body;
use super::super::relay;
use super::Remote;
use crate::identity::User;
use crate::status::Status;

/// Upstream's limit of a body.
const BODY_BYTES_MAX: usize = 3 << 20;
/// Headers that only we may send.
const REMOTE: &str = "x-remote-";

pub(super) async fn forward(
    server: &Server,
    user: &User,
    remote: &Remote,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let unavailable = || Status::unavailable("service unavailable");
    let Some(Ok(endpoint)) = &remote.endpoint else {
        return Err(unavailable());
    };
    if !remote.is_available {
        return Err(unavailable());
    }
    let upgrade = relay::upgrade(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let read = Limited::new(incoming, BODY_BYTES_MAX).collect().await;
    let bytes = read
        .map_err(|_| Status::request_too_large(BODY_BYTES_MAX))?
        .to_bytes();
    parts.headers = headers(&parts.headers, user, upgrade.is_some());
    if let Ok(host) = HeaderValue::from_str(&endpoint.address.authority()) {
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|_| unavailable())?;
    parts.version = hyper::Version::HTTP_11;
    let asked = Request::from_parts(parts, Full::new(bytes));
    let answered = server.api.egress().forward(endpoint, asked).await;
    let response = answered.map_err(|error| {
        debug!(service = remote.name, %error, "an aggregated API does not answer");
        Status::unavailable(format!("error trying to reach service: {error}"))
    })?;
    Ok(relay::answer(server, response, upgrade))
}

/// The headers of the request, without credentials, with who asks.
fn headers(given: &HeaderMap, user: &User, is_upgrade: bool) -> HeaderMap {
    let mut headers = given.clone();
    let forged: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(REMOTE))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    if !is_upgrade {
        for name in relay::hop_by_hop() {
            headers.remove(name);
        }
    }
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(format!("{REMOTE}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("user", &user.name);
    if !user.uid.is_empty() {
        add("uid", &user.uid);
    }
    for group in &user.groups {
        add("group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("extra-{}", escape(key)), value);
        }
    }
    headers
}

/// As in a URL, for what a header's name cannot hold.
fn escape(key: &str) -> String {
    form_urlencoded::byte_serialize(key.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_by_us_and_nobody_else() {
        let mut given = HeaderMap::new();
        given.insert("x-remote-user", HeaderValue::from_static("root"));
        given.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        given.insert("accept", HeaderValue::from_static("application/json"));
        let mut user = User::authenticated("alice".into(), vec!["devs".into()]);
        user.extra
            .insert("example.com/team".into(), vec!["a".into()]);
        let headers = headers(&given, &user, false);
        assert_eq!(headers["x-remote-user"], "alice");
        let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["devs", "system:authenticated"]);
        assert_eq!(headers["x-remote-extra-example.com%2fteam"], "a");
        assert!(!headers.contains_key(AUTHORIZATION));
        assert_eq!(headers["accept"], "application/json");
    }
}
