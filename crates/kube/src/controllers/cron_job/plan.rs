//! The next step of a CronJob. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::schedule::{Schedule, ScheduleError};
use crate::controllers::events::News;
use crate::controllers::job::status::ending;
use crate::controllers::owner;
use crate::controllers::pods::{annotation, number};
use crate::object;
use crate::time;

/// When a Job was due; the mark of a Job that this controller made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times from which on somebody should be told; upstream's number.
const MISSED_MAX: i64 = 100;
/// Upstream's allowance for clocks that differ a little.
const SLACK: Duration = Duration::from_millis(100);

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) status: Value,
    /// Jobs of the past that are no longer kept.
    pub(super) forget: Vec<Value>,
    /// Running Jobs that make room for the next.
    pub(super) replace: Vec<Value>,
    pub(super) create: Option<Value>,
    pub(super) news: Vec<News>,
    pub(super) again: Option<Duration>,
}

/// `jobs` are the CronJob's own.
pub(super) fn plan(cron: &Value, jobs: &[Value], now: Timestamp) -> Plan {
    let mut plan = Plan {
        forget: forgotten(cron, jobs),
        ..Plan::default()
    };
    let ours = |job: &&Value| annotation(job, SCHEDULED).is_some();
    let running: Vec<_> = jobs
        .iter()
        .filter(ours)
        .filter(|job| ending(job).is_none() && !object::is_terminating(job))
        .collect();
    tell_ended(cron, jobs, &mut plan.news);
    plan.status = status(cron, jobs, &running);
    let is_over = object::is_terminating(cron) || cron["spec"]["suspend"] == true;
    if !is_over {
        decide(cron, jobs, &running, now, &mut plan);
    }
    plan
}

fn reference(job: &Value) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "name": object::name(job),
        "namespace": object::namespace(job), "uid": object::uid(job),
        "resourceVersion": job["metadata"]["resourceVersion"]})
}

fn status(cron: &Value, jobs: &[Value], running: &[&Value]) -> Value {
    let mut status = json!({});
    let told = object::items(cron, &["status", "active"]);
    let mut active: Vec<_> = running
        .iter()
        .map(|job| {
            // As it was told first, so that a Job's own changes do not change it.
            let known = told.iter().find(|one| one["uid"] == object::uid(job));
            known.cloned().unwrap_or_else(|| reference(job))
        })
        .collect();
    active.sort_by_key(|one| object::text(one, &["name"]).to_owned());
    if !active.is_empty() {
        status["active"] = active.into();
    }
    let latest = |told: &str, times: &mut dyn Iterator<Item = Timestamp>| {
        let told = time::parse(object::text(cron, &["status", told]));
        times.max().max(told).map(time::seconds)
    };
    let scheduled = &mut jobs.iter().filter_map(scheduled_at);
    let done = jobs.iter().filter(|job| ending(job) == Some("Complete"));
    let done =
        &mut done.filter_map(|job| time::parse(object::text(job, &["status", "completionTime"])));
    for (field, value) in [
        ("lastScheduleTime", latest("lastScheduleTime", scheduled)),
        ("lastSuccessfulTime", latest("lastSuccessfulTime", done)),
    ] {
        if let Some(value) = value {
            status[field] = value.into();
        }
    }
    status
}

fn scheduled_at(job: &Value) -> Option<Timestamp> {
    annotation(job, SCHEDULED).and_then(time::parse)
}

/// Of the Jobs that were running when somebody looked last: which have ended or gone since.
fn tell_ended(cron: &Value, jobs: &[Value], news: &mut Vec<News>) {
    for active in object::items(cron, &["status", "active"]) {
        let name = object::text(active, &["name"]);
        match jobs.iter().find(|job| active["uid"] == object::uid(job)) {
            None => {
                let message = format!("Active job went missing: {name}");
                news.push(News::normal("MissingJob", message));
            }
            Some(job) => {
                if let Some(ending) = ending(job) {
                    let message = format!("Saw completed job: {name}, condition: {ending}");
                    news.push(News::normal("SawCompletedJob", message));
                }
            }
        }
    }
}

/// Ended Jobs beyond the limits, oldest first.
fn forgotten(cron: &Value, jobs: &[Value]) -> Vec<Value> {
    let mut forgotten = Vec::new();
    for (how, limit, default) in [
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ] {
        let limit = number(cron, &["spec", limit]).unwrap_or(default);
        let mut ended: Vec<_> = jobs.iter().filter(|job| ending(job) == Some(how)).collect();
        ended.sort_by_key(|job| {
            let started = object::text(job, &["status", "startTime"]).to_owned();
            (started, object::name(job).to_owned())
        });
        let surplus = ended
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        let surplus = ended.into_iter().take(surplus);
        forgotten.extend(surplus.filter(|job| !object::is_terminating(job)).cloned());
    }
    forgotten
}

fn decide(cron: &Value, jobs: &[Value], running: &[&Value], now: Timestamp, plan: &mut Plan) {
    let text = object::text(cron, &["spec", "schedule"]);
    let zone = object::at(cron, &["spec", "timeZone"]).and_then(Value::as_str);
    let schedule = match Schedule::parse(text, zone) {
        Ok(schedule) => schedule,
        Err(error @ ScheduleError::Zone { .. }) => {
            plan.news
                .push(News::warning("UnknownTimeZone", error.to_string()));
            return;
        }
        Err(error @ (ScheduleError::Text { .. } | ScheduleError::Duration { .. })) => {
            plan.news
                .push(News::warning("UnparseableSchedule", error.to_string()));
            return;
        }
    };
    plan.again = schedule.next(now).and_then(|next| {
        let left = Duration::try_from(next.duration_since(now)).ok()?;
        Some(left + SLACK)
    });
    let last = time::parse(object::text(&plan.status, &["lastScheduleTime"]));
    let made = object::meta(cron, "creationTimestamp").and_then(time::parse);
    let mut earliest = last.or(made).unwrap_or(now);
    let deadline = number(cron, &["spec", "startingDeadlineSeconds"]);
    if let Some(deadline) = deadline {
        earliest = earliest.max(now - SignedDuration::from_secs(deadline));
    }
    let Some((due, missed)) = schedule.latest(earliest, now) else {
        return;
    };
    if missed > MISSED_MAX && deadline.is_none() {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease \
             .spec.startingDeadlineSeconds or check clock skew"
        );
        plan.news.push(News::warning("TooManyMissedTimes", message));
    }
    let job = job(cron, due, zone);
    let is_made = jobs
        .iter()
        .any(|one| object::name(one) == object::name(&job));
    if is_made || last == Some(due) {
        return;
    }
    match object::text(cron, &["spec", "concurrencyPolicy"]) {
        "Forbid" if !running.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency \
                           policy is Forbid";
            plan.news.push(News::normal("JobAlreadyActive", message));
            return;
        }
        "Replace" => plan.replace = running.iter().map(|job| (*job).clone()).collect(),
        _ => {}
    }
    plan.create = Some(job);
}

fn job(cron: &Value, due: Timestamp, zone: Option<&str>) -> Value {
    let template = &cron["spec"]["jobTemplate"];
    let zoned = zone.and_then(|zone| due.in_tz(zone).ok());
    let told = match zoned {
        Some(zoned) => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => time::seconds(due),
    };
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[SCHEDULED] = told.into();
    let minutes = due.as_second() / 60;
    let mut meta = json!({
        "name": format!("{}-{minutes}", object::name(cron)),
        "namespace": object::namespace(cron),
        "annotations": annotations,
        "ownerReferences": [owner::reference(cron)],
    });
    if let Some(labels) = object::at(template, &["metadata", "labels"]) {
        meta["labels"] = labels.clone();
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(spec: &Value) -> Value {
        let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "tick", "namespace": "n", "uid": "c",
                "creationTimestamp": "2026-03-01T10:00:00Z"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1}}},
            "status": {}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            cron["spec"][key] = value.clone();
        }
        cron
    }

    fn at(second: i64) -> Timestamp {
        "2026-03-01T10:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
    }

    fn made(mut job: Value, uid: &str, ending: Option<&str>) -> Value {
        job["metadata"]["uid"] = uid.into();
        if let Some(ending) = ending {
            job["status"] = json!({"conditions": [{"type": ending, "status": "True"}],
                "startTime": format!("2026-03-01T10:00:{uid}Z"),
                "completionTime": "2026-03-01T10:01:30Z"});
        }
        job
    }

    #[test]
    fn a_job_is_made_when_it_is_due_once() {
        let mut cron = cron(&json!({"timeZone": "Europe/Berlin"}));
        let before = plan(&cron, &[], at(30));
        assert_eq!(
            (&before.create, before.again),
            (&None, Some(Duration::from_millis(30_100)))
        );
        let due = plan(&cron, &[], at(61));
        let job = due.create.expect("due");
        assert_eq!(object::name(&job), "tick-29539321");
        assert_eq!(
            annotation(&job, SCHEDULED),
            Some("2026-03-01T11:01:00+01:00")
        );
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        // Also if the status of the CronJob was never written.
        let job = made(job, "10", None);
        let after = plan(&cron, std::slice::from_ref(&job), at(62));
        assert_eq!(after.create, None);
        assert_eq!(after.status["lastScheduleTime"], "2026-03-01T10:01:00Z");
        assert_eq!(after.status["active"][0]["name"], "tick-29539321");
        cron["status"] = after.status;
        let ended = plan(&cron, &[made(job, "10", Some("Complete"))], at(100));
        assert_eq!(ended.news[0].reason, "SawCompletedJob");
        assert_eq!(
            ended.news[0].message,
            "Saw completed job: tick-29539321, condition: Complete"
        );
        assert_eq!(ended.status["lastSuccessfulTime"], "2026-03-01T10:01:30Z");
        assert_eq!(ended.status["active"], Value::Null);
    }

    #[test]
    fn a_job_that_still_runs_forbids_is_replaced_or_runs_beside() {
        let with = |policy: &str| {
            let cron = cron(&json!({"concurrencyPolicy": policy}));
            let first = plan(&cron, &[], at(61)).create.expect("due");
            plan(&cron, &[made(first, "10", None)], at(121))
        };
        assert!(with("Allow").create.is_some() && with("Allow").replace.is_empty());
        let forbid = with("Forbid");
        assert_eq!(
            (forbid.create, forbid.news[0].reason),
            (None, "JobAlreadyActive")
        );
        let replace = with("Replace");
        assert_eq!((replace.create.is_some(), replace.replace.len()), (true, 1));
        assert_eq!(
            with("Allow").status["lastScheduleTime"],
            "2026-03-01T10:01:00Z"
        );
    }

    #[test]
    fn what_was_missed_runs_once_unless_it_is_too_late() {
        let missed = plan(&cron(&json!({})), &[], at(3600 * 5));
        assert_eq!(missed.news[0].reason, "TooManyMissedTimes");
        assert_eq!(object::name(&missed.create.expect("one")), "tick-29539620");
        let hourly = cron(&json!({"schedule": "0 * * * *", "startingDeadlineSeconds": 60}));
        assert!(plan(&hourly, &[], at(3600 + 59)).create.is_some());
        assert_eq!(plan(&hourly, &[], at(3600 + 61)).create, None);
        assert_eq!(
            plan(&cron(&json!({"suspend": true})), &[], at(61)),
            Plan {
                status: json!({}),
                ..Plan::default()
            }
        );
        let wrong = plan(&cron(&json!({"timeZone": "Moon/Tycho"})), &[], at(61));
        assert_eq!(wrong.news[0].reason, "UnknownTimeZone");
    }

    #[test]
    fn ended_jobs_beyond_the_limits_are_forgotten_oldest_first() {
        let cron = cron(&json!({"successfulJobsHistoryLimit": 1}));
        let job = |uid: &str, ending: &str| {
            let mut job = made(json!({"metadata": {"name": uid}}), uid, Some(ending));
            job["metadata"]["annotations"] = json!({SCHEDULED: "2026-03-01T10:00:00Z"});
            job
        };
        let jobs = [
            job("12", "Complete"),
            job("11", "Complete"),
            job("13", "Failed"),
        ];
        let plan = plan(&cron, &jobs, at(10));
        let names: Vec<_> = plan.forget.iter().map(object::name).collect();
        assert_eq!(names, ["11"]);
    }
}
