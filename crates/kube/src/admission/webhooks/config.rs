//! Webhooks as their configurations describe them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use serde_json::Value;

use crate::admission::matching::Selection;
use crate::cel::{CompileError, Expression};
use crate::egress::{Address, Endpoint, Trust};
use crate::object;

/// Upstream's bounds and default.
const TIMEOUT_S: u64 = 10;
const TIMEOUT_S_MAX: u64 = 30;

/// What becomes of a request when the webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailurePolicy {
    Fail,
    Ignore,
}

/// All webhooks of one configuration, in its order.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(super) name: String,
    pub(super) webhooks: Vec<Webhook>,
}

#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) selection: Selection,
    /// In their order.
    pub(super) conditions: Vec<Condition>,
    /// Where it is, or what is wrong with that.
    pub(super) endpoint: Result<Endpoint, String>,
    /// Path and query, with the timeout as upstream adds it.
    pub(super) path: String,
    pub(super) timeout: Duration,
    pub(super) failure: FailurePolicy,
    /// Whether it may be asked about a dry run.
    pub(super) takes_dry_runs: bool,
    /// Whether it is asked again about an object that changed after it.
    pub(super) is_reinvoked: bool,
    /// `v1` or `v1beta1`; none if it takes neither.
    pub(super) review_version: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct Condition {
    pub(super) name: String,
    pub(super) expression: Result<Expression, CompileError>,
}

impl Configuration {
    pub(crate) fn parse(object: Value) -> Self {
        let webhooks = object::items(&object, &["webhooks"]).iter();
        Self {
            name: object::name(&object).to_owned(),
            webhooks: webhooks.map(Webhook::parse).collect(),
        }
    }
}

impl Webhook {
    fn parse(webhook: &Value) -> Self {
        let text = |field: &str| object::text(webhook, &[field]);
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_S);
        let seconds = seconds.clamp(1, TIMEOUT_S_MAX);
        let client = &webhook["clientConfig"];
        let (endpoint, path) = match endpoint(client) {
            Ok((endpoint, path)) => (Ok(endpoint), path),
            Err(why) => (Err(why), String::new()),
        };
        let mark = if path.contains('?') { '&' } else { '?' };
        let versions = object::items(webhook, &["admissionReviewVersions"]).iter();
        let mut versions = versions.filter_map(|version| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            Some(_) | None => None,
        });
        Self {
            name: text("name").to_owned(),
            selection: Selection::of_webhook(webhook),
            conditions: conditions(webhook),
            endpoint,
            path: format!("{path}{mark}timeout={seconds}s"),
            timeout: Duration::from_secs(seconds),
            failure: match text("failurePolicy") {
                "Ignore" => FailurePolicy::Ignore,
                _ => FailurePolicy::Fail,
            },
            takes_dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            is_reinvoked: text("reinvocationPolicy") == "IfNeeded",
            review_version: versions.next(),
        }
    }
}

fn conditions(webhook: &Value) -> Vec<Condition> {
    let all = object::items(webhook, &["matchConditions"]).iter();
    all.map(|condition| Condition {
        name: object::text(condition, &["name"]).to_owned(),
        expression: Expression::compile(object::text(condition, &["expression"])),
    })
    .collect()
}

/// Where a `clientConfig` points to, and the path there.
fn endpoint(client: &Value) -> Result<(Endpoint, String), String> {
    let bundle = object::text(client, &["caBundle"]);
    let trust = if bundle.is_empty() {
        Trust::System
    } else {
        let pem = BASE64_STANDARD.decode(bundle);
        let pem = pem.map_err(|error| format!("caBundle cannot be read: {error}"))?;
        Trust::Bundle(Arc::from(pem))
    };
    let service = &client["service"];
    if service.is_object() {
        let text = |field: &str| object::text(service, &[field]).to_owned();
        let port = service["port"].as_u64().unwrap_or(443);
        let address = Address::Service {
            namespace: text("namespace"),
            name: text("name"),
            port: u16::try_from(port).map_err(|_| format!("invalid port {port}"))?,
        };
        let path = match text("path") {
            path if path.starts_with('/') => path,
            path => format!("/{path}"),
        };
        return Ok((Endpoint { address, trust }, path));
    }
    let url = object::text(client, &["url"]);
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("parse {url:?}: {error}"))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| format!("{url:?} is no URL of https"))?;
    let address = Address::Host {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(443),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((Endpoint { address, trust }, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_where_its_url_or_its_service_is() {
        let (endpoint_, path) =
            endpoint(&json!({"url": "https://example.com:8443/a?b=c"})).expect("fine");
        assert_eq!(
            (endpoint_.address.authority().as_str(), path.as_str()),
            ("example.com:8443", "/a?b=c")
        );
        assert_eq!(endpoint_.trust, Trust::System);
        let client =
            json!({"service": {"namespace": "n", "name": "s", "path": "/x"}, "caBundle": "YQ=="});
        let (endpoint_, path) = endpoint(&client).expect("fine");
        assert_eq!(
            (endpoint_.address.authority().as_str(), path.as_str()),
            ("s.n.svc:443", "/x")
        );
        assert!(endpoint(&json!({"url": "http://example.com"})).is_err());
        let webhook = Webhook::parse(&json!({"clientConfig": client, "timeoutSeconds": 3,
            "admissionReviewVersions": ["v7", "v1beta1"]}));
        assert_eq!(
            (webhook.path.as_str(), webhook.review_version),
            ("/x?timeout=3s", Some("v1beta1"))
        );
    }
}
