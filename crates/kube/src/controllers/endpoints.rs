//! Endpoints, for clients that know no EndpointSlices: which pods stand behind a Service.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::endpoint_slices::{endpoint, ports, selector};
use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{ENDPOINTS, PODS, Resource, SERVICES};
use crate::status::Status;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses of one object, upstream's bound; more are left out and said to be.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

pub(super) struct EndpointsOfServices {
    hands: Hands,
}

impl EndpointsOfServices {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "endpoint-controller");
        Self { hands }
    }
}

/// The object as it should be.
fn endpoints(service: &Value, pods: &[Value]) -> Value {
    // Pods with the same numbers for the Service's ports share a subset.
    let mut subsets: BTreeMap<String, (Value, [Vec<Value>; 2])> = BTreeMap::new();
    let mut count = 0;
    for pod in pods {
        let Some(found) = endpoint(service, pod) else {
            continue;
        };
        if found["conditions"]["terminating"] == true
            && service["spec"]["publishNotReadyAddresses"] != true
        {
            continue;
        }
        count += 1;
        if count > ADDRESSES_MAX {
            break;
        }
        let mut ports = ports(service, pod);
        for port in ports.as_array_mut().into_iter().flatten() {
            if port["name"] == ""
                && let Some(port) = port.as_object_mut()
            {
                port.remove("name");
            }
        }
        let mut address = json!({"ip": found["addresses"][0], "targetRef": found["targetRef"]});
        for field in ["hostname", "nodeName"] {
            if let Some(value) = found.get(field) {
                address[field] = value.clone();
            }
        }
        let subset = subsets.entry(ports.to_string());
        let (_, lists) = subset.or_insert_with(|| (ports, [Vec::new(), Vec::new()]));
        lists[usize::from(found["conditions"]["ready"] != true)].push(address);
    }
    let subsets = subsets.into_values().map(|(ports, lists)| {
        let mut subset = json!({});
        for (field, mut list) in ["addresses", "notReadyAddresses"].into_iter().zip(lists) {
            list.sort_by_key(|one| object::text(one, &["ip"]).to_owned());
            if !list.is_empty() {
                subset[field] = list.into();
            }
        }
        if ports.as_array().is_some_and(|ports| !ports.is_empty()) {
            subset["ports"] = ports;
        }
        subset
    });
    let subsets: Vec<_> = subsets.collect();
    let mut labels = service["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[MANAGED_BY] = MANAGER.into();
    if service["spec"]["clusterIP"] == "None" {
        labels[HEADLESS] = "".into();
    }
    let mut meta = json!({"name": object::name(service), "labels": labels,
        "namespace": object::namespace(service)});
    if count > ADDRESSES_MAX {
        meta["annotations"] = json!({OVER_CAPACITY: "truncated"});
    }
    let mut made = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": meta});
    if !subsets.is_empty() {
        made["subsets"] = subsets.into();
    }
    made
}

impl Controller for EndpointsOfServices {
    const NAME: &'static str = "endpoints";
    const WATCHED: &'static [&'static Resource] = &[&SERVICES, &PODS, &ENDPOINTS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if !changed.is(&PODS) {
            return vec![changed.key()];
        }
        let namespace = Some(changed.namespace());
        self.hands.known.keys(&SERVICES, namespace, |service| {
            selector(service).is_some_and(|selector| changed.is_or_was_selected(&selector))
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let present = hands.known.get(&ENDPOINTS, at);
        let Some(service) = hands.known.get(&SERVICES, at) else {
            // Endpoints of a Service go with it, whoever made them.
            if let Some(present) = present
                && object::label(&present, MANAGED_BY) == Some(MANAGER)
            {
                hands.delete(&ENDPOINTS, &present).await?;
            }
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&service) else {
            return Ok(Outcome::Done);
        };
        if object::is_terminating(&service) {
            return Ok(Outcome::Done);
        }
        let namespace = object::namespace(&service).unwrap_or_default();
        let pods = hands.known.selected(&PODS, namespace, &selector);
        let wanted = endpoints(&service, &pods);
        let Some(present) = present else {
            return match hands.create(&ENDPOINTS, wanted).await {
                Ok(_) => Ok(Outcome::Done),
                Err(status) if status.reason == "AlreadyExists" => {
                    Ok(Outcome::After(std::time::Duration::from_millis(50)))
                }
                Err(status) => Err(status),
            };
        };
        let mut changed = present.clone();
        changed["subsets"] = wanted["subsets"].clone();
        changed["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
        let is_same = present.get("subsets").unwrap_or(&Value::Null) == &wanted["subsets"]
            && present["metadata"]["labels"] == wanted["metadata"]["labels"];
        if !is_same {
            if changed["subsets"].is_null()
                && let Some(changed) = changed.as_object_mut()
            {
                changed.remove("subsets");
            }
            hands.update(&ENDPOINTS, changed).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_the_same_ports_share_a_subset_and_the_unready_stand_apart() {
        let service = json!({"metadata": {"name": "web", "namespace": "n"},
            "spec": {"selector": {"a": "b"}, "clusterIP": "None", "ports": [
                {"port": 80, "targetPort": 8080, "protocol": "TCP"}]}});
        let pod = |name: &str, ip: &str, ready: &str| {
            json!({"metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"nodeName": "fra"}, "status": {"phase": "Running", "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let pods = [
            pod("b", "fdaa::2", "True"),
            pod("a", "fdaa::1", "True"),
            pod("c", "fdaa::3", "False"),
        ];
        let made = endpoints(&service, &pods);
        assert_eq!(
            made["metadata"]["labels"],
            json!({MANAGED_BY: MANAGER, HEADLESS: ""})
        );
        let subset = &made["subsets"][0];
        assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        let ips = |field: &str| -> Vec<&str> {
            let all = object::items(subset, &[field]).iter();
            all.map(|one| object::text(one, &["ip"])).collect()
        };
        assert_eq!(ips("addresses"), ["fdaa::1", "fdaa::2"]);
        assert_eq!(ips("notReadyAddresses"), ["fdaa::3"]);
        assert_eq!(subset["addresses"][0]["targetRef"]["name"], "a");
        assert!(endpoints(&service, &[]).get("subsets").is_none());
    }
}
