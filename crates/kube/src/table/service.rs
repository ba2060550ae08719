//! Rows of Services, Endpoints and EndpointSlices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{created_ago, joined, labels, or};
use crate::object;

/// Ports or addresses of a slice that are shown.
const SHOWN_MAX: usize = 3;

pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let address = object::items(spec, &["clusterIPs"]).first();
    let address = address.and_then(Value::as_str).unwrap_or_default();
    let ports = object::items(spec, &["ports"]).iter().map(|port| {
        let protocol = object::text(port, &["protocol"]);
        match port["nodePort"].as_i64().filter(|port| *port > 0) {
            Some(node) => format!("{}:{node}/{protocol}", port["port"]),
            None => format!("{}/{protocol}", port["port"]),
        }
    });
    let ports = ports.collect::<Vec<_>>().join(",");
    vec![
        json!(object::name(service)),
        json!(object::text(spec, &["type"])),
        json!(or(address, "<none>")),
        json!(external(service)),
        json!(or(&ports, "<none>")),
        json!(created_ago(service, now)),
        labels(&spec["selector"]),
    ]
}

/// Where a Service is reached from outside.
fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let own = joined(&spec["externalIPs"], ",");
    match object::text(spec, &["type"]) {
        "ExternalName" => object::text(spec, &["externalName"]).to_owned(),
        "LoadBalancer" => {
            let balancer = balancer_addresses(service);
            let all: Vec<_> = [balancer, own]
                .into_iter()
                .filter(|one| !one.is_empty())
                .collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        _ => or(&own, "<none>").to_owned(),
    }
}

/// The addresses or names in `status.loadBalancer`.
pub(super) fn balancer_addresses(object: &Value) -> String {
    let ingress = object::items(object, &["status", "loadBalancer", "ingress"]).iter();
    let address = |one: &Value| {
        let (ip, hostname) = (object::text(one, &["ip"]), object::text(one, &["hostname"]));
        or(ip, hostname).to_owned()
    };
    let addresses: std::collections::BTreeSet<_> =
        ingress.map(address).filter(|one| !one.is_empty()).collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

pub(super) fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = object::items(endpoints, &["subsets"]);
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || {
            object::items(subset, &["addresses"])
                .iter()
                .filter_map(|one| one["ip"].as_str())
        };
        let ports = object::items(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|address| {
                if address.contains(':') {
                    format!("[{address}]:{}", port["port"])
                } else {
                    format!("{address}:{}", port["port"])
                }
            }));
        }
    }
    let shown = if subsets.is_empty() {
        "<none>".to_owned()
    } else if all.is_empty() {
        String::new()
    } else {
        first(all)
    };
    vec![
        json!(object::name(endpoints)),
        json!(shown),
        json!(created_ago(endpoints, now)),
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
