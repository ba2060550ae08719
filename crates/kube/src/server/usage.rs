//! `metrics.k8s.io/v1beta1`: what pods and nodes use, as metrics-server tells it.
//!
//! It is one of the aggregated APIs that happens to be here. Whoever writes an APIService of its
//! name with a service behind it has that answer instead.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::options;
use super::query::Query;
use super::{Server, discovery, respond};
use crate::api::Selector;
use crate::object;
use crate::resource::{NODES, PODS};
use crate::status::{Details, Status};
use crate::time;
use crate::usage::{PodUsage, Usage, Used};

pub(super) const GROUP: &str = "metrics.k8s.io";
pub(super) const VERSION: &str = "v1beta1";
/// Name of the APIService.
pub(super) const SERVICE: &str = "v1beta1.metrics.k8s.io";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";
const KIB: u64 = 1024;

/// What there is, as an APIResourceList.
pub(super) fn resources() -> Value {
    let row = |name: &str, namespaced: bool, kind: &str| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"]})
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION,
        "resources": [row("nodes", false, "NodeMetrics"), row("pods", true, "PodMetrics")],
    })
}

/// Readers of the objects may read what they use, as with metrics-server.
pub(super) fn reader_role() -> Value {
    let to = |role: &str| format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader",
            "labels": {to("view"): "true", to("edit"): "true", to("admin"): "true"}},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"],
            "verbs": ["get", "list", "watch"]}],
    })
}

pub(super) async fn handle(
    server: &Server,
    usage: &dyn PodUsage,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let path = request.uri().path().to_owned();
    let query = &Query::parse(request.uri().query());
    let parts: Vec<_> = path.trim_matches('/').split('/').skip(3).collect();
    if !matches!(*request.method(), Method::GET | Method::HEAD) || query.flag("watch") {
        return Err(Status::method_not_allowed());
    }
    let answer = match parts[..] {
        [] => return Ok(discovery::cached(request, "application/json", &resources())),
        ["nodes"] => nodes(server, usage, query).await?,
        ["nodes", name] => node(server, usage, name).await?,
        ["pods"] => pods(server, usage, None, query).await?,
        ["namespaces", namespace, "pods"] => pods(server, usage, Some(namespace), query).await?,
        ["namespaces", namespace, "pods", name] => pod(server, usage, namespace, name).await?,
        _ => return Err(Status::no_such_resource()),
    };
    Ok(respond::json(StatusCode::OK, &answer))
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": API_VERSION, "metadata": {}, "items": items})
}

/// Items of a list say what they are by the list.
fn nameless(item: &mut Value) {
    if let Some(item) = item.as_object_mut() {
        item.remove("kind");
        item.remove("apiVersion");
    }
}

async fn pods(
    server: &Server,
    usage: &dyn PodUsage,
    namespace: Option<&str>,
    query: &Query,
) -> Result<Value, Status> {
    let selector = options::selector(&PODS, query)?;
    let (pods, _) = server.api.list(&PODS, namespace, &selector).await?;
    let used = usage.of(&pods).await;
    let items = pods.iter().filter_map(|pod| {
        let usage = used.get(object::uid(pod))?;
        let mut item = of_pod(pod, usage);
        nameless(&mut item);
        Some(item)
    });
    Ok(list("PodMetricsList", items.collect()))
}

async fn pod(
    server: &Server,
    usage: &dyn PodUsage,
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let missing = || not_found("podmetrics", format!("{namespace}/{name}"));
    let pod = server.api.get(&PODS, Some(namespace), name).await;
    let pod = pod.map_err(|_| missing())?;
    let used = usage.of(std::slice::from_ref(&pod)).await;
    let usage = used.get(object::uid(&pod)).ok_or_else(missing)?;
    Ok(of_pod(&pod, usage))
}

async fn nodes(server: &Server, usage: &dyn PodUsage, query: &Query) -> Result<Value, Status> {
    let selector = options::selector(&NODES, query)?;
    let (nodes, _) = server.api.list(&NODES, None, &selector).await?;
    let mut items = Vec::new();
    for node in &nodes {
        let mut item = of_node(server, usage, node).await?;
        nameless(&mut item);
        items.push(item);
    }
    Ok(list("NodeMetricsList", items))
}

async fn node(server: &Server, usage: &dyn PodUsage, name: &str) -> Result<Value, Status> {
    let node = server.api.get(&NODES, None, name).await;
    let node = node.map_err(|_| not_found("nodemetrics", name.to_owned()))?;
    of_node(server, usage, &node).await
}

/// A node is the hosts of a region: it uses what its pods use.
async fn of_node(server: &Server, usage: &dyn PodUsage, node: &Value) -> Result<Value, Status> {
    let on_node = format!("spec.nodeName={}", object::name(node));
    let on_node = Selector::fields(&PODS, &on_node)?;
    let (pods, _) = server.api.list(&PODS, None, &on_node).await?;
    let all = usage.of(&pods).await;
    let sum = all
        .values()
        .map(Usage::sum)
        .fold(Used::default(), Used::plus);
    let at = all
        .values()
        .map(|one| one.at)
        .max()
        .unwrap_or_else(Timestamp::now);
    let window = all.values().map(|one| one.window).max();
    Ok(json!({
        "kind": "NodeMetrics", "apiVersion": API_VERSION, "metadata": meta(node, at),
        "timestamp": time::seconds(at), "window": text_of(window.unwrap_or_default()),
        "usage": quantities(sum),
    }))
}

fn of_pod(pod: &Value, usage: &Usage) -> Value {
    let containers = usage.containers.iter();
    let containers =
        containers.map(|(name, used)| json!({"name": name, "usage": quantities(*used)}));
    json!({
        "kind": "PodMetrics", "apiVersion": API_VERSION, "metadata": meta(pod, usage.at),
        "timestamp": time::seconds(usage.at), "window": text_of(usage.window),
        "containers": containers.collect::<Vec<_>>(),
    })
}

fn meta(of: &Value, at: Timestamp) -> Value {
    let mut meta = Map::from_iter([
        ("name".to_owned(), Value::from(object::name(of))),
        ("creationTimestamp".to_owned(), time::seconds(at).into()),
    ]);
    for key in ["namespace", "labels"] {
        if let Some(value) = of["metadata"].get(key) {
            meta.insert(key.to_owned(), value.clone());
        }
    }
    meta.into()
}

/// In the units of metrics-server.
fn quantities(used: Used) -> Value {
    let cpu = match used.cpu_nanos {
        0 => "0".to_owned(),
        nanos => format!("{nanos}n"),
    };
    json!({"cpu": cpu, "memory": format!("{}Ki", used.memory_bytes / KIB)})
}

/// As Go writes durations of seconds.
fn text_of(window: Duration) -> String {
    let millis = window.as_millis();
    match (millis / 1000, millis % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, rest) => format!("{}s", format!("{seconds}.{rest:03}").trim_end_matches('0')),
    }
}

fn not_found(kind: &'static str, name: String) -> Status {
    let details = Details {
        name: name.clone(),
        group: GROUP.into(),
        kind: kind.into(),
        ..Details::default()
    };
    Status {
        code: 404,
        reason: "NotFound",
        message: format!("{kind}.{GROUP} {name:?} not found"),
        details: Some(Box::new(details)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_pod_is_told_of_as_metrics_server_does_it() {
        let used = Used {
            cpu_nanos: 12_345_678,
            memory_bytes: 5 << 20,
        };
        let usage = Usage {
            at: Timestamp::UNIX_EPOCH,
            window: Duration::from_millis(15_020),
            containers: BTreeMap::from([("web".to_owned(), used)]),
        };
        let pod = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"c": "d"}}});
        let expected = json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "a", "namespace": "b", "labels": {"c": "d"},
                "creationTimestamp": "1970-01-01T00:00:00Z"},
            "timestamp": "1970-01-01T00:00:00Z", "window": "15.02s",
            "containers": [{"name": "web", "usage": {"cpu": "12345678n", "memory": "5120Ki"}}],
        });
        assert_eq!(of_pod(&pod, &usage), expected);
        let missing = not_found("podmetrics", "b/a".to_owned());
        assert_eq!(
            missing.message,
            "podmetrics.metrics.k8s.io \"b/a\" not found"
        );
    }
}
