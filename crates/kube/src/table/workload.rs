//! Rows of Deployments and ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, created_ago};
use crate::label_selector;
use crate::object;

pub(super) const DEPLOYMENT: &[Column] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Up-to-date", "string", 0),
    ("Available", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) const REPLICA_SET: &[Column] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

fn number(object: &Value, path: &[&str]) -> i64 {
    object::at(object, path)
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

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

/// Containers, their images, and the selector.
fn wide(workload: &Value) -> [Value; 3] {
    let containers = object::items(workload, &["spec", "template", "spec", "containers"]);
    let of = |field: &str| {
        let texts = containers.iter().map(|one| object::text(one, &[field]));
        json!(texts.collect::<Vec<_>>().join(","))
    };
    let selector = label_selector::format(&workload["spec"]["selector"]);
    [of("name"), of("image"), json!(selector)]
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
