//! Service and EndpointSlices → what the service is to be: a pure function.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde_json::Value;
use types::service::{Backend, Protocol, SERVICE_BACKENDS_MAX, ServicePort, ServiceSpec, Target};

use crate::object;

/// The service that a Service is, with those of its slices that have IPv6 addresses.
pub(super) fn spec(service: &Value, slices: &[&Value]) -> ServiceSpec {
    let (namespace, name) = (object::namespace(service), object::name(service));
    let headless = service["spec"]["clusterIP"] == "None";
    let ports: Vec<_> = object::items(service, &["spec", "ports"])
        .iter()
        .filter_map(port)
        .collect();
    let mut backends = backends(&ports, slices, is_ready);
    if backends.is_empty() && !headless {
        // As kube-proxy: while all pods go and none has come, those that still serve do.
        backends = self::backends(&ports, slices, is_last_resort);
    }
    let backends = backends.into_values().take(SERVICE_BACKENDS_MAX);
    ServiceSpec {
        backends: backends.collect(),
        dns_names: vec![format!(
            "{name}.{}.svc.cluster.local",
            namespace.unwrap_or_default()
        )],
        headless,
        ports,
    }
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn port(port: &Value) -> Option<ServicePort> {
    let protocol = object::text(port, &["protocol"]);
    if !matches!(protocol, "TCP" | "") {
        return None;
    }
    Some(ServicePort {
        name: object::text(port, &["name"]).to_owned(),
        protocol: Protocol::Tcp,
        port: number(&port["port"])?,
        // A name is each backend's own number.
        target_port: number(&port["targetPort"]).unwrap_or(0),
    })
}

/// What is not said is true: manual slices may leave conditions out.
fn is_ready(endpoint: &Value) -> bool {
    endpoint["conditions"]["ready"] != false
}

fn is_last_resort(endpoint: &Value) -> bool {
    let conditions = &endpoint["conditions"];
    conditions["serving"] == true && conditions["terminating"] == true
}

fn backends(
    ports: &[ServicePort],
    slices: &[&Value],
    takes_part: fn(&Value) -> bool,
) -> BTreeMap<Ipv6Addr, Backend> {
    let mut backends: BTreeMap<Ipv6Addr, Backend> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice["addressType"] == "IPv6") {
        let own = own_ports(ports, slice);
        // It answers none of the ports.
        if own.is_empty() && !ports.is_empty() {
            continue;
        }
        let endpoints = object::items(slice, &["endpoints"]).iter();
        for endpoint in endpoints.filter(|endpoint| takes_part(endpoint)) {
            let addresses = object::items(endpoint, &["addresses"]).iter();
            for address in addresses.filter_map(|one| one.as_str()?.parse().ok()) {
                let backend = backends.entry(address).or_insert_with(|| Backend {
                    target: Target::Address(address),
                    ports: BTreeMap::new(),
                    hostname: object::text(endpoint, &["hostname"]).to_owned(),
                });
                backend.ports.extend(&own);
            }
        }
    }
    for backend in backends.values_mut() {
        // What the service says of every backend needs no saying again.
        backend.ports.retain(|port, number| {
            let of_all = ports.iter().find(|one| one.port == *port);
            of_all.is_none_or(|of_all| of_all.target_port != *number)
        });
    }
    backends
}

/// Port of the service → port of the slice with the same name.
fn own_ports(ports: &[ServicePort], slice: &Value) -> BTreeMap<u16, u16> {
    let of_slice = object::items(slice, &["ports"]);
    let own = ports.iter().filter_map(|port| {
        let mut of_slice = of_slice.iter();
        let found = of_slice.find(|one| object::text(one, &["name"]) == port.name)?;
        Some((port.port, number(&found["port"])?))
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ports: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
            "clusterIP": "fdaa::1", "ports": ports}})
    }

    fn slice(port: u16, endpoints: Value) -> Value {
        json!({"addressType": "IPv6", "ports": [{"name": "", "port": port}],
            "endpoints": endpoints})
    }

    fn addresses(spec: &ServiceSpec) -> Vec<String> {
        let address = |backend: &Backend| match &backend.target {
            Target::Address(address) => address.to_string(),
            Target::Machine(id) => id.to_string(),
        };
        spec.backends.iter().map(address).collect()
    }

    #[test]
    fn ready_endpoints_are_backends_each_with_its_own_number_of_a_named_port() {
        let service = service(json!([{"port": 80, "targetPort": "http"}]));
        let one = slice(
            8080,
            json!([{"addresses": ["fdaa::a"]},
            {"addresses": ["fdaa::b"], "conditions": {"ready": false}}]),
        );
        let other = slice(
            9090,
            json!([{"addresses": ["fdaa::c"], "hostname": "c",
            "conditions": {"ready": true}}]),
        );
        let v4 = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
            "ports": [{"name": "", "port": 1}]});
        let spec = spec(&service, &[&one, &other, &v4]);
        assert_eq!(addresses(&spec), ["fdaa::a", "fdaa::c"]);
        let ports: Vec<_> = spec
            .backends
            .iter()
            .map(|b| b.port(&spec.ports[0]))
            .collect();
        assert_eq!(ports, [8080, 9090]);
        assert_eq!(spec.backends[1].hostname, "c");
        assert_eq!(spec.dns_names, ["web.shop.svc.cluster.local"]);
        assert!(!spec.headless);
    }

    #[test]
    fn a_number_that_all_have_is_told_once() {
        let service = service(json!([{"port": 80, "targetPort": 8080}]));
        let spec = spec(
            &service,
            &[&slice(8080, json!([{"addresses": ["fdaa::a"]}]))],
        );
        assert_eq!(spec.ports[0].target_port, 8080);
        assert!(spec.backends[0].ports.is_empty());
    }

    #[test]
    fn those_that_go_serve_while_there_are_no_others_but_not_by_name() {
        let going = json!({"addresses": ["fdaa::a"],
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let mut service = service(json!([{"port": 80, "targetPort": 8080}]));
        let alone = slice(8080, json!([going]));
        assert_eq!(addresses(&spec(&service, &[&alone])), ["fdaa::a"]);
        let both = slice(8080, json!([going, {"addresses": ["fdaa::b"]}]));
        assert_eq!(addresses(&spec(&service, &[&both])), ["fdaa::b"]);
        service["spec"]["clusterIP"] = "None".into();
        let headless = spec(&service, &[&alone]);
        assert!(headless.headless && headless.backends.is_empty());
    }
}
