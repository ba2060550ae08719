//! EndpointSlices of Services without selector, from the Endpoints that somebody writes for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::endpoint_slices::SERVICE_LABEL;
use super::hands::Hands;
use super::owner;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{ENDPOINT_SLICES, ENDPOINTS, Resource, SERVICES};
use crate::status::Status;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses mirrored of one subset, upstream's bound.
const ADDRESSES_MAX: usize = 1000;

pub(super) struct Mirroring {
    hands: Hands,
}

impl Mirroring {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "endpointslicemirroring-controller");
        Self { hands }
    }
}

/// Whether slices are to be made of these Endpoints.
fn is_mirrored(endpoints: &Value) -> bool {
    let is_lock = super::pods::annotation(endpoints, LEADER).is_some();
    let is_ours = object::label(endpoints, "endpoints.kubernetes.io/managed-by").is_some();
    object::label(endpoints, SKIP) != Some("true") && !is_lock && !is_ours
}

fn has_selector(service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty())
}

/// The slices as they should be, without names.
fn slices(endpoints: &Value) -> Vec<Value> {
    let name = object::name(endpoints);
    let mut labels = endpoints["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[SERVICE_LABEL] = name.into();
    labels[MANAGED_BY] = MANAGER.into();
    let mut made = BTreeMap::new();
    for subset in object::items(endpoints, &["subsets"]) {
        let mut ports = subset["ports"].clone();
        for port in ports.as_array_mut().into_iter().flatten() {
            if !port["name"].is_string() {
                port["name"] = "".into();
            }
        }
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let addresses = object::items(subset, &[field]).iter().take(ADDRESSES_MAX);
            for address in addresses {
                let Ok(ip) = object::text(address, &["ip"]).parse::<IpAddr>() else {
                    continue;
                };
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let key = (family, ports.to_string());
                let (_, all) = made
                    .entry(key)
                    .or_insert_with(|| (ports.clone(), Vec::new()));
                all.push(endpoint(address, ready));
            }
        }
    }
    let slice = |((family, _), (ports, endpoints_of)): ((&str, String), (Value, Vec<Value>))| {
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{name}-"), "labels": labels,
                "namespace": object::namespace(endpoints),
                "ownerReferences": [owner::reference(endpoints)],
            },
            "addressType": family, "endpoints": endpoints_of,
        });
        if ports.is_array() {
            slice["ports"] = ports;
        }
        slice
    };
    made.into_iter().map(slice).collect()
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint[field] = value.clone();
        }
    }
    endpoint
}

/// The same to those who read it, whatever it is called.
fn is_same(present: &Value, wanted: &Value) -> bool {
    ["addressType", "endpoints", "ports"]
        .iter()
        .all(|field| present.get(*field) == wanted.get(*field))
        && present["metadata"]["labels"] == wanted["metadata"]["labels"]
}

impl Controller for Mirroring {
    const NAME: &'static str = "endpointslice-mirroring";
    const WATCHED: &'static [&'static Resource] = &[&SERVICES, &ENDPOINTS, &ENDPOINT_SLICES];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if !changed.is(&ENDPOINT_SLICES) {
            return vec![changed.key()];
        }
        let slice = &changed.object;
        let service = object::label(slice, SERVICE_LABEL);
        let service = service.filter(|_| object::label(slice, MANAGED_BY) == Some(MANAGER));
        let key = service.map(|service| format!("{}/{service}", changed.namespace()));
        key.into_iter().collect()
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let (namespace, name) = at.split_once('/').unwrap_or_default();
        let service = hands.known.get(&SERVICES, at);
        let endpoints = hands.known.get(&ENDPOINTS, at);
        let is_wanted = service.is_some_and(|service| !has_selector(&service));
        let mut wanted = match endpoints {
            Some(endpoints) if is_wanted && is_mirrored(&endpoints) => slices(&endpoints),
            Some(_) | None => Vec::new(),
        };
        let selector = json!({"matchLabels": {SERVICE_LABEL: name, MANAGED_BY: MANAGER}});
        let present = hands.known.selected(&ENDPOINT_SLICES, namespace, &selector);
        let mut left = Vec::new();
        for slice in present {
            match wanted.iter().position(|one| is_same(&slice, one)) {
                Some(index) => drop(wanted.remove(index)),
                None => left.push(slice),
            }
        }
        for mut slice in wanted {
            // One of the same family is changed rather than replaced.
            let family = &slice["addressType"];
            match left.iter().position(|one| one["addressType"] == *family) {
                Some(index) => {
                    let present = left.remove(index);
                    let meta = object::meta_mut(&mut slice);
                    meta.remove("generateName");
                    for field in ["name", "uid", "resourceVersion"] {
                        meta.insert(field.into(), present["metadata"][field].clone());
                    }
                    hands.update(&ENDPOINT_SLICES, slice).await?;
                }
                None => drop(hands.create(&ENDPOINT_SLICES, slice).await?),
            }
        }
        for slice in left {
            hands.delete(&ENDPOINT_SLICES, &slice).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_and_set_of_ports_is_a_slice() {
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "db", "namespace": "n", "uid": "e"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 5432, "protocol": "TCP"}]}]});
        let slices = slices(&endpoints);
        let families: Vec<_> = slices.iter().map(|one| &one["addressType"]).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        let expected = json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]);
        assert_eq!(slices[0]["endpoints"], expected);
        assert_eq!(
            slices[0]["ports"],
            json!([{"name": "", "port": 5432, "protocol": "TCP"}])
        );
        assert!(is_mirrored(&endpoints));
        let mut skipped = endpoints;
        skipped["metadata"]["labels"] = json!({SKIP: "true"});
        assert!(!is_mirrored(&skipped));
    }
}
