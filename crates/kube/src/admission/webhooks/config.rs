//! Webhooks as their configurations describe them.

use std::time::Duration;

use serde_json::Value;

use crate::admission::matching::Selection;
use crate::cel::{CompileError, Expression};
use crate::egress::{Endpoint, client_config};
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
        let (endpoint, path) = match client_config(client) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_asked_in_a_version_and_a_time_that_both_know() {
        let client = json!({"service": {"namespace": "n", "name": "s", "path": "/x"}});
        let webhook = Webhook::parse(&json!({"clientConfig": client, "timeoutSeconds": 3,
            "admissionReviewVersions": ["v7", "v1beta1"]}));
        assert_eq!(
            (webhook.path.as_str(), webhook.review_version),
            ("/x?timeout=3s", Some("v1beta1"))
        );
    }
}
