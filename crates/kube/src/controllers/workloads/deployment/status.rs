//! What a Deployment says of itself, with upstream's conditions and reasons. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::plan::is_complete;
use super::sets::{available, find_new, number, total, wanted};
use crate::object;
use crate::rollout::Limits;
use crate::time;

/// What stands for "no deadline".
const NEVER: i64 = i32::MAX as i64;

/// The status as the sets make it, and when the deadline of its progress is to be looked at.
pub(in crate::controllers::workloads) fn status(
    deployment: &Value,
    sets: &[Value],
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let new = find_new(deployment, sets);
    let sum = |field: &str| -> i64 { sets.iter().map(|set| number(set, &["status", field])).sum() };
    let serving = sets.iter().map(available).sum::<i64>();
    let mut status = json!({"observedGeneration": number(deployment, &["metadata", "generation"])});
    for (field, count) in [
        ("replicas", sum("replicas")),
        (
            "updatedReplicas",
            new.map_or(0, |new| number(new, &["status", "replicas"])),
        ),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", serving),
        ("unavailableReplicas", (total(sets) - serving).max(0)),
        (
            "collisionCount",
            number(deployment, &["status", "collisionCount"]),
        ),
    ] {
        // Go leaves zeros out.
        if count > 0 {
            status[field] = count.into();
        }
    }
    let mut conditions = Conditions {
        all: object::items(deployment, &["status", "conditions"]).to_vec(),
        now,
    };
    let enough = wanted(deployment) - Limits::of(deployment).unavailable;
    if serving >= enough {
        let (reason, why) = (
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
        conditions.set("Available", "True", reason, why);
    } else {
        let why = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", why);
    }
    match sets.iter().find_map(|set| condition(set, "ReplicaFailure")) {
        Some(failure) => {
            let text = |field| object::text(failure, &[field]);
            conditions.set(
                "ReplicaFailure",
                text("status"),
                text("reason"),
                text("message"),
            );
        }
        None => conditions.remove("ReplicaFailure"),
    }
    let again = progress(deployment, new, &status, &mut conditions);
    status["conditions"] = conditions.all.into();
    (status, again)
}

/// The condition `Progressing`, and when it has to be looked at again.
fn progress(
    deployment: &Value,
    new: Option<&Value>,
    status: &Value,
    conditions: &mut Conditions,
) -> Option<Duration> {
    let deadline_s = object::at(deployment, &["spec", "progressDeadlineSeconds"]);
    let deadline_s = deadline_s.and_then(Value::as_i64).unwrap_or(NEVER);
    if deadline_s == NEVER {
        conditions.remove("Progressing");
        return None;
    }
    let subject = match new {
        Some(new) => format!("ReplicaSet {:?}", object::name(new)),
        None => format!("Deployment {:?}", object::name(deployment)),
    };
    let present = conditions
        .find("Progressing")
        .cloned()
        .unwrap_or(Value::Null);
    let reason = object::text(&present, &["reason"]).to_owned();
    if deployment["spec"]["paused"] == true {
        if reason != "ProgressDeadlineExceeded" {
            conditions.set(
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused",
            );
        }
        return None;
    }
    if reason == "DeploymentPaused" {
        let why = "Deployment is resumed";
        conditions.set("Progressing", "Unknown", "DeploymentResumed", why);
    }
    let count = |field: &str| number(status, &[field]);
    let is_done = reason == "NewReplicaSetAvailable";
    if is_done && count("replicas") == count("updatedReplicas") {
        return None;
    }
    if is_complete(deployment, status) {
        let why = format!("{subject} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", &why);
        return None;
    }
    if is_done || present.is_null() || has_moved(&deployment["status"], status) {
        let why = format!("{subject} is progressing.");
        conditions.renew("Progressing", "True", "ReplicaSetUpdated", &why);
        return u64::try_from(deadline_s).ok().map(Duration::from_secs);
    }
    if reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let since = time::parse(object::text(&present, &["lastUpdateTime"])).unwrap_or(conditions.now);
    let left = since + SignedDuration::from_secs(deadline_s) - conditions.now;
    let left_s = left.total(jiff::Unit::Second).unwrap_or(0.0);
    if left_s < 0.0 {
        let why = format!("{subject} has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", &why);
        return None;
    }
    // The condition's time has whole seconds.
    Some(Duration::from_secs_f64(left_s) + Duration::from_secs(1))
}

/// More pods of the new template, more that serve, or fewer of the old.
fn has_moved(old: &Value, new: &Value) -> bool {
    let count = |status: &Value, field: &str| number(status, &[field]);
    let outdated = |status: &Value| count(status, "replicas") - count(status, "updatedReplicas");
    let more = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    more.iter()
        .any(|field| count(new, field) > count(old, field))
        || outdated(new) < outdated(old)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object::items(object, &["status", "conditions"])
        .iter()
        .find(|condition| condition["type"] == kind)
}

struct Conditions {
    all: Vec<Value>,
    now: Timestamp,
}

impl Conditions {
    fn find(&self, kind: &str) -> Option<&Value> {
        self.all.iter().find(|condition| condition["type"] == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.all.retain(|condition| condition["type"] != kind);
    }

    /// Nothing changes if status and reason are so already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let is_same = |one: &Value| one["status"] == status && one["reason"] == reason;
        if !self.find(kind).is_some_and(is_same) {
            self.renew(kind, status, reason, message);
        }
    }

    /// As [`Self::set`], and its time moves in any case.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = time::seconds(self.now);
        let since = match self.find(kind) {
            Some(present) if present["status"] == status => present["lastTransitionTime"].clone(),
            Some(_) | None => now.as_str().into(),
        };
        self.remove(kind);
        self.all
            .push(json!({"type": kind, "status": status, "reason": reason,
            "message": message, "lastUpdateTime": now, "lastTransitionTime": since}));
    }
}
