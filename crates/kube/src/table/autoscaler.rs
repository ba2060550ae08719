//! Rows of HorizontalPodAutoscalers, of both versions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{created_ago, number, plain};
use crate::convert;
use crate::object;
use crate::resource::Resource;

/// Metrics that are shown.
const METRICS_MAX: usize = 2;

pub(super) fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut object = object.clone();
    convert::to_stored(resource, &mut object);
    let target = |field: &str| object::text(&object, &["spec", "scaleTargetRef", field]);
    vec![
        json!(object::name(&object)),
        json!(format!("{}/{}", target("kind"), target("name"))),
        json!(metrics(&object)),
        plain(&object["spec"]["minReplicas"], "<unset>"),
        json!(number(&object, &["spec", "maxReplicas"])),
        json!(number(&object, &["status", "currentReplicas"])),
        json!(created_ago(&object, now)),
    ]
}

fn metrics(object: &Value) -> String {
    let metrics = object::items(object, &["spec", "metrics"]);
    let current = object::items(object, &["status", "currentMetrics"]);
    let shown = metrics.iter().zip(0..).take(METRICS_MAX);
    let shown: Vec<_> = shown
        .map(|(metric, at): (_, usize)| one(metric, current.get(at).unwrap_or(&Value::Null)))
        .collect();
    let shown = shown.join(", ");
    match metrics.len() {
        0 => "<none>".to_owned(),
        count if count > METRICS_MAX => format!("{shown} + {} more...", count - METRICS_MAX),
        _ => shown,
    }
}

fn one(metric: &Value, current: &Value) -> String {
    let (part, names_resource) = match object::text(metric, &["type"]) {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let target = &metric[part]["target"];
    let now = &current[part]["current"];
    let amount = |value: &Value| value.as_str().unwrap_or("<unknown>").to_owned();
    let percent = |value: &Value, none: &str| match value.as_i64() {
        Some(percent) => format!("{percent}%"),
        None => none.to_owned(),
    };
    let average = &target["averageValue"];
    let (is, wanted) = if names_resource && average.is_null() {
        (
            percent(&now["averageUtilization"], "<unknown>"),
            percent(&target["averageUtilization"], "<auto>"),
        )
    } else if average.is_null() {
        (amount(&now["value"]), amount(&target["value"]))
    } else {
        (amount(&now["averageValue"]), amount(average))
    };
    let suffix = if matches!(part, "object" | "external") && !average.is_null() {
        " (avg)"
    } else {
        ""
    };
    match names_resource {
        true => format!("{}: {is}/{wanted}", object::text(&metric[part], &["name"])),
        false => format!("{is}/{wanted}{suffix}"),
    }
}
