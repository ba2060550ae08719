//! The rules of EndpointSlices.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::names;
use super::service::PORT_RANGE;
use crate::object;
use crate::status::Cause;

/// Upstream's limits.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;
const ADDRESSES_MAX: usize = 100;

pub(super) fn endpoint_slice(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(object, &["addressType"]);
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !matches!(kind, "FQDN" | "IPv4" | "IPv6") {
        let all = ["FQDN", "IPv4", "IPv6"];
        causes.push(Cause::not_supported("addressType", &json!(kind), &all));
    }
    let endpoints = object::items(object, &["endpoints"]);
    causes.extend(too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
    for (index, endpoint) in endpoints.iter().enumerate() {
        causes.extend(one_endpoint(&format!("endpoints[{index}]"), kind, endpoint));
    }
    let ports = object::items(object, &["ports"]);
    causes.extend(too_many("ports", ports.len(), PORTS_MAX));
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        let name = object::text(port, &["name"]);
        if !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &port["name"]));
        }
        if let Some(why) = names::label_fault(name).filter(|_| !name.is_empty()) {
            causes.push(Cause::invalid(format!("{at}.name"), &port["name"], why));
        }
        let number = port.get("port").and_then(Value::as_i64);
        if number.is_some_and(|number| !(1..=65535).contains(&number)) {
            causes.push(Cause::invalid(
                format!("{at}.port"),
                &port["port"],
                PORT_RANGE,
            ));
        }
        let protocol = object::text(port, &["protocol"]);
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            let (field, all) = (format!("{at}.protocol"), ["SCTP", "TCP", "UDP"]);
            causes.push(Cause::not_supported(field, &port["protocol"], &all));
        }
    }
    causes
}

fn too_many(field: &str, count: usize, max: usize) -> Option<Cause> {
    let why = format!("must have at most {max} items");
    (count > max).then(|| Cause::invalid(field, &json!(count), &why))
}

fn one_endpoint(at: &str, kind: &str, endpoint: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let addresses = object::items(endpoint, &["addresses"]);
    let field = format!("{at}.addresses");
    if addresses.is_empty() {
        causes.push(Cause::required(
            field.clone(),
            "must contain at least 1 address",
        ));
    }
    causes.extend(too_many(&field, addresses.len(), ADDRESSES_MAX));
    for (index, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        let why = match kind {
            "IPv4" if text.parse::<Ipv4Addr>().is_err() => "must be a valid IPv4 address",
            "IPv6" => match text.parse::<Ipv6Addr>() {
                Err(_) => "must be a valid IPv6 address",
                Ok(address) if address.is_unspecified() => "may not be unspecified (::)",
                Ok(address) if address.is_loopback() => {
                    "may not be in the loopback range (::1/128)"
                }
                Ok(_) => continue,
            },
            "FQDN" if names::subdomain_fault(text).is_some() => "must be a fully qualified name",
            _ => continue,
        };
        causes.push(Cause::invalid(format!("{field}[{index}]"), address, why));
    }
    let hostname = object::text(endpoint, &["hostname"]);
    if let Some(why) = names::label_fault(hostname).filter(|_| !hostname.is_empty()) {
        causes.push(Cause::invalid(
            format!("{at}.hostname"),
            &json!(hostname),
            why,
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_slice_passes_and_each_mistake_is_told_where_it_is() {
        let good = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fdaa::1"]}],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}]});
        assert_eq!(endpoint_slice(&good), []);
        let wrong = json!({"addressType": "IPv6",
            "endpoints": [{"addresses": ["10.0.0.1", "::1"]}, {"addresses": []}],
            "ports": [{"name": "", "port": 0, "protocol": "TCP"},
                {"name": "", "protocol": "ICMP"}]});
        let fields: Vec<_> = endpoint_slice(&wrong)
            .into_iter()
            .map(|c| c.field)
            .collect();
        let expected = [
            "endpoints[0].addresses[0]",
            "endpoints[0].addresses[1]",
            "endpoints[1].addresses",
            "ports[0].port",
            "ports[1].name",
            "ports[1].protocol",
        ];
        assert_eq!(fields, expected);
    }
}
