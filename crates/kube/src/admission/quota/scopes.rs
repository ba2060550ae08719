//! Which objects a quota with scopes counts.

use serde_json::Value;

use crate::object;
use crate::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, Resource};

/// Whether the quota counts the object at all.
pub(crate) fn selects(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let spec = &quota["spec"];
    let mut scopes = object::items(spec, &["scopes"]).iter();
    let mut expressions = object::items(spec, &["scopeSelector", "matchExpressions"]).iter();
    scopes.all(|scope| {
        let scope = scope.as_str().unwrap_or_default();
        matches(resource, object, scope, "Exists", &[])
    }) && expressions.all(|expression| {
        let text = |field| object::text(expression, &[field]);
        let values = object::items(expression, &["values"]);
        matches(
            resource,
            object,
            text("scopeName"),
            text("operator"),
            values,
        )
    })
}

fn matches(
    resource: &Resource,
    object: &Value,
    scope: &str,
    operator: &str,
    values: &[Value],
) -> bool {
    if resource.is(&PERSISTENT_VOLUME_CLAIMS) {
        let class = object::text(object, &["spec", "volumeAttributesClassName"]);
        return scope == "VolumeAttributesClass" && chosen(class, operator, values);
    }
    // Other kinds have no scopes, so quotas with scopes do not count them.
    if !resource.is(&PODS) {
        return false;
    }
    match scope {
        "Terminating" => is_terminating(object),
        "NotTerminating" => !is_terminating(object),
        "BestEffort" => is_best_effort(object),
        "NotBestEffort" => !is_best_effort(object),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        "PriorityClass" => {
            let class = object::text(object, &["spec", "priorityClassName"]);
            chosen(class, operator, values)
        }
        _ => false,
    }
}

fn chosen(class: &str, operator: &str, values: &[Value]) -> bool {
    let is_in = values.iter().any(|value| value == class);
    match operator {
        "In" => !class.is_empty() && is_in,
        "NotIn" => !is_in,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

/// Whether the pod ends by itself.
fn is_terminating(pod: &Value) -> bool {
    let deadline = &pod["spec"]["activeDeadlineSeconds"];
    deadline.as_i64().is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    let lists = ["containers", "initContainers"];
    let containers = lists
        .iter()
        .flat_map(|list| object::items(pod, &["spec", list]));
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|side| {
            let amounts = resources[side].as_object().into_iter().flatten();
            let mut of_qos = amounts.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
            of_qos.any(|(_, amount)| amount != "0")
        })
    };
    !asks(&pod["spec"]["resources"]) && !containers.into_iter().any(|one| asks(&one["resources"]))
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !object::items(term, &["namespaces"]).is_empty() || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        object::items(affinity, &[required]).iter().any(crosses)
            || object::items(affinity, &[preferred])
                .iter()
                .any(|term| crosses(&term["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::CONFIG_MAPS;

    #[test]
    fn a_quota_counts_the_pods_of_its_scopes() {
        let quota = |scopes: &[&str]| json!({"spec": {"scopes": scopes}});
        let plain = json!({"spec": {"containers": [{"name": "c"}]}});
        let job = json!({"spec": {"activeDeadlineSeconds": 5, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        let counts = |scopes: &[&str], pod: &Value| selects(&quota(scopes), &PODS, pod);
        assert!(counts(&[], &plain) && counts(&["BestEffort", "NotTerminating"], &plain));
        assert!(counts(&["NotBestEffort", "Terminating"], &job) && !counts(&["BestEffort"], &job));
        assert!(!selects(&quota(&["BestEffort"]), &CONFIG_MAPS, &json!({})));
    }

    #[test]
    fn a_quota_may_choose_priority_classes() {
        let quota = |operator: &str, values: &[&str]| {
            json!({"spec": {"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
        };
        let high = json!({"spec": {"priorityClassName": "high"}});
        let none = json!({"spec": {}});
        assert!(selects(&quota("In", &["high"]), &PODS, &high));
        assert!(!selects(&quota("In", &["high"]), &PODS, &none));
        assert!(selects(&quota("NotIn", &["high"]), &PODS, &none));
        assert!(selects(&quota("Exists", &[]), &PODS, &high));
        assert!(selects(&quota("DoesNotExist", &[]), &PODS, &none));
    }
}
