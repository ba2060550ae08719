//! Defaults of Services and EndpointSlices. The only family of addresses is IPv6.

use serde_json::{Map, Value, json};

use crate::object::{self, default, inner, map_mut, maps};

pub(super) fn service(object: &mut Value) {
    let spec = map_mut(object, "spec");
    // What a Go client could not tell from "not set".
    spec.retain(|_, value| value != "");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    session_affinity(spec);
    for port in maps(spec.get_mut("ports")) {
        complete_port(port);
    }
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let is_public = matches!(kind, "NodePort" | "LoadBalancer");
    let is_balanced = kind == "LoadBalancer";
    if kind == "ExternalName" {
        return;
    }
    default(spec, "internalTrafficPolicy", "Cluster");
    default(spec, "ipFamilies", json!(["IPv6"]));
    default(spec, "ipFamilyPolicy", "SingleStack");
    let has_external = spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|all| !all.is_empty());
    if is_public || has_external {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if is_balanced {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(address) = spec.get("clusterIP").cloned() {
        default(spec, "clusterIPs", json!([address]));
    }
}

fn session_affinity(spec: &mut Map<String, Value>) {
    const TIMEOUT_S: u32 = 3 * 60 * 60;
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => drop(spec.remove("sessionAffinityConfig")),
        Some("ClientIP") => {
            let timeout = inner(spec, &["sessionAffinityConfig", "clientIP"]);
            if timeout.is_none_or(|client| !client.contains_key("timeoutSeconds")) {
                let config = json!({"clientIP": {"timeoutSeconds": TIMEOUT_S}});
                spec.insert("sessionAffinityConfig".into(), config);
            }
        }
        Some(_) | None => {}
    }
}

fn complete_port(port: &mut Map<String, Value>) {
    default(port, "protocol", "TCP");
    let target = port.get("targetPort");
    if target.is_none_or(|target| target.is_null() || target == 0 || target == "") {
        let same = port.get("port").cloned().unwrap_or_default();
        port.insert("targetPort".into(), same);
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for endpoint in maps(object.get_mut("endpoints")) {
        default(endpoint, "conditions", json!({}));
    }
    for port in maps(object.get_mut("ports")) {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

/// A Service keeps the address that it was given: clients that leave it out mean the same one.
pub(crate) fn keep_addresses(old: &Value, new: &mut Value) {
    let had = old["spec"].get("clusterIPs").cloned();
    let new = map_mut(new, "spec");
    if new.get("type").is_some_and(|kind| kind == "ExternalName") {
        // A client that changed the type did not mean what came with the old one.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if new.get(field) == old["spec"].get(field) {
                new.remove(field);
            }
        }
        return;
    }
    keep_node_ports(&old["spec"], new);
    let all = new.get("clusterIPs").cloned();
    let is_same = all.is_none() || all == had;
    let one = new.get("clusterIP").and_then(Value::as_str);
    match one.unwrap_or_default() {
        "" if is_same => {
            let old = object::text(old, &["spec", "clusterIP"]);
            if !old.is_empty() {
                new.insert("clusterIP".into(), old.into());
                new.insert("clusterIPs".into(), had.unwrap_or_else(|| json!([old])));
            }
        }
        "" => {}
        one if is_same => {
            let all = json!([one]);
            new.insert("clusterIPs".into(), all);
        }
        _ => {}
    }
}

/// A port that keeps its number keeps the one of the nodes; a type without them loses them.
fn keep_node_ports(old: &Value, new: &mut Map<String, Value>) {
    let has = |kind: Option<&Value>| {
        matches!(
            kind.and_then(Value::as_str),
            Some("NodePort" | "LoadBalancer")
        )
    };
    let (had, wants) = (has(old.get("type")), has(new.get("type")));
    if !had {
        return;
    }
    let old_ports = object::items(old, &["ports"]);
    for port in maps(new.get_mut("ports")) {
        let same = |one: &&Value| {
            let protocol = |value: Option<&Value>| {
                let text = value.and_then(Value::as_str);
                text.unwrap_or("TCP").to_owned()
            };
            one.get("port") == port.get("port")
                && protocol(one.get("protocol")) == protocol(port.get("protocol"))
        };
        let before = old_ports
            .iter()
            .find(same)
            .and_then(|one| one.get("nodePort"));
        match (wants, before) {
            (true, Some(before)) => default(port, "nodePort", before.clone()),
            (false, Some(before)) if port.get("nodePort") == Some(before) => {
                port.remove("nodePort");
            }
            (true | false, _) => {}
        }
    }
    if !wants {
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
            if new.get(field) == old.get(field) {
                new.remove(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_service_gets_what_a_real_server_gives_it() {
        let mut object = json!({"spec": {"ports": [{"port": 80}], "clusterIP": ""}});
        service(&mut object);
        let expected = json!({"spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        }});
        assert_eq!(object, expected);
        let mut headless = json!({"spec": {"clusterIP": "None"}});
        service(&mut headless);
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn an_update_without_an_address_keeps_it_and_one_with_another_shows() {
        let old = json!({"spec": {"clusterIP": "fd::1", "clusterIPs": ["fd::1"]}});
        let mut new = json!({"spec": {}});
        keep_addresses(&old, &mut new);
        assert_eq!(new, old);
        let mut new = json!({"spec": {"clusterIP": "fd::2", "clusterIPs": ["fd::1"]}});
        keep_addresses(&old, &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["fd::2"]));
    }
}
