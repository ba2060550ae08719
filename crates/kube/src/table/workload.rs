//! Rows of what makes pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{count, created_ago, labels, number, selector, text_or};
use crate::object;
use crate::time;

pub(super) fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field: &str| number(deployment, &["status", field]);
    let wanted = number(deployment, &["spec", "replicas"]);
    let mut cells = vec![
        json!(object::name(deployment)),
        json!(format!("{}/{wanted}", status("readyReplicas"))),
        json!(status("updatedReplicas")),
        json!(status("availableReplicas")),
        json!(created_ago(deployment, now)),
    ];
    cells.extend(wide(deployment));
    cells
}

pub(super) fn replica_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        json!(object::name(set)),
        json!(number(set, &["spec", "replicas"])),
        json!(number(set, &["status", "replicas"])),
        json!(number(set, &["status", "readyReplicas"])),
        json!(created_ago(set, now)),
    ];
    cells.extend(wide(set));
    cells
}

pub(super) fn stateful_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let ready = number(set, &["status", "readyReplicas"]);
    let [names, images, _] = wide(set);
    vec![
        json!(object::name(set)),
        json!(format!("{ready}/{}", number(set, &["spec", "replicas"]))),
        json!(created_ago(set, now)),
        names,
        images,
    ]
}

pub(super) fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![json!(object::name(set))];
    for field in [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ] {
        cells.push(json!(number(set, &["status", field])));
    }
    cells.push(labels(&set["spec"]["template"]["spec"]["nodeSelector"]));
    cells.push(json!(created_ago(set, now)));
    cells.extend(wide(set));
    cells
}

pub(super) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = number(job, &["status", "succeeded"]);
    let completions = match (
        job["spec"]["completions"].as_i64(),
        number(job, &["spec", "parallelism"]),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, many @ 2..) => format!("{succeeded}/1 of {many}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let at = |field: &str| time::parse(object::text(job, &["status", field]));
    let took = at("startTime").map(|start| {
        let end = at("completionTime").unwrap_or(now);
        time::human(end.duration_since(start))
    });
    let mut cells = vec![
        json!(object::name(job)),
        json!(job_status(job)),
        json!(completions),
        json!(took.unwrap_or_default()),
        json!(created_ago(job, now)),
    ];
    cells.extend(wide(job));
    cells
}

fn job_status(job: &Value) -> &'static str {
    let conditions = object::items(job, &["status", "conditions"]);
    let has = |kind: &str| {
        let mut conditions = conditions.iter();
        conditions.any(|one| one["type"] == kind && one["status"] == "True")
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if object::is_terminating(job) => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(super) fn cron_job(job: &Value, now: Timestamp) -> Vec<Value> {
    let last = object::text(job, &["status", "lastScheduleTime"]);
    let last = match time::parse(last) {
        Some(last) => time::age(Some(last), now),
        None => "<none>".to_owned(),
    };
    let suspend = match job["spec"]["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let mut cells = vec![
        json!(object::name(job)),
        job["spec"]["schedule"].clone(),
        text_or(job, &["spec", "timeZone"], "<none>"),
        json!(suspend),
        json!(count(&job["status"]["active"])),
        json!(last),
        json!(created_ago(job, now)),
    ];
    cells.extend(wide(&job["spec"]["jobTemplate"]));
    cells
}

pub(super) fn pod_template(template: &Value) -> Vec<Value> {
    let [names, images] = containers(&template["template"]);
    let labels = labels(&template["template"]["metadata"]["labels"]);
    vec![json!(object::name(template)), names, images, labels]
}

pub(super) fn revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let mut owners = object::items(revision, &["metadata", "ownerReferences"]).iter();
    let controller = owners
        .find(|owner| owner["controller"] == true)
        .map(|owner| {
            let (kind, name) = (
                object::text(owner, &["kind"]),
                object::text(owner, &["name"]),
            );
            let group = object::text(owner, &["apiVersion"]).split_once('/');
            match group {
                Some((group, _)) => format!("{}.{group}/{name}", kind.to_lowercase()),
                None => format!("{}/{name}", kind.to_lowercase()),
            }
        });
    vec![
        json!(object::name(revision)),
        json!(controller.unwrap_or_else(|| "<none>".to_owned())),
        json!(number(revision, &["revision"])),
        json!(created_ago(revision, now)),
    ]
}

/// Names of the containers of a template, and their images.
fn containers(template: &Value) -> [Value; 2] {
    let containers = object::items(template, &["spec", "containers"]);
    ["name", "image"].map(|field| {
        let texts = containers.iter().map(|one| object::text(one, &[field]));
        json!(texts.collect::<Vec<_>>().join(","))
    })
}

/// Containers, their images, and the selector.
fn wide(workload: &Value) -> [Value; 3] {
    let [names, images] = containers(&workload["spec"]["template"]);
    let own = &workload["spec"]["selector"];
    // That of a ReplicationController is labels only.
    let selector = if own.get("matchLabels").is_some() || own.get("matchExpressions").is_some() {
        selector(own)
    } else {
        labels(own)
    };
    [names, images, selector]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_tells_how_far_it_is() {
        let cells = deployment(
            &json!({
                "metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                    "template": {"spec": {"containers": [
                        {"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            }),
            Timestamp::from_second(30).expect("a time"),
        );
        let expected = json!(["web", "1/3", 2, 1, "30s", "a,b", "x:1,y:2", "app=web"]);
        assert_eq!(Value::from(cells), expected);
    }
}
