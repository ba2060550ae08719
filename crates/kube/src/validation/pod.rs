//! The essential rules of pods. What the provider cannot do yet is its business, not ours.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::names;
use crate::object;
use crate::status::Cause;

const IMMUTABLE: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn spec(pod: &Value) -> Vec<Cause> {
    let spec = &pod["spec"];
    let mut causes = Vec::new();
    let volumes: HashSet<_> = object::items(spec, &["volumes"])
        .iter()
        .map(|volume| object::text(volume, &["name"]))
        .collect();
    causes.extend(volume_names(spec));
    let containers = object::items(spec, &["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let mut seen = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in object::items(spec, &[list]).iter().enumerate() {
            let path = format!("spec.{list}[{index}]");
            let name = object::text(container, &["name"]);
            if !name.is_empty() && !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
            }
            causes.extend(rules_of_container(&path, container, &volumes));
        }
    }
    choice(
        &mut causes,
        spec,
        "spec",
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    choice(&mut causes, spec, "spec", "dnsPolicy", &dns);
    for (field, minimum, why) in [
        (
            "activeDeadlineSeconds",
            1,
            "must be between 1 and 2147483647, inclusive",
        ),
        (
            "terminationGracePeriodSeconds",
            0,
            "must be greater than or equal to 0",
        ),
    ] {
        if let Some(seconds) = spec
            .get(field)
            .filter(|seconds| seconds.as_i64() < Some(minimum))
        {
            causes.push(Cause::invalid(format!("spec.{field}"), seconds, why));
        }
    }
    for field in ["hostname", "subdomain"] {
        let value = object::text(spec, &[field]);
        if let Some(why) = names::label_fault(value).filter(|_| !value.is_empty()) {
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(value), why));
        }
    }
    if !object::items(spec, &["ephemeralContainers"]).is_empty() && pod.get("status").is_none() {
        let why = "cannot be set on create";
        causes.push(Cause::forbidden("spec.ephemeralContainers", why));
    }
    causes
}

fn choice(causes: &mut Vec<Cause>, map: &Value, path: &str, field: &str, allowed: &[&str]) {
    let value = object::text(map, &[field]);
    if !value.is_empty() && !allowed.contains(&value) {
        causes.push(Cause::not_supported(
            format!("{path}.{field}"),
            &json!(value),
            allowed,
        ));
    }
}

fn volume_names(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = HashSet::new();
    for (index, volume) in object::items(spec, &["volumes"]).iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        let name = object::text(volume, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if let Some(why) = names::label_fault(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &json!(name), why));
        } else if !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
        }
        let sources: Vec<_> = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .filter(|key| *key != "name")
            .collect();
        if let [_, second, ..] = &sources[..] {
            let why = "may not specify more than 1 volume type";
            causes.push(Cause::forbidden(format!("{path}.{second}"), why));
        }
    }
    causes
}

fn rules_of_container(path: &str, container: &Value, volumes: &HashSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::text(container, &["name"]);
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    } else if let Some(why) = names::label_fault(name) {
        causes.push(Cause::invalid(format!("{path}.name"), &json!(name), why));
    }
    let image = object::text(container, &["image"]);
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        causes.push(Cause::invalid(format!("{path}.image"), &json!(image), why));
    }
    choice(
        &mut causes,
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
    );
    choice(
        &mut causes,
        container,
        path,
        "terminationMessagePolicy",
        &["FallbackToLogsOnError", "File"],
    );
    causes.extend(ports(path, container));
    causes.extend(environment(path, container));
    causes.extend(mounts(path, container, volumes));
    causes.extend(resources(path, container));
    causes
}

fn ports(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = HashSet::new();
    for (index, port) in object::items(container, &["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let number = port["containerPort"].as_i64();
        match number {
            None | Some(0) => causes.push(Cause::required(format!("{path}.containerPort"), "")),
            Some(1..=65535) => {}
            Some(_) => {
                let why = "must be between 1 and 65535, inclusive";
                causes.push(Cause::invalid(
                    format!("{path}.containerPort"),
                    &port["containerPort"],
                    why,
                ));
            }
        }
        choice(
            &mut causes,
            port,
            &path,
            "protocol",
            &["SCTP", "TCP", "UDP"],
        );
        let name = object::text(port, &["name"]);
        if !name.is_empty() && !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
        }
    }
    causes
}

fn environment(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, env) in object::items(container, &["env"]).iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = object::text(env, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if let Some(why) = names::env_name_fault(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &json!(name), why));
        }
        if !object::text(env, &["value"]).is_empty() && env.get("valueFrom").is_some() {
            let why = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{path}.valueFrom"), &json!(""), why));
        }
    }
    causes
}

fn mounts(path: &str, container: &Value, volumes: &HashSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen = HashSet::new();
    for (index, mount) in object::items(container, &["volumeMounts"])
        .iter()
        .enumerate()
    {
        let path = format!("{path}.volumeMounts[{index}]");
        let (name, at) = (
            object::text(mount, &["name"]),
            object::text(mount, &["mountPath"]),
        );
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{path}.name"), &json!(name)));
        }
        if at.is_empty() {
            causes.push(Cause::required(format!("{path}.mountPath"), ""));
        } else if !seen.insert(at) {
            causes.push(Cause::invalid(
                format!("{path}.mountPath"),
                &json!(at),
                "must be unique",
            ));
        }
    }
    causes
}

fn resources(path: &str, container: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for part in ["limits", "requests"] {
        for (name, quantity) in container["resources"][part]
            .as_object()
            .into_iter()
            .flatten()
        {
            let field = format!("{path}.resources.{part}[{name}]");
            match quantity.as_str().and_then(crate::quantity::parse) {
                None => {
                    let why = "quantities must match the regular expression \
                               '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                    causes.push(Cause::invalid(field, quantity, why));
                }
                Some(amount) if amount < 0 => {
                    let why = "must be greater than or equal to 0";
                    causes.push(Cause::invalid(field, quantity, why));
                }
                Some(amount) if part == "requests" => {
                    let limit = &container["resources"]["limits"][name];
                    let most = limit.as_str().and_then(crate::quantity::parse);
                    if most.is_some_and(|most| amount > most) {
                        let limit = limit.as_str().unwrap_or_default();
                        let why = format!("must be less than or equal to {name} limit of {limit}");
                        let field = format!("{path}.resources.requests");
                        causes.push(Cause::invalid(field, quantity, &why));
                    }
                }
                Some(_) => {}
            }
        }
    }
    causes
}

/// The specification of a pod stands, but for images, deadlines and further tolerations.
pub(super) fn immutability(old: &Value, new: &Value) -> Vec<Cause> {
    let mut masked = new["spec"].clone();
    let old_spec = &old["spec"];
    for list in ["containers", "initContainers"] {
        let Some(containers) = masked.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for (index, container) in containers.iter_mut().enumerate() {
            let old = old_spec.get(list).and_then(|list| list.get(index));
            if let Some(image) = old.and_then(|old| old.get("image")) {
                container["image"] = image.clone();
            }
        }
    }
    let keep = |masked: &mut Value, field: &str| {
        let Some(map) = masked.as_object_mut() else {
            return;
        };
        match old_spec.get(field) {
            Some(value) => drop(map.insert(field.into(), value.clone())),
            None => drop(map.remove(field)),
        }
    };
    keep(&mut masked, "activeDeadlineSeconds");
    let added = object::items(&new["spec"], &["tolerations"]);
    if object::items(old_spec, &["tolerations"])
        .iter()
        .all(|old| added.contains(old))
    {
        keep(&mut masked, "tolerations");
    }
    if masked == *old_spec {
        Vec::new()
    } else {
        vec![Cause::forbidden("spec", IMMUTABLE)]
    }
}

/// New amounts for the containers that are there, of the same class of service.
pub(super) fn resize(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for list in ["containers", "initContainers"] {
        let names = |pod: &Value| -> Vec<String> {
            let containers = object::items(pod, &["spec", list]).iter();
            containers
                .map(|one| object::text(one, &["name"]).to_owned())
                .collect()
        };
        if names(old) != names(new) {
            let why = format!("{list} may not be added or removed on resize");
            causes.push(Cause::forbidden(format!("spec.{list}"), &why));
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    causes.extend(spec(new));
    let class = crate::defaults::qos_class(new);
    if class != crate::defaults::qos_class(old) {
        let why = "Pod QOS Class may not change as a result of resizing";
        causes.push(Cause::invalid("spec", &json!(class), why));
    }
    causes
}

/// Containers for a look into a running pod can be added, and stay as they are from then on.
pub(super) fn ephemeral_containers(old: &Value, new: &Value) -> Vec<Cause> {
    const PATH: &str = "spec.ephemeralContainers";
    let of = |pod: &Value| object::items(pod, &["spec", "ephemeralContainers"]).to_vec();
    let (old, ephemeral) = (of(old), of(new));
    let mut causes = Vec::new();
    for before in &old {
        let name = object::text(before, &["name"]);
        match ephemeral.iter().find(|one| one["name"] == name) {
            Some(after) if after == before => {}
            Some(_) => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n");
                causes.push(Cause::forbidden(PATH, &why));
            }
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                causes.push(Cause::forbidden(PATH, &why));
            }
        }
    }
    let mut names = HashSet::new();
    for list in ["containers", "initContainers"] {
        let containers = object::items(new, &["spec", list]);
        names.extend(containers.iter().map(|one| object::text(one, &["name"])));
    }
    for (index, container) in ephemeral.iter().enumerate() {
        let (path, name) = (
            format!("{PATH}[{index}].name"),
            object::text(container, &["name"]),
        );
        if name.is_empty() {
            causes.push(Cause::required(path, ""));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(path, &container["name"]));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(spec: Value) -> Vec<String> {
        let causes = super::spec(&json!({"spec": spec}));
        causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn a_pod_without_containers_or_with_nameless_ones_is_told_what_is_missing() {
        assert_eq!(faults(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            faults(json!({"containers": [{}]})),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value"
            ]
        );
    }

    #[test]
    fn each_wrong_field_is_told_with_its_path() {
        let spec = json!({
            "restartPolicy": "Sometimes",
            "containers": [{
                "name": "c", "image": "i", "ports": [{"containerPort": 70000}],
                "volumeMounts": [{"name": "none", "mountPath": "/x"}],
                "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}},
            }, {"name": "c", "image": "i"}],
        });
        let expected = [
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
             and 65535, inclusive",
            "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 500m",
            "spec.containers[1].name: Duplicate value: \"c\"",
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"OnFailure\", \"Never\"",
        ];
        assert_eq!(faults(spec), expected);
    }

    #[test]
    fn an_image_may_change_and_a_command_may_not() {
        let pod = |image: &str, command: &str| json!({"spec": {"containers": [{"name": "c", "image": image, "command": [command]}]}});
        assert!(immutability(&pod("a", "x"), &pod("b", "x")).is_empty());
        assert_eq!(immutability(&pod("a", "x"), &pod("a", "y")).len(), 1);
    }
}
