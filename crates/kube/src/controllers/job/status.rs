//! How a Job ends, and how its conditions say so. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::pods::{condition, has_condition};
use crate::object;
use crate::time;

/// How a Job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self {
            is_success: false,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self {
            is_success: true,
            ..Self::failed(reason, message)
        }
    }

    /// What was decided before.
    pub(super) fn of(job: &Value) -> Option<Self> {
        let text = |one: &Value, field: &str| object::text(one, &[field]).to_owned();
        let decided = |kind| condition(job, kind).filter(|one| one["status"] == "True");
        let (found, is_success) = match decided("FailureTarget") {
            Some(found) => (found, false),
            None => (decided("SuccessCriteriaMet")?, true),
        };
        Some(Self {
            is_success,
            reason: text(found, "reason"),
            message: text(found, "message"),
        })
    }

    /// The condition that is set while pods still end.
    pub(super) fn target(&self) -> &'static str {
        if self.is_success {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        }
    }

    pub(super) fn end(&self) -> &'static str {
        if self.is_success {
            "Complete"
        } else {
            "Failed"
        }
    }
}

pub(super) fn is_finished(job: &Value) -> bool {
    ending(job).is_some()
}

/// `Complete` or `Failed`, if it has ended.
pub(in crate::controllers) fn ending(job: &Value) -> Option<&'static str> {
    ["Complete", "Failed"]
        .into_iter()
        .find(|kind| has_condition(job, kind))
}

/// Sets a condition; nothing changes if it is so already.
pub(super) fn set(
    status: &mut Value,
    kind: &str,
    is_so: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let mut all = object::items(status, &["conditions"]).to_vec();
    let is_same = |one: &Value| one["type"] == kind && one["status"] == is_so;
    if all.iter().any(is_same) {
        return;
    }
    all.retain(|one| one["type"] != kind);
    let at = time::seconds(now);
    all.push(
        json!({"type": kind, "status": is_so, "reason": reason, "message": message,
        "lastProbeTime": at, "lastTransitionTime": at}),
    );
    status["conditions"] = all.into();
}
