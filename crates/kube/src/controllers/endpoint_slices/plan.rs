//! From pods and slices to what has to be written. Pure.
//!
//! Pods that have the same numbers for the Service's ports share slices. An endpoint stays in the
//! slice it is in, so that one pod's change is one write.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::endpoint::{endpoint, ports};
use crate::controllers::owner;
use crate::object;

pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Upstream's name, which clients look for.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Upstream's default.
const ENDPOINTS_MAX: usize = 100;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) update: Vec<Value>,
    pub(super) delete: Vec<Value>,
}

/// Endpoints by uid of their pod, for the same ports.
type Group = BTreeMap<String, Value>;

/// Whether this controller keeps the slice for this Service.
pub(super) fn is_ours(slice: &Value, service: &Value) -> bool {
    object::label(slice, SERVICE_LABEL) == Some(object::name(service))
        && object::label(slice, MANAGED_BY_LABEL) == Some(MANAGER)
}

/// What to write. `pods` are those that the Service selects, `slices` those that are its own.
pub(super) fn plan(service: &Value, pods: &[&Value], slices: &[&Value]) -> Plan {
    let labels = labels(service);
    let mut groups: BTreeMap<String, (Value, Group)> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod) {
            let ports = ports(service, pod);
            let group = groups.entry(ports.to_string());
            let (_, group) = group.or_insert_with(|| (ports, Group::new()));
            group.insert(object::uid(pod).to_owned(), endpoint);
        }
    }
    if groups.is_empty() {
        // As upstream: a Service that selects nothing has one empty slice to say so.
        groups.insert("[]".into(), (json!([]), Group::new()));
    }
    let mut plan = Plan::default();
    for (key, (ports, group)) in &mut groups {
        let own = slices.iter().copied().filter(|slice| is_of(slice, key));
        fill(service, &labels, ports, group, own, &mut plan);
    }
    let is_kept = |slice: &Value| groups.keys().any(|key| is_of(slice, key));
    let stale = slices.iter().filter(|slice| !is_kept(slice));
    plan.delete.extend(stale.map(|slice| (*slice).clone()));
    plan
}

fn is_of(slice: &Value, ports: &str) -> bool {
    let has = slice.get("ports").filter(|ports| !ports.is_null());
    slice["addressType"] == "IPv6"
        && !object::is_terminating(slice)
        && has.map_or_else(|| "[]".to_owned(), Value::to_string) == ports
}

/// Puts a group's endpoints into its slices, and into new ones.
fn fill<'a>(
    service: &Value,
    labels: &Map<String, Value>,
    ports: &Value,
    group: &mut Group,
    slices: impl Iterator<Item = &'a Value>,
    plan: &mut Plan,
) {
    // A group of nobody is the empty slice; one is enough.
    let mut placeholders = usize::from(group.is_empty());
    let mut filled: Vec<(&Value, Vec<Value>)> = Vec::new();
    for slice in slices {
        let present = object::items(slice, &["endpoints"]).iter();
        let kept = present.filter_map(|one| group.remove(object::text(one, &["targetRef", "uid"])));
        filled.push((slice, kept.take(ENDPOINTS_MAX).collect()));
    }
    let mut rest = std::mem::take(group).into_values();
    for (slice, mut endpoints) in filled {
        // One that has become empty goes, rather than being filled again.
        if endpoints.is_empty() && placeholders == 0 {
            plan.delete.push(slice.clone());
            continue;
        }
        placeholders = 0;
        let room = ENDPOINTS_MAX.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
        let mut wanted = slice.clone();
        wanted["endpoints"] = endpoints.into();
        wanted["metadata"]["labels"] = labels.clone().into();
        if wanted != *slice {
            plan.update.push(wanted);
        }
    }
    let mut rest: Vec<_> = rest.collect();
    while !rest.is_empty() || placeholders > 0 {
        placeholders = 0;
        let after = rest.split_off(rest.len().min(ENDPOINTS_MAX));
        plan.create.push(slice(service, labels, ports, rest));
        rest = after;
    }
}

fn labels(service: &Value) -> Map<String, Value> {
    let own = service["metadata"]["labels"].as_object();
    let mut labels = own.cloned().unwrap_or_default();
    labels.insert(SERVICE_LABEL.into(), object::name(service).into());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    labels.remove(HEADLESS_LABEL);
    if service["spec"]["clusterIP"] == "None" {
        labels.insert(HEADLESS_LABEL.into(), "".into());
    }
    labels
}

fn slice(
    service: &Value,
    labels: &Map<String, Value>,
    ports: &Value,
    endpoints: Vec<Value>,
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", object::name(service)),
            "namespace": object::namespace(service),
            "labels": labels,
            "ownerReferences": [owner::reference(service)],
        },
        "addressType": "IPv6",
        "endpoints": endpoints,
        "ports": ports,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "a"}},
            "spec": {"clusterIP": "fdaa::1", "ports": [
                {"name": "", "port": 80, "targetPort": "http", "protocol": "TCP"}]}})
    }

    fn pod(number: u16, port: u16) -> Value {
        json!({"metadata": {"name": format!("p{number}"), "namespace": "n",
                "uid": format!("u{number}")},
            "spec": {"containers": [{"ports": [
                {"name": "http", "containerPort": port, "protocol": "TCP"}]}]},
            "status": {"podIPs": [{"ip": format!("fdaa::{number:x}")}]}})
    }

    /// Writes a plan into the slices, as a server would.
    fn apply(slices: &mut BTreeMap<String, Value>, plan: Plan, next: &mut u32) {
        for mut slice in plan.create {
            *next += 1;
            slice["metadata"]["name"] = format!("web-{next}").into();
            slices.insert(format!("web-{next}"), slice);
        }
        for slice in plan.update {
            slices.insert(object::name(&slice).to_owned(), slice);
        }
        for slice in plan.delete {
            slices.remove(object::name(&slice));
        }
    }

    fn planned(slices: &BTreeMap<String, Value>, pods: &[Value]) -> Plan {
        let pods: Vec<_> = pods.iter().collect();
        plan(&service(), &pods, &slices.values().collect::<Vec<_>>())
    }

    #[test]
    fn nobody_is_one_empty_slice_that_names_its_service() {
        let mut slices = BTreeMap::new();
        let plan = planned(&slices, &[]);
        apply(&mut slices, plan, &mut 0);
        let slice = &slices["web-1"];
        assert!(is_ours(slice, &service()));
        assert_eq!(
            (&slice["endpoints"], &slice["ports"]),
            (&json!([]), &json!([]))
        );
        assert_eq!(slice["metadata"]["labels"]["team"], "a");
        assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
        assert_eq!(planned(&slices, &[]), Plan::default());
    }

    #[test]
    fn pods_with_another_number_for_the_port_have_a_slice_of_their_own() {
        let plan = planned(
            &BTreeMap::new(),
            &[pod(1, 8080), pod(2, 9090), pod(3, 8080)],
        );
        let ports = plan
            .create
            .iter()
            .map(|slice| slice["ports"][0]["port"].clone());
        assert_eq!(ports.collect::<Vec<_>>(), [8080, 9090]);
    }

    proptest! {
        /// However pods come, go and change their ports: after one round each has exactly one
        /// place, no slice is too full, and a second round has nothing to do.
        #[test]
        fn every_pod_has_one_place(
            rounds in prop::collection::vec(prop::collection::vec((1..260u16, 0..2u16), 0..250), 1..4)
        ) {
            let (mut slices, mut next) = (BTreeMap::new(), 0);
            for round in rounds {
                let pods: BTreeMap<_, _> = round.into_iter().collect();
                let pods: Vec<_> = pods.into_iter().map(|(n, port)| pod(n, 8080 + port)).collect();
                let plan = planned(&slices, &pods);
                apply(&mut slices, plan, &mut next);
                let mut seen = BTreeSet::new();
                for slice in slices.values() {
                    let endpoints = object::items(slice, &["endpoints"]);
                    prop_assert!(endpoints.len() <= ENDPOINTS_MAX);
                    for endpoint in endpoints {
                        let uid = object::text(endpoint, &["targetRef", "uid"]).to_owned();
                        prop_assert!(seen.insert(uid));
                    }
                }
                let wanted: BTreeSet<_> = pods.iter().map(|p| object::uid(p).to_owned()).collect();
                prop_assert_eq!(seen, wanted);
                prop_assert_eq!(planned(&slices, &pods), Plan::default());
            }
        }
    }
}
