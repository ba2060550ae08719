//! HorizontalPodAutoscalers. Version 1 knows one number, the utilization of processors; what
//! version 2 says beyond it travels in annotations, in the very form that upstream gives them.

use serde_json::{Map, Value, json};

use super::annotations;
use crate::object::{self, map_mut};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ALL: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];

pub(super) fn to_v1(object: &mut Value) {
    drop_annotations(object);
    let spec = map_mut(object, "spec");
    let behavior = spec.remove("behavior");
    let metrics = spec.remove("metrics").unwrap_or_default();
    let metrics = metrics.as_array().cloned().unwrap_or_default();
    let (cpu, others): (Vec<_>, Vec<_>) = metrics.into_iter().partition(is_cpu_utilization);
    if let Some(cpu) = cpu.first() {
        let percent = cpu["resource"]["target"]["averageUtilization"].clone();
        spec.insert("targetCPUUtilizationPercentage".into(), percent);
    }
    let mut kept = Vec::new();
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(metric_to_v1).collect();
        kept.push((METRICS, json!(others)));
    }
    if let Some(behavior) = behavior {
        kept.push((BEHAVIOR, behavior_to_go(&behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(current) = status.remove("currentMetrics") {
            let current = current.as_array().cloned().unwrap_or_default();
            if let Some(percent) = current.iter().find_map(cpu_utilization_of_status) {
                status.insert("currentCPUUtilizationPercentage".into(), percent);
            }
            let current: Vec<_> = current.iter().map(metric_status_to_v1).collect();
            kept.push((CURRENT_METRICS, json!(current)));
        }
        if let Some(conditions) = status.remove("conditions") {
            kept.push((CONDITIONS, conditions));
        }
    }
    kept.retain(|(_, value)| value != &json!([]));
    if !kept.is_empty() {
        let annotations = annotations(object);
        for (name, value) in kept {
            annotations.insert(name.into(), value.to_string().into());
        }
    }
}

pub(super) fn to_v2(object: &mut Value) {
    let kept = |object: &Value, name: &str| {
        let text = object::text(object, &["metadata", "annotations", name]);
        serde_json::from_str::<Value>(text).ok()
    };
    let list = |name: &str| kept(object, name).and_then(|value| value.as_array().cloned());
    let others = list(METRICS).unwrap_or_default();
    let current = list(CURRENT_METRICS);
    let conditions = list(CONDITIONS);
    let behavior = kept(object, BEHAVIOR).map(|behavior| behavior_from_go(&behavior));
    drop_annotations(object);
    let spec = map_mut(object, "spec");
    let mut metrics: Vec<_> = others.iter().map(metric_to_v2).collect();
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        metrics.push(cpu_utilization(&percent));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    if let Some(behavior) = behavior.filter(|behavior| behavior != &json!({})) {
        spec.insert("behavior".into(), behavior);
    }
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    let percent = status.remove("currentCPUUtilizationPercentage");
    let current = match (current, percent) {
        (Some(current), _) => current.iter().map(metric_status_to_v2).collect(),
        (None, Some(percent)) => vec![json!({"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": percent}}})],
        (None, None) => Vec::new(),
    };
    if !current.is_empty() {
        status.insert("currentMetrics".into(), current.into());
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".into(), conditions.into());
    }
}

fn drop_annotations(object: &mut Value) {
    let meta = object::meta_mut(object);
    let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.retain(|name, _| !ALL.contains(&name.as_str()));
    if annotations.is_empty() {
        meta.remove("annotations");
    }
}

/// The metric that version 1 has a field for.
pub(crate) fn cpu_utilization(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["averageUtilization"].is_number()
}

fn cpu_utilization_of_status(metric: &Value) -> Option<Value> {
    let is_cpu = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    let percent = object::at(metric, &["resource", "current", "averageUtilization"])?;
    is_cpu.then(|| percent.clone())
}

/// The part of a metric that its type names, in both versions.
fn part_of(metric: &Value) -> (&'static str, &Value) {
    let part = match object::text(metric, &["type"]) {
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => "resource",
    };
    (part, &metric[part])
}

/// A map of those values that are there.
fn present<'a>(fields: impl IntoIterator<Item = (&'static str, &'a Value)>) -> Value {
    let there = fields.into_iter().filter(|(_, value)| !value.is_null());
    let map: Map<_, _> = there
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    map.into()
}

fn or_zero(value: &Value) -> Value {
    if value.is_null() {
        json!("0")
    } else {
        value.clone()
    }
}

fn metric_to_v1(metric: &Value) -> Value {
    let (part, from) = part_of(metric);
    let (id, target) = (&from["metric"], &from["target"]);
    let to = match part {
        "pods" => present([
            ("metricName", &id["name"]),
            ("targetAverageValue", &or_zero(&target["averageValue"])),
            ("selector", &id["selector"]),
        ]),
        "object" => present([
            ("target", &from["describedObject"]),
            ("metricName", &id["name"]),
            ("targetValue", &or_zero(&target["value"])),
            ("selector", &id["selector"]),
            ("averageValue", &target["averageValue"]),
        ]),
        "external" => present([
            ("metricName", &id["name"]),
            ("metricSelector", &id["selector"]),
            ("targetValue", &target["value"]),
            ("targetAverageValue", &target["averageValue"]),
        ]),
        _ => present([
            ("name", &from["name"]),
            ("container", &from["container"]),
            ("targetAverageUtilization", &target["averageUtilization"]),
            ("targetAverageValue", &target["averageValue"]),
        ]),
    };
    json!({"type": metric["type"], part: to})
}

fn metric_to_v2(metric: &Value) -> Value {
    let (part, from) = part_of(metric);
    let id =
        |selector: &str| present([("name", &from["metricName"]), ("selector", &from[selector])]);
    let of = |kind: &str, fields: [(&'static str, &Value); 2]| {
        let mut target = present(fields);
        target["type"] = kind.into();
        target
    };
    let is_zero = |value: &Value| matches!(value.as_str(), None | Some("0"));
    let to = match part {
        "pods" => {
            let fields = [("averageValue", &from["targetAverageValue"]); 2];
            json!({"metric": id("selector"), "target": of("AverageValue", fields)})
        }
        "object" => {
            let (average, value) = (&from["averageValue"], &from["targetValue"]);
            let target = if average.is_null() {
                of("Value", [("value", &or_zero(value)); 2])
            } else {
                let value = if is_zero(value) { &Value::Null } else { value };
                of(
                    "AverageValue",
                    [("value", value), ("averageValue", average)],
                )
            };
            json!({"describedObject": from["target"], "metric": id("selector"), "target": target})
        }
        "external" => {
            let (value, average) = (&from["targetValue"], &from["targetAverageValue"]);
            let kind = if value.is_null() {
                "AverageValue"
            } else {
                "Value"
            };
            let target = of(kind, [("value", value), ("averageValue", average)]);
            json!({"metric": id("metricSelector"), "target": target})
        }
        _ => {
            let utilization = &from["targetAverageUtilization"];
            let average = &from["targetAverageValue"];
            let kind = if utilization.is_null() {
                "AverageValue"
            } else {
                "Utilization"
            };
            let fields = [
                ("averageUtilization", utilization),
                ("averageValue", average),
            ];
            let mut to = present([("name", &from["name"]), ("container", &from["container"])]);
            to["target"] = of(kind, fields);
            to
        }
    };
    json!({"type": metric["type"], part: to})
}

fn metric_status_to_v1(metric: &Value) -> Value {
    let (part, from) = part_of(metric);
    let (id, current) = (&from["metric"], &from["current"]);
    let average = or_zero(&current["averageValue"]);
    let value = or_zero(&current["value"]);
    let to = match part {
        "pods" => present([
            ("metricName", &id["name"]),
            ("currentAverageValue", &average),
            ("selector", &id["selector"]),
        ]),
        "object" => present([
            ("target", &from["describedObject"]),
            ("metricName", &id["name"]),
            ("currentValue", &value),
            ("selector", &id["selector"]),
            ("averageValue", &current["averageValue"]),
        ]),
        "external" => present([
            ("metricName", &id["name"]),
            ("metricSelector", &id["selector"]),
            ("currentValue", &value),
            ("currentAverageValue", &current["averageValue"]),
        ]),
        _ => present([
            ("name", &from["name"]),
            ("container", &from["container"]),
            ("currentAverageUtilization", &current["averageUtilization"]),
            ("currentAverageValue", &average),
        ]),
    };
    json!({"type": metric["type"], part: to})
}

fn metric_status_to_v2(metric: &Value) -> Value {
    let (part, from) = part_of(metric);
    let id =
        |selector: &str| present([("name", &from["metricName"]), ("selector", &from[selector])]);
    let to = match part {
        "pods" => json!({"metric": id("selector"),
            "current": present([("averageValue", &from["currentAverageValue"])])}),
        "object" => json!({"describedObject": from["target"], "metric": id("selector"),
            "current": present([
                ("value", &from["currentValue"]), ("averageValue", &from["averageValue"])])}),
        "external" => json!({"metric": id("metricSelector"),
            "current": present([
                ("value", &from["currentValue"]),
                ("averageValue", &from["currentAverageValue"])])}),
        _ => {
            let mut to = present([("name", &from["name"]), ("container", &from["container"])]);
            to["current"] = present([
                ("averageUtilization", &from["currentAverageUtilization"]),
                ("averageValue", &from["currentAverageValue"]),
            ]);
            to
        }
    };
    json!({"type": metric["type"], part: to})
}

/// Upstream writes this annotation from a struct without JSON names, so they begin in capitals.
fn behavior_to_go(behavior: &Value) -> Value {
    let rules = |rules: &Value| {
        if rules.is_null() {
            return Value::Null;
        }
        let policies = rules["policies"].as_array().map(|policies| {
            let policies = policies.iter().map(|policy| {
                json!({"Type": policy["type"], "Value": policy["value"],
                    "PeriodSeconds": policy["periodSeconds"]})
            });
            policies.collect::<Vec<_>>()
        });
        json!({"StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
            "SelectPolicy": rules["selectPolicy"], "Policies": policies,
            "Tolerance": rules["tolerance"]})
    };
    json!({"ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"])})
}

fn behavior_from_go(behavior: &Value) -> Value {
    let rules = |rules: &Value| {
        if rules.is_null() {
            return Value::Null;
        }
        let policies = rules["Policies"]
            .as_array()
            .map_or(Value::Null, |policies| {
                let policies = policies.iter().map(|policy| {
                    json!({"type": policy["Type"], "value": policy["Value"],
                    "periodSeconds": policy["PeriodSeconds"]})
                });
                policies.collect::<Vec<_>>().into()
            });
        present([
            (
                "stabilizationWindowSeconds",
                &rules["StabilizationWindowSeconds"],
            ),
            ("selectPolicy", &rules["SelectPolicy"]),
            ("policies", &policies),
            ("tolerance", &rules["Tolerance"]),
        ])
    };
    let (up, down) = (rules(&behavior["ScaleUp"]), rules(&behavior["ScaleDown"]));
    present([("scaleUp", &up), ("scaleDown", &down)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{from_stored, to_stored};
    use crate::resource::HORIZONTAL_POD_AUTOSCALERS_V1;

    fn stored(spec: Value, status: Value) -> Value {
        json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "web"}, "spec": spec, "status": status})
    }

    #[test]
    fn the_utilization_of_processors_is_a_number_in_version_1() {
        let v2 = stored(
            json!({"maxReplicas": 3, "metrics": [cpu_utilization(&json!(50))]}),
            json!({}),
        );
        let mut object = v2.clone();
        from_stored(&HORIZONTAL_POD_AUTOSCALERS_V1, &mut object);
        let expected = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "web"}, "status": {},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
        assert_eq!(object, expected);
        to_stored(&HORIZONTAL_POD_AUTOSCALERS_V1, &mut object);
        assert_eq!(object, v2);
    }

    #[test]
    fn what_version_1_cannot_say_survives_in_annotations() {
        let metric = |name: &str| json!({"name": name, "selector": {"matchLabels": {"a": "b"}}});
        let target = json!({"type": "AverageValue", "averageValue": "5"});
        let spec = json!({"maxReplicas": 3, "metrics": [
            {"type": "Pods", "pods": {"metric": metric("rps"), "target": target}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                "metric": metric("q"), "target": {"type": "Value", "value": "10"}}},
            {"type": "External", "external": {"metric": metric("x"), "target": target}},
            {"type": "Resource", "resource": {"name": "memory",
                "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": target}},
            cpu_utilization(&json!(70)),
        ], "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]}}});
        let status = json!({"currentReplicas": 1, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu",
                "current": {"averageUtilization": 40, "averageValue": "100m"}}}],
            "conditions": [{"type": "AbleToScale", "status": "True"}]});
        let v2 = stored(spec, status);
        let mut object = v2.clone();
        from_stored(&HORIZONTAL_POD_AUTOSCALERS_V1, &mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 70);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 40);
        let annotations = object["metadata"]["annotations"].as_object();
        assert_eq!(annotations.expect("some").len(), 4);
        to_stored(&HORIZONTAL_POD_AUTOSCALERS_V1, &mut object);
        assert_eq!(object, v2);
    }
}
