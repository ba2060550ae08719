//! The rules of Services. What the proxy does not build yet is stored, and the API warns of it.

use std::collections::HashSet;

use serde_json::{Value, json};
use types::service::SERVICE_PORTS_MAX;

use super::names;
use crate::object;
use crate::status::Cause;

/// What upstream says about a port number.
pub(super) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

pub(super) fn service(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes: Vec<_> = kind(spec).into_iter().collect();
    let ports = object::items(spec, &["ports"]);
    let is_external = spec["type"] == "ExternalName";
    if ports.is_empty() && !is_headless(spec) && !is_external {
        causes.push(Cause::required("spec.ports", ""));
    }
    if ports.len() > SERVICE_PORTS_MAX {
        let why = format!("must have at most {SERVICE_PORTS_MAX} items");
        causes.push(Cause::invalid("spec.ports", &json!(ports.len()), &why));
    }
    causes.extend(all_ports(spec, ports));
    causes.extend(selector(spec));
    causes.extend(by_type(spec));
    if !is_external {
        causes.extend(families(spec));
        causes.extend(addresses(spec));
    }
    causes.extend(choices(spec));
    causes
}

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None"
}

fn kind(spec: &Value) -> Option<Cause> {
    let all = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = object::text(spec, &["type"]);
    (!all.contains(&kind)).then(|| Cause::not_supported("spec.type", &json!(kind), &all))
}

fn all_ports(spec: &Value, ports: &[Value]) -> Vec<Cause> {
    let has_node_ports = matches!(object::text(spec, &["type"]), "NodePort" | "LoadBalancer");
    let mut causes = Vec::new();
    let (mut seen_names, mut seen) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        let name = object::text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if let Some(why) = names::label_fault(name).filter(|_| !name.is_empty()) {
            causes.push(Cause::invalid(format!("{at}.name"), &port["name"], why));
        } else if !name.is_empty() && !seen_names.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &port["name"]));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let field = format!("{at}.port");
            causes.push(Cause::invalid(field, &json!(number), PORT_RANGE));
        }
        let protocol = object::text(port, &["protocol"]);
        causes.extend(self::protocol(&at, protocol));
        if !seen.insert((number, protocol)) {
            let same = json!({"port": number, "protocol": protocol});
            causes.push(Cause::duplicate(at.clone(), &same));
        }
        causes.extend(target(&at, &port["targetPort"]));
        if !has_node_ports && port["nodePort"].as_i64().is_some_and(|port| port != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            causes.push(Cause::forbidden(format!("{at}.nodePort"), why));
        }
    }
    causes
}

fn protocol(at: &str, protocol: &str) -> Option<Cause> {
    let all = ["SCTP", "TCP", "UDP"];
    let field = format!("{at}.protocol");
    (!all.contains(&protocol)).then(|| Cause::not_supported(field, &json!(protocol), &all))
}

fn target(at: &str, target: &Value) -> Option<Cause> {
    let field = format!("{at}.targetPort");
    match target {
        Value::String(name) => {
            let why = names::port_name_fault(name)?;
            Some(Cause::invalid(field, target, why))
        }
        _ if (1..=65535).contains(&target.as_i64().unwrap_or(0)) => None,
        _ => Some(Cause::invalid(field, target, PORT_RANGE)),
    }
}

fn selector(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in spec["selector"].as_object().into_iter().flatten() {
        if let Some(why) = names::qualified_fault(key) {
            causes.push(Cause::invalid("spec.selector", &json!(key), &why));
        }
        let text = value.as_str().unwrap_or_default();
        if let Some(why) = names::label_value_fault(text) {
            causes.push(Cause::invalid("spec.selector", value, &why));
        }
    }
    causes
}

/// One family, IPv6: upstream's words for a cluster that has just one.
fn families(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, family) in object::items(spec, &["ipFamilies"]).iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        match family.as_str() {
            Some("IPv6") if index == 0 => {}
            Some("IPv6") => causes.push(Cause::duplicate(field, family)),
            Some("IPv4") => {
                let why = "not configured on this cluster";
                causes.push(Cause::invalid(field, family, why));
            }
            Some(_) | None => {
                causes.push(Cause::not_supported(field, family, &["IPv4", "IPv6"]));
            }
        }
    }
    let field = "spec.ipFamilyPolicy";
    match object::text(spec, &["ipFamilyPolicy"]) {
        "SingleStack" | "PreferDualStack" => {}
        "RequireDualStack" => {
            let why = "this cluster is not configured for dual-stack services";
            causes.push(Cause::invalid(field, &spec["ipFamilyPolicy"], why));
        }
        _ => {
            let all = ["SingleStack", "PreferDualStack", "RequireDualStack"];
            causes.push(Cause::not_supported(field, &spec["ipFamilyPolicy"], &all));
        }
    }
    causes
}

fn addresses(spec: &Value) -> Vec<Cause> {
    let field = "spec.clusterIPs";
    let all = object::items(spec, &["clusterIPs"]);
    let one = object::text(spec, &["clusterIP"]);
    let first = all.first().and_then(Value::as_str).unwrap_or_default();
    if first != one {
        let why = "first value must match `clusterIP`";
        return vec![Cause::invalid(field, &json!(all), why)];
    }
    if all.len() > 1 {
        let why = "may only hold one value on a cluster with one family of addresses";
        return vec![Cause::invalid(field, &json!(all), why)];
    }
    if !matches!(one, "" | "None") && one.parse::<std::net::Ipv6Addr>().is_err() {
        let why = "must be a valid IPv6 address or 'None'";
        return vec![Cause::invalid("spec.clusterIPs[0]", &json!(one), why)];
    }
    Vec::new()
}

/// What goes with one type and not with another.
fn by_type(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(spec, &["type"]);
    let has = |field: &str| spec.get(field).is_some();
    if kind == "ExternalName" {
        let name = object::text(spec, &["externalName"]).trim_end_matches('.');
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(why) = names::subdomain_fault(name) {
            causes.push(Cause::invalid("spec.externalName", &json!(name), why));
        }
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if has(field) {
                let why = "may not be set for ExternalName services";
                causes.push(Cause::forbidden(format!("spec.{field}"), why));
            }
        }
    }
    if is_headless(spec) && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), &why));
    }
    for (field, only) in [
        ("loadBalancerClass", "LoadBalancer"),
        ("allocateLoadBalancerNodePorts", "LoadBalancer"),
        ("loadBalancerSourceRanges", "LoadBalancer"),
    ] {
        if has(field) && kind != only {
            let why = format!("may only be used when `type` is '{only}'");
            causes.push(Cause::forbidden(format!("spec.{field}"), &why));
        }
    }
    let is_public = matches!(kind, "NodePort" | "LoadBalancer")
        || !object::items(spec, &["externalIPs"]).is_empty();
    if has("externalTrafficPolicy") && !is_public {
        let why = "may only be set for externally-accessible services";
        let value = &spec["externalTrafficPolicy"];
        causes.push(Cause::invalid("spec.externalTrafficPolicy", value, why));
    }
    causes
}

fn choices(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (field, all) in [
        ("sessionAffinity", ["ClientIP", "None"]),
        ("internalTrafficPolicy", ["Cluster", "Local"]),
        ("externalTrafficPolicy", ["Cluster", "Local"]),
    ] {
        let Some(value) = spec.get(field) else {
            continue;
        };
        if !value.as_str().is_some_and(|value| all.contains(&value)) {
            causes.push(Cause::not_supported(format!("spec.{field}"), value, &all));
        }
    }
    for (index, address) in object::items(spec, &["externalIPs"]).iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        if text.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            let field = format!("spec.externalIPs[{index}]");
            causes.push(Cause::invalid(field, address, why));
        }
    }
    causes
}

/// A new Service does not choose its address: addresses come from the directory.
pub(super) fn chosen_address(object: &Value) -> Option<Cause> {
    let all = &object["spec"]["clusterIPs"];
    let one = object::text(object, &["spec", "clusterIP"]);
    if matches!(one, "" | "None") {
        return None;
    }
    let why = format!(
        "failed to allocate IP {one}: an address cannot be chosen here; leave out clusterIP and \
         clusterIPs"
    );
    Some(Cause::invalid("spec.clusterIPs", all, &why))
}

pub(super) fn address_change(old: &Value, new: &Value) -> Option<Cause> {
    let is_external = |service: &Value| service["spec"]["type"] == "ExternalName";
    if is_external(old) || is_external(new) {
        return None;
    }
    let (old, new) = (&old["spec"]["clusterIPs"], &new["spec"]["clusterIPs"]);
    (!old.is_null() && old != new)
        .then(|| Cause::invalid("spec.clusterIPs[0]", new, "may not change once set"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use crate::resource::SERVICES;

    fn sample() -> Value {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"app": "web"}, "ports": [{"port": 80}]}});
        crate::defaults::on_create(&SERVICES, &mut object);
        object
    }

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = sample();
        change(&mut object["spec"]);
        crate::defaults::complete(&SERVICES, &mut object);
        let causes = super::super::on_create(&SERVICES, &object).into_iter();
        causes
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn a_good_service_passes_and_each_mistake_is_told_where_it_is() {
        assert_eq!(faults(|_| {}), [""; 0]);
        assert_eq!(
            faults(|s| s["ports"] = json!([])),
            ["spec.ports: Required value"]
        );
        let headless = |s: &mut Value| {
            s["ports"] = json!([]);
            s["clusterIP"] = "None".into();
        };
        assert_eq!(faults(headless), [""; 0]);
        let found = faults(|s| s["ports"] = json!([{"port": 0, "targetPort": 70000}]));
        let expected = [
            format!("spec.ports[0].port: Invalid value: 0: {PORT_RANGE}"),
            format!("spec.ports[0].targetPort: Invalid value: 70000: {PORT_RANGE}"),
        ];
        assert_eq!(found, expected);
        let found = faults(|s| s["ports"] = json!([{"port": 1, "name": "a"}, {"port": 2}]));
        assert_eq!(found, ["spec.ports[1].name: Required value"]);
        let twice = json!([{"port": 1, "name": "a"}, {"port": 1, "name": "a"}]);
        let found = faults(|s| s["ports"] = twice);
        assert_eq!(found[0], r#"spec.ports[1].name: Duplicate value: "a""#);
        assert!(
            found[1].starts_with("spec.ports[1]: Duplicate value: {"),
            "{found:?}"
        );
    }

    #[test]
    fn every_type_has_its_own_fields() {
        assert_eq!(faults(|s| s["type"] = "NodePort".into()), [""; 0]);
        assert_eq!(faults(|s| s["type"] = "LoadBalancer".into()), [""; 0]);
        let found = faults(|s| *s = json!({"type": "ExternalName"}));
        assert_eq!(found, ["spec.externalName: Required value"]);
        let found = faults(|s| s["type"] = "Other".into());
        assert!(
            found[0].starts_with("spec.type: Unsupported value"),
            "{found:?}"
        );
        let found = faults(|s| s["ports"][0]["nodePort"] = json!(30_000));
        let why = "Forbidden: may not be used when `type` is 'ClusterIP'";
        assert_eq!(found, [format!("spec.ports[0].nodePort: {why}")]);
        let found = faults(|s| s["ports"][0]["protocol"] = "ICMP".into());
        assert!(found[0].contains("supported values: \"SCTP\", \"TCP\", \"UDP\""));
        let found = faults(|s| s["ipFamilies"] = json!(["IPv4"]));
        assert!(
            found[0].ends_with("not configured on this cluster"),
            "{found:?}"
        );
        let found = faults(|s| s["clusterIP"] = "fdaa::9".into());
        assert!(
            found[0].contains("failed to allocate IP fdaa::9"),
            "{found:?}"
        );
    }

    #[test]
    fn an_address_stays() {
        let mut old = sample();
        old["spec"]["clusterIP"] = "fdaa::1".into();
        old["spec"]["clusterIPs"] = json!(["fdaa::1"]);
        let mut new = old.clone();
        let check = |new: &Value| super::super::on_update(&SERVICES, Part::Object, &old, new);
        assert_eq!(check(&new), []);
        new["spec"]["clusterIP"] = "None".into();
        new["spec"]["clusterIPs"] = json!(["None"]);
        let causes = check(&new);
        assert_eq!(causes[0].field, "spec.clusterIPs[0]");
        assert!(causes[0].message.ends_with("may not change once set"));
    }
}
