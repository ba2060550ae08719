//! What one pod is behind a Service. Pure.

use std::net::Ipv6Addr;

use serde_json::{Value, json};

use crate::controllers::workloads::victims::is_ready;
use crate::object;

/// The endpoint that a pod is; `None` if it has ended or has no address yet.
pub(in crate::controllers) fn endpoint(service: &Value, pod: &Value) -> Option<Value> {
    let phase = object::text(pod, &["status", "phase"]);
    let addresses = addresses(pod);
    if matches!(phase, "Succeeded" | "Failed") || addresses.is_empty() {
        return None;
    }
    let serving = is_ready(pod);
    let terminating = object::is_terminating(pod);
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": {
            "ready": publish || serving && !terminating,
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": object::namespace(pod),
            "name": object::name(pod),
            "uid": object::uid(pod),
        },
    });
    let spec = |field: &str| object::text(pod, &["spec", field]);
    if !spec("nodeName").is_empty() {
        endpoint["nodeName"] = spec("nodeName").into();
    }
    if !spec("hostname").is_empty() && spec("subdomain") == object::name(service) {
        endpoint["hostname"] = spec("hostname").into();
    }
    Some(endpoint)
}

fn addresses(pod: &Value) -> Vec<String> {
    let all = object::items(pod, &["status", "podIPs"]).iter();
    let all = all.map(|one| object::text(one, &["ip"]));
    let ours = all.filter(|text| text.parse::<Ipv6Addr>().is_ok());
    ours.map(str::to_owned).collect()
}

/// The ports of the Service, as numbers of this pod. A name that none of its containers has is
/// left out.
pub(in crate::controllers) fn ports(service: &Value, pod: &Value) -> Value {
    let wanted = object::items(service, &["spec", "ports"]).iter();
    let found = wanted.filter_map(|port| {
        let protocol = object::text(port, &["protocol"]);
        let number = match &port["targetPort"] {
            Value::String(name) => named(pod, name, protocol)?,
            number => number.as_u64()?,
        };
        let mut found = json!({"name": object::text(port, &["name"]), "port": number,
            "protocol": protocol});
        if let Some(hint) = port.get("appProtocol") {
            found["appProtocol"] = hint.clone();
        }
        Some(found)
    });
    found.collect()
}

fn named(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    let mains = object::items(pod, &["spec", "containers"]).iter();
    let sidecars = object::items(pod, &["spec", "initContainers"]).iter();
    let sidecars = sidecars.filter(|one| one["restartPolicy"] == "Always");
    let mut ports = mains
        .chain(sidecars)
        .flat_map(|container| object::items(container, &["ports"]));
    let is_it =
        |port: &&Value| port["name"] == name && object::text(port, &["protocol"]) == protocol;
    ports.find(is_it)?["containerPort"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "web-0", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "fra", "hostname": "web-0", "subdomain": "web",
                "containers": [{"ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "fdaa::5"}],
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn a_pod_is_an_endpoint_as_upstream_has_it() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "b", "port": 81, "targetPort": "none", "protocol": "TCP"}]}});
        let expected = json!({"addresses": ["fdaa::5"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "n", "name": "web-0", "uid": "u"},
            "nodeName": "fra", "hostname": "web-0"});
        assert_eq!(endpoint(&service, &pod()), Some(expected));
        let expected = json!([{"name": "a", "port": 8080, "protocol": "TCP"}]);
        assert_eq!(ports(&service, &pod()), expected);
    }

    #[test]
    fn a_pod_that_goes_serves_and_is_not_ready_unless_that_is_wanted() {
        let conditions = |service: &Value, pod: &Value| {
            let found = endpoint(service, pod).unwrap();
            ["ready", "serving", "terminating"].map(|c| found["conditions"][c] == true)
        };
        let mut going = pod();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(conditions(&json!({}), &going), [false, true, true]);
        let publishing = json!({"spec": {"publishNotReadyAddresses": true}});
        assert_eq!(conditions(&publishing, &going), [true, true, true]);
        let mut ended = pod();
        ended["status"]["phase"] = "Succeeded".into();
        assert_eq!(endpoint(&publishing, &ended), None);
    }
}
