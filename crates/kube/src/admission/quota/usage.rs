//! What an object uses of a quota, and what a pod has to say for a quota to count it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admission::amounts::{self, Amount, Amounts, Side};
use crate::object;
use crate::resource::Resource;

/// Resources that quotas count by a name of their own beside `count/<resource>`.
const COUNTED: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What every container has to ask for if a quota limits it.
const DEMANDED: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// What the object uses, under every name that a quota may give it.
pub(crate) fn of(resource: &Resource, object: &Value) -> Amounts {
    let one = Amount::count(1);
    let mut used = Amounts::from([(format!("count/{}", resource.qualified()), one)]);
    if !resource.group.is_empty() {
        return used;
    }
    if COUNTED.contains(&resource.plural) {
        used.insert(resource.plural.to_owned(), one);
    }
    match resource.plural {
        "pods" => used.extend(pod(object)),
        "services" => used.extend(service(object)),
        "persistentvolumeclaims" => used.extend(claim(object)),
        _ => {}
    }
    used
}

/// Nothing of a pod that is over is used but its place in the store.
fn pod(pod: &Value) -> Amounts {
    let is_over = matches!(
        object::text(pod, &["status", "phase"]),
        "Succeeded" | "Failed"
    );
    if is_over {
        return Amounts::new();
    }
    let mut used = Amounts::from([("pods".to_owned(), Amount::count(1))]);
    used.extend(compute(
        &amounts::of_pod(pod, Side::Requests),
        &amounts::of_pod(pod, Side::Limits),
    ));
    used
}

fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        let is_short = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if is_short {
            used.insert(name.clone(), *amount);
        }
        used.insert(format!("requests.{name}"), *amount);
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn service(service: &Value) -> Amounts {
    let ports = object::items(&service["spec"], &["ports"]);
    let count = |number: usize| Amount::count(i64::try_from(number).unwrap_or(i64::MAX));
    let (balancers, node_ports) = match object::text(service, &["spec", "type"]) {
        "NodePort" => (0, ports.len()),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"] == false => {
            let has_port = |port: &&Value| port["nodePort"].as_i64().unwrap_or(0) != 0;
            (1, ports.iter().filter(has_port).count())
        }
        "LoadBalancer" => (1, ports.len()),
        _ => (0, 0),
    };
    Amounts::from([
        ("services.loadbalancers".to_owned(), count(balancers)),
        ("services.nodeports".to_owned(), count(node_ports)),
    ])
}

fn claim(claim: &Value) -> Amounts {
    let mut used = Amounts::new();
    let path = ["spec", "resources", "requests", "storage"];
    let storage = object::at(claim, &path).and_then(Amount::of);
    let beta = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = beta
        .as_str()
        .unwrap_or_else(|| object::text(claim, &["spec", "storageClassName"]));
    let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
    if !class.is_empty() {
        used.insert(of_class("persistentvolumeclaims"), Amount::count(1));
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            used.insert(of_class("requests.storage"), storage);
        }
    }
    used
}

/// What containers of a pod have to ask for and do not: `cpu for: a,b; memory for: a`.
pub(super) fn missing<'a>(pod: &Value, limited: impl Iterator<Item = &'a str>) -> Option<String> {
    let demanded: BTreeSet<_> = limited.filter(|name| DEMANDED.contains(name)).collect();
    let mut texts = Vec::new();
    for name in demanded {
        let mut lacking = BTreeSet::new();
        for list in ["containers", "initContainers"] {
            for container in object::items(pod, &["spec", list]) {
                let used = compute(
                    &amounts::of_container(container, Side::Requests),
                    &amounts::of_container(container, Side::Limits),
                );
                if !used.contains_key(name) {
                    lacking.insert(object::text(container, &["name"]));
                }
            }
        }
        if !lacking.is_empty() {
            let lacking: Vec<_> = lacking.into_iter().collect();
            texts.push(format!("{name} for: {}", lacking.join(",")));
        }
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{PODS, SERVICES};

    fn told(amounts: &Amounts) -> String {
        let all = amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"));
        all.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_pod_uses_what_it_asks_for_until_it_is_over() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "500m", "nvidia.com/gpu": "1"}, "limits": {"cpu": "1"}}}]}});
        assert_eq!(
            told(&of(&PODS, &pod)),
            "count/pods=1,cpu=500m,limits.cpu=1,pods=1,requests.cpu=500m,requests.nvidia.com/gpu=1"
        );
        let limited = ["cpu", "limits.memory", "memory", "pods"];
        assert_eq!(
            missing(&pod, limited.into_iter()).as_deref(),
            Some("limits.memory for: c; memory for: c")
        );
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(told(&of(&PODS, &pod)), "count/pods=1");
    }

    #[test]
    fn a_load_balancer_uses_node_ports_unless_it_asks_for_none() {
        let mut service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            told(&of(&SERVICES, &service)),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        service["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        assert_eq!(of(&SERVICES, &service)["services.nodeports"], Amount::ZERO);
    }
}
