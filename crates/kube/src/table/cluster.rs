//! Rows of rules about the cluster: who may what, how much, and who comes first.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{created_ago, number, plain, text_or};
use crate::object;
use crate::time;

pub(super) fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (String::new(), String::new());
    let hard = quota["status"]["hard"].as_object().into_iter().flatten();
    for (resource, hard) in hard {
        let column = if resource.starts_with("limits.") {
            &mut limits
        } else {
            &mut requests
        };
        let used = &quota["status"]["used"][resource];
        let text = |value: &Value| value.as_str().unwrap_or("0").to_owned();
        let separator = if column.is_empty() { "" } else { ", " };
        // Writing to a text cannot fail.
        let _ = write!(
            column,
            "{separator}{resource}: {}/{}",
            text(used),
            text(hard)
        );
    }
    vec![
        json!(object::name(quota)),
        json!(requests),
        json!(limits),
        json!(created_ago(quota, now)),
    ]
}

pub(super) fn budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(object::name(budget)),
        plain(&budget["spec"]["minAvailable"], "N/A"),
        plain(&budget["spec"]["maxUnavailable"], "N/A"),
        json!(number(budget, &["status", "disruptionsAllowed"])),
        json!(created_ago(budget, now)),
    ]
}

pub(super) fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = |field: &str| object::text(binding, &["roleRef", field]);
    let subjects = object::items(binding, &["subjects"]);
    let of = |kind: &str| {
        let own = subjects.iter().filter(|subject| subject["kind"] == kind);
        let names = own.map(|subject| {
            let name = object::text(subject, &["name"]);
            match object::text(subject, &["namespace"]) {
                "" => name.to_owned(),
                namespace => format!("{namespace}/{name}"),
            }
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        json!(object::name(binding)),
        json!(format!("{}/{}", role("kind"), role("name"))),
        json!(created_ago(binding, now)),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

/// How far a claim of devices has come.
pub(super) fn claim_state(claim: &Value) -> Value {
    let status = &claim["status"];
    let is_allocated = status["allocation"].is_object();
    let mut states = Vec::new();
    match (object::is_terminating(claim), is_allocated) {
        (true, true) => states.extend(["deleted", "allocated"]),
        (true, false) => states.push("deleted"),
        (false, true) => states.push("allocated"),
        (false, false) => states.push("pending"),
    }
    if is_allocated && !object::items(status, &["reservedFor"]).is_empty() {
        states.push("reserved");
    }
    json!(states.join(","))
}

pub(super) fn request(request: &Value, now: Timestamp) -> Vec<Value> {
    let duration = request["spec"]["expirationSeconds"].as_i64();
    let duration = duration.map_or("<none>".to_owned(), |seconds| {
        time::human(SignedDuration::from_secs(seconds))
    });
    vec![
        json!(object::name(request)),
        json!(created_ago(request, now)),
        text_or(request, &["spec", "signerName"], "<none>"),
        text_or(request, &["spec", "username"], ""),
        json!(duration),
        json!(request_status(request)),
    ]
}

fn request_status(request: &Value) -> String {
    let conditions = object::items(request, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|one| one["type"] == kind);
    let mut status = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status += ",Failed";
    }
    if !object::text(request, &["status", "certificate"]).is_empty() {
        status += ",Issued";
    }
    status
}

pub(super) fn priority_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(object::name(class)),
        json!(number(class, &["value"])),
        json!(class["globalDefault"] == true),
        json!(created_ago(class, now)),
        text_or(class, &["preemptionPolicy"], ""),
    ]
}

pub(super) fn flow_schema(schema: &Value, now: Timestamp) -> Vec<Value> {
    let mut conditions = object::items(schema, &["status", "conditions"]).iter();
    let dangling = conditions.find(|one| one["type"] == "Dangling");
    let spec = &schema["spec"];
    vec![
        json!(object::name(schema)),
        text_or(spec, &["priorityLevelConfiguration", "name"], ""),
        json!(number(spec, &["matchingPrecedence"])),
        text_or(spec, &["distinguisherMethod", "type"], "<none>"),
        json!(created_ago(schema, now)),
        dangling.map_or(json!("?"), |one| one["status"].clone()),
    ]
}

pub(super) fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &level["spec"];
    let at = |path: &[&str]| {
        let found = object::at(spec, path).cloned();
        found.unwrap_or_else(|| json!("<none>"))
    };
    let queuing = |field: &str| at(&["limited", "limitResponse", "queuing", field]);
    vec![
        json!(object::name(level)),
        text_or(spec, &["type"], ""),
        at(&["limited", "nominalConcurrencyShares"]),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        json!(created_ago(level, now)),
    ]
}
