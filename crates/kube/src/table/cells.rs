//! Rows of events and nodes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::created_ago;
use crate::object;
use crate::time;

fn or(text: &str, empty: &str) -> String {
    if text.is_empty() {
        empty.to_owned()
    } else {
        text.to_owned()
    }
}

pub(super) fn component(object: &Value) -> Vec<Value> {
    let condition = &object["conditions"][0];
    let status = if condition["status"] == "True" {
        "Healthy"
    } else {
        "Unhealthy"
    };
    vec![
        json!(object::name(object)),
        json!(status),
        condition["message"].clone(),
        json!(""),
    ]
}

pub(super) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let at = |field: &str| time::parse(object::text(event, &[field]));
    let series = time::parse(object::text(event, &["series", "lastObservedTime"]));
    let first = at("firstTimestamp").or_else(|| at("eventTime"));
    let last = series.or_else(|| at("lastTimestamp")).or(first);
    let about = |field: &str| object::text(event, &["involvedObject", field]);
    let target = format!("{}/{}", about("kind").to_lowercase(), about("name"));
    let component = object::text(event, &["source", "component"]);
    let component = if component.is_empty() {
        object::text(event, &["reportingComponent"])
    } else {
        component
    };
    let host = object::text(event, &["source", "host"]);
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    let count = event["series"]["count"]
        .as_i64()
        .or(event["count"].as_i64())
        .unwrap_or(0)
        .max(1);
    vec![
        json!(time::age(last, now)),
        json!(object::text(event, &["type"])),
        json!(object::text(event, &["reason"])),
        json!(target),
        json!(about("fieldPath")),
        json!(source),
        json!(object::text(event, &["message"]).trim()),
        json!(time::age(first, now)),
        json!(count),
        json!(object::name(event)),
    ]
}

pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = object::items(node, &["status", "conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| object::text(condition, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status += ",SchedulingDisabled";
    }
    let address = |kind: &str| {
        let addresses = object::items(node, &["status", "addresses"]);
        let found = addresses.iter().find(|address| address["type"] == kind);
        or(
            found.map_or("", |address| object::text(address, &["address"])),
            "<none>",
        )
    };
    let info = |field: &str| object::text(node, &["status", "nodeInfo", field]);
    vec![
        json!(object::name(node)),
        json!(status),
        json!(or(&roles(node).join(","), "<none>")),
        json!(created_ago(node, now)),
        json!(info("kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(or(info("osImage"), "<unknown>")),
        json!(or(info("kernelVersion"), "<unknown>")),
        json!(or(info("containerRuntimeVersion"), "<unknown>")),
    ]
}

fn roles(node: &Value) -> Vec<String> {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role.to_owned()),
                Some(_) => None,
                None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
                None => None,
            },
        )
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_what_happened_to_what() {
        let cells = event(
            &json!({
                "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Started",
                "message": "Started container\n", "count": 3,
                "involvedObject": {"kind": "Pod", "name": "web"}, "source": {"component": "fra"},
                "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:01:00Z",
            }),
            Timestamp::from_second(90).expect("a time"),
        );
        let expected = json!([
            "30s",
            "Normal",
            "Started",
            "pod/web",
            "",
            "fra",
            "Started container",
            "90s",
            3,
            "web.1"
        ]);
        assert_eq!(Value::from(cells), expected);
    }

    #[test]
    fn a_cordoned_node_says_so() {
        let cells = node(
            &json!({
                "metadata": {"name": "fra", "labels": {"kubernetes.io/role": "agent"}},
                "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (&cells[1], &cells[2]),
            (&json!("Ready,SchedulingDisabled"), &json!("agent"))
        );
    }
}
