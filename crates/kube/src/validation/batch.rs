//! The rules of Jobs and CronJobs.

use serde_json::{Value, json};

use super::{not_negative, pod, unchanged_below};
use crate::object;
use crate::status::Cause;

/// A Job's name is the CronJob's and a time, and becomes a label.
const CRON_NAME_MAX: usize = 52;
const SCHEDULE_FIELDS: usize = 5;

pub(super) fn job(object: &Value) -> Vec<Cause> {
    let mut causes = job_spec(&object["spec"], "spec");
    if object["spec"]["selector"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    causes
}

fn job_spec(spec: &Value, at: &str) -> Vec<Cause> {
    let mut causes = not_negative(
        spec,
        at,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
    );
    let modes = ["Indexed", "NonIndexed"];
    let mode = object::text(spec, &["completionMode"]);
    if !mode.is_empty() && !modes.contains(&mode) {
        let field = format!("{at}.completionMode");
        causes.push(Cause::not_supported(field, &json!(mode), &modes));
    }
    if mode == "Indexed" && spec["completions"].is_null() {
        let why = "when completion mode is Indexed";
        causes.push(Cause::required(format!("{at}.completions"), why));
    }
    let template = &spec["template"];
    let inner = super::metadata(template)
        .into_iter()
        .chain(pod::spec(template));
    causes.extend(inner.map(|mut cause| {
        cause.field = format!("{at}.template.{}", cause.field);
        cause
    }));
    let policy = object::text(template, &["spec", "restartPolicy"]);
    let field = format!("{at}.template.spec.restartPolicy");
    match policy {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            let why = "valid values: \"OnFailure\", \"Never\"";
            causes.push(Cause::required(field, why));
        }
        other => {
            let all = ["OnFailure", "Never"];
            causes.push(Cause::not_supported(field, &json!(other), &all));
        }
    }
    causes
}

pub(super) fn job_change(old: &Value, new: &Value) -> Vec<Cause> {
    let mut fields = vec!["selector", "completionMode"];
    // A suspended Job that never started may still be changed where its pods will run.
    let may_change = old["spec"]["suspend"] == true && old["status"].get("startTime").is_none();
    if !may_change {
        fields.push("template");
    }
    if old["spec"]["completionMode"] != "Indexed" {
        fields.push("completions");
    }
    unchanged_below(old, new, "spec", &fields)
}

pub(super) fn cron_job(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = not_negative(
        spec,
        "spec",
        &[
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ],
    );
    let name = object::name(object);
    if name.len() > CRON_NAME_MAX {
        let why = "must be no more than 52 characters";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    causes.extend(schedule(object::text(spec, &["schedule"])));
    let policy = object::text(spec, &["concurrencyPolicy"]);
    let policies = ["Allow", "Forbid", "Replace"];
    if !policies.contains(&policy) {
        let field = "spec.concurrencyPolicy";
        causes.push(Cause::not_supported(field, &json!(policy), &policies));
    }
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str) {
        let why = match zone {
            "" => Some("timeZone must be nil or non-empty string"),
            "Local" | "local" => Some(
                "timeZone must be an explicit time zone as defined in \
                https://www.iana.org/time-zones",
            ),
            zone if jiff::tz::TimeZone::get(zone).is_err() => Some("unknown time zone"),
            _ => None,
        };
        if let Some(why) = why {
            let why = if why == "unknown time zone" {
                format!("{why} {zone}")
            } else {
                why.to_owned()
            };
            causes.push(Cause::invalid("spec.timeZone", &json!(zone), &why));
        }
    }
    causes.extend(job_spec(
        &spec["jobTemplate"]["spec"],
        "spec.jobTemplate.spec",
    ));
    causes
}

/// The form of a schedule; what its fields mean is for the controller to say.
fn schedule(text: &str) -> Option<Cause> {
    let field = "spec.schedule";
    if text.is_empty() {
        return Some(Cause::required(field, ""));
    }
    if text.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        return Some(Cause::invalid(field, &json!(text), why));
    }
    if let Some(word) = text.strip_prefix('@') {
        let known = [
            "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly",
        ];
        let is_known = known.contains(&word) || word.starts_with("every ");
        let why = format!("unrecognized descriptor: {text}");
        return (!is_known).then(|| Cause::invalid(field, &json!(text), &why));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let why = format!(
        "expected exactly {SCHEDULE_FIELDS} fields, found {}: [{}]",
        words.len(),
        words.join(" ")
    );
    (words.len() != SCHEDULE_FIELDS).then(|| Cause::invalid(field, &json!(text), &why))
}
