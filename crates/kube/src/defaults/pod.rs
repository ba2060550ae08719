//! Defaults of pods.

use serde_json::{Map, Value, json};

use super::storage;
use crate::object::{default, inner, map_mut, maps};

/// Field lists of a pod that hold containers.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Whose containers they are: the server completes a template less than it does a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Pod,
    Template,
}

pub(super) fn apply(pod: &mut Value) {
    apply_spec(Of::Pod, pod);
    default(map_mut(pod, "spec"), "enableServiceLinks", true);
}

/// Completes the template of a workload.
pub(super) fn apply_template(template: &mut Value) {
    if let Some(template) = template.as_object_mut() {
        default(template, "metadata", json!({}));
    }
    apply_spec(Of::Template, template);
}

fn apply_spec(of: Of, pod: &mut Value) {
    let spec = map_mut(pod, "spec");
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", "default-scheduler");
    let host_network = of == Of::Pod && spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        for container in maps(spec.get_mut(list)) {
            apply_container(of, container, host_network);
        }
    }
    for volume in maps(spec.get_mut("volumes")) {
        apply_volume(volume);
    }
}

fn apply_container(of: Of, container: &mut Map<String, Value>, host_network: bool) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = pull_policy(image);
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    if let (Of::Pod, Some(resources)) = (of, inner(container, &["resources"])) {
        requests_from_limits(resources);
    }
    for port in maps(container.get_mut("ports")) {
        default(port, "protocol", "TCP");
        if let (true, Some(number)) = (host_network, port.get("containerPort").cloned()) {
            default(port, "hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inner(container, &[probe]) {
            apply_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = inner(container, &["lifecycle", hook, "httpGet"]) {
            apply_http_get(get);
        }
    }
    for env in maps(container.get_mut("env")) {
        apply_env(env);
    }
}

/// An image without a tag, or with `latest`, may change; any other is pulled once.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let is_fixed = name.contains('@')
        || name
            .split_once(':')
            .is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest");
    if is_fixed { "IfNotPresent" } else { "Always" }
}

fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, limit) in limits {
            default(requests, &name, limit);
        }
    }
}

fn apply_probe(probe: &mut Map<String, Value>) {
    for (field, number) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(field.into(), number.into());
        }
    }
    if let Some(get) = inner(probe, &["httpGet"]) {
        apply_http_get(get);
    }
    if let Some(grpc) = inner(probe, &["grpc"]) {
        default(grpc, "service", "");
    }
}

fn apply_http_get(get: &mut Map<String, Value>) {
    default(get, "path", "/");
    default(get, "scheme", "HTTP");
}

fn apply_env(env: &mut Map<String, Value>) {
    if let Some(field) = inner(env, &["valueFrom", "fieldRef"]) {
        default(field, "apiVersion", "v1");
    }
    if let Some(field) = inner(env, &["valueFrom", "resourceFieldRef"]) {
        default(field, "divisor", "0");
    }
}

fn apply_volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    const MODE: i64 = 0o644;
    for source in ["configMap", "secret", "projected", "downwardAPI"] {
        if let Some(source) = inner(volume, &[source]) {
            default(source, "defaultMode", MODE);
        }
    }
    storage::volume_source(volume);
    if let Some(claim) = inner(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
        storage::claim_spec(claim);
    }
    if let Some(image) = inner(volume, &["image"]) {
        let reference = image.get("reference").and_then(Value::as_str);
        let policy = pull_policy(reference.unwrap_or_default());
        default(image, "pullPolicy", policy);
    }
    if let Some(down) = inner(volume, &["downwardAPI"]) {
        maps(down.get_mut("items")).for_each(apply_downward);
    }
    let Some(projected) = inner(volume, &["projected"]) else {
        return;
    };
    for source in maps(projected.get_mut("sources")) {
        if let Some(token) = inner(source, &["serviceAccountToken"]) {
            default(token, "expirationSeconds", 3600);
        }
        if let Some(down) = inner(source, &["downwardAPI"]) {
            maps(down.get_mut("items")).for_each(apply_downward);
        }
    }
}

fn apply_downward(item: &mut Map<String, Value>) {
    if let Some(field) = inner(item, &["fieldRef"]) {
        default(field, "apiVersion", "v1");
    }
    if let Some(field) = inner(item, &["resourceFieldRef"]) {
        default(field, "divisor", "0");
    }
}

/// BestEffort: no container asks for anything. Guaranteed: every container has equal limits and
/// requests of both processor and memory. Burstable: the rest.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let lists = ["initContainers", "containers"].map(|list| &pod["spec"][list]);
    let containers = || lists.iter().filter_map(|list| list.as_array()).flatten();
    let asked = |container: &Value, what: &str, name: &str| {
        let quantity = container["resources"][what][name]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Some(quantity).filter(|quantity| !quantity.is_empty() && quantity != "0")
    };
    let names = ["cpu", "memory"];
    let asks = |container: &Value| {
        names.iter().any(|name| {
            asked(container, "requests", name).is_some()
                || asked(container, "limits", name).is_some()
        })
    };
    let is_guaranteed = |container: &Value| {
        names.iter().all(|name| {
            let limit = asked(container, "limits", name);
            limit.is_some() && limit == asked(container, "requests", name)
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(is_guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_pod_gets_what_a_real_server_gives_it() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}});
        apply(&mut pod);
        let expected = json!({"spec": {
            "containers": [{
                "name": "c", "image": "nginx", "resources": {}, "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "enableServiceLinks": true,
            "schedulerName": "default-scheduler",
        }});
        assert_eq!(pod, expected);
    }

    #[test]
    fn what_is_given_stays_and_what_hangs_on_it_is_derived() {
        let mut pod = json!({"spec": {
            "hostNetwork": true,
            "containers": [{
                "image": "registry:5000/a:1.2", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            }],
            "volumes": [{"name": "v"}, {"name": "w", "configMap": {"name": "m"}}],
        }});
        apply(&mut pod);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["ports"][0]["hostPort"], 80);
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 5,
                "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(
            container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
            "v1"
        );
        assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(pod["spec"]["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(qos_class(&pod), "Burstable");
    }

    #[test]
    fn only_a_tag_or_a_digest_makes_an_image_fixed() {
        for image in ["a", "a:latest", "r:5000/a", "r:5000/a:latest"] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in ["a:1", "a@sha256:00", "r:5000/a:1"] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
