//! Rows of `networking.k8s.io`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{created_ago, joined, or, selector, service, text_or};
use crate::object;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Hosts of an Ingress that are shown.
const HOSTS_MAX: usize = 3;

pub(super) fn row(plural: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let (name, age) = (json!(object::name(object)), json!(created_ago(object, now)));
    let spec = &object["spec"];
    match plural {
        "ingresses" => vec![
            name,
            text_or(spec, &["ingressClassName"], "<none>"),
            json!(hosts(spec)),
            json!(service::balancer_addresses(object)),
            json!(if object::items(spec, &["tls"]).is_empty() {
                "80"
            } else {
                "80, 443"
            }),
            age,
        ],
        "ingressclasses" => {
            let is_default =
                object::text(object, &["metadata", "annotations", DEFAULT_CLASS]) == "true";
            let suffix = if is_default { " (default)" } else { "" };
            let name = format!("{}{suffix}", object::name(object));
            vec![
                json!(name),
                spec["controller"].clone(),
                parameters(spec),
                age,
            ]
        }
        "ipaddresses" => vec![name, json!(parent(&spec["parentRef"]))],
        "networkpolicies" => vec![name, selector(&spec["podSelector"]), age],
        "servicecidrs" => vec![name, json!(joined(&spec["cidrs"], ",")), age],
        _ => vec![name, age],
    }
}

fn hosts(spec: &Value) -> String {
    let rules = object::items(spec, &["rules"]);
    let hosts = rules.iter().map(|rule| object::text(rule, &["host"]));
    let named: Vec<_> = hosts.filter(|host| !host.is_empty()).collect();
    let shown = named
        .iter()
        .take(HOSTS_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    match named.len() {
        0 => "*".to_owned(),
        count if count >= HOSTS_MAX && rules.len() > HOSTS_MAX => {
            format!("{shown} + {} more...", rules.len() - HOSTS_MAX)
        }
        _ => shown,
    }
}

fn parameters(spec: &Value) -> Value {
    let Some(reference) = spec.get("parameters") else {
        return json!("<none>");
    };
    let text = |field: &str| object::text(reference, &[field]);
    let group = match text("apiGroup") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    json!(format!("{}{group}/{}", text("kind"), text("name")))
}

fn parent(reference: &Value) -> String {
    if reference.is_null() {
        return "<none>".to_owned();
    }
    let text = |field: &str| object::text(reference, &[field]);
    let resource = match text("group") {
        "" => text("resource").to_lowercase(),
        group => format!("{}.{group}", text("resource")).to_lowercase(),
    };
    let all = [resource.as_str(), text("namespace"), text("name")];
    let all = all.into_iter().filter(|part| !or(part, "").is_empty());
    all.collect::<Vec<_>>().join("/")
}
