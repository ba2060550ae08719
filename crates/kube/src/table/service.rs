//! Rows of Services and EndpointSlices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, created_ago};
use crate::label_selector;
use crate::object;

pub(super) const SERVICE: &[Column] = &[
    ("Name", "string", 0),
    ("Type", "string", 0),
    ("Cluster-IP", "string", 0),
    ("External-IP", "string", 0),
    ("Port(s)", "string", 0),
    ("Age", "string", 0),
    ("Selector", "string", 1),
];

pub(super) const ENDPOINT_SLICE: &[Column] = &[
    ("Name", "string", 0),
    ("AddressType", "string", 0),
    ("Ports", "string", 0),
    ("Endpoints", "string", 0),
    ("Age", "string", 0),
];

/// Ports or addresses of a slice that are shown.
const SHOWN_MAX: usize = 3;

fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".into()
    } else {
        text
    }
}

pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let address = object::items(spec, &["clusterIPs"]).first();
    let address = address.and_then(Value::as_str).unwrap_or_default();
    let ports = object::items(spec, &["ports"]).iter();
    let ports = ports.map(|port| format!("{}/{}", port["port"], object::text(port, &["protocol"])));
    let ports = ports.collect::<Vec<_>>().join(",");
    let selector = label_selector::format(&json!({"matchLabels": spec["selector"]}));
    vec![
        json!(object::name(service)),
        json!(object::text(spec, &["type"])),
        json!(or_none(address.to_owned())),
        json!("<none>"),
        json!(or_none(ports)),
        json!(created_ago(service, now)),
        json!(or_none(selector)),
    ]
}

pub(super) fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = object::items(slice, &["ports"]).iter();
    let ports = ports.map(|port| match port["port"].as_u64() {
        Some(number) => number.to_string(),
        None => match object::text(port, &["name"]) {
            "" => "*".to_owned(),
            name => name.to_owned(),
        },
    });
    let endpoints = object::items(slice, &["endpoints"]).iter();
    let addresses = endpoints.flat_map(|endpoint| object::items(endpoint, &["addresses"]));
    let addresses = addresses.filter_map(Value::as_str).map(str::to_owned);
    vec![
        json!(object::name(slice)),
        json!(object::text(slice, &["addressType"])),
        json!(first(ports.collect())),
        json!(first(addresses.collect())),
        json!(created_ago(slice, now)),
    ]
}

fn first(all: Vec<String>) -> String {
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>();
    match all.len() {
        0 => "<unset>".into(),
        count if count > SHOWN_MAX => {
            format!("{} + {} more...", shown.join(","), count - SHOWN_MAX)
        }
        _ => shown.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_tells_where_it_is() {
        let cells = service(
            &json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"type": "ClusterIP", "clusterIPs": ["fdaa::1"], "selector": {"app": "w"},
                    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}}),
            Timestamp::from_second(30).expect("a time"),
        );
        let expected = json!([
            "web",
            "ClusterIP",
            "fdaa::1",
            "<none>",
            "80/TCP,81/TCP",
            "30s",
            "app=w"
        ]);
        assert_eq!(Value::from(cells), expected);
    }

    #[test]
    fn a_slice_shows_three_and_counts_the_rest() {
        let endpoints: Vec<_> = (0..5)
            .map(|n| json!({"addresses": [format!("fdaa::{n}")]}))
            .collect();
        let cells = endpoint_slice(
            &json!({"metadata": {"name": "web-1"}, "addressType": "IPv6", "ports": [{"port": 80}],
                "endpoints": endpoints}),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(cells[2], "80");
        assert_eq!(cells[3], "fdaa::0,fdaa::1,fdaa::2 + 2 more...");
        let empty = endpoint_slice(&json!({"metadata": {}}), Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&empty[2], &empty[3]),
            (&json!("<unset>"), &json!("<unset>"))
        );
    }
}
