//! Defaults of Services and EndpointSlices. The only family of addresses is IPv6.

use serde_json::{Value, json};

use crate::object::{self, default, map_mut};

pub(super) fn service(object: &mut Value) {
    let spec = map_mut(object, "spec");
    // What a Go client could not tell from "not set".
    spec.retain(|_, value| value != "");
    for (field, value) in [
        ("type", json!("ClusterIP")),
        ("sessionAffinity", json!("None")),
        ("internalTrafficPolicy", json!("Cluster")),
        ("ipFamilies", json!(["IPv6"])),
        ("ipFamilyPolicy", json!("SingleStack")),
    ] {
        default(spec, field, value);
    }
    if let Some(address) = spec.get("clusterIP").cloned() {
        default(spec, "clusterIPs", json!([address]));
    }
    for port in ports(spec.get_mut("ports")) {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        default(port, "protocol", "TCP");
        if matches!(port.get("targetPort"), None | Some(Value::Null))
            || port["targetPort"] == 0
            || port["targetPort"] == ""
        {
            let same = port.get("port").cloned().unwrap_or_default();
            port.insert("targetPort".into(), same);
        }
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in ports(object.get_mut("ports")) {
        if let Some(port) = port.as_object_mut() {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        }
    }
}

fn ports(value: Option<&mut Value>) -> &mut [Value] {
    match value.and_then(Value::as_array_mut) {
        Some(ports) => ports,
        None => &mut [],
    }
}

/// A Service keeps the address that it was given: clients that leave it out mean the same one.
pub(crate) fn keep_addresses(old: &Value, new: &mut Value) {
    let had = old["spec"].get("clusterIPs").cloned();
    let new = map_mut(new, "spec");
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
