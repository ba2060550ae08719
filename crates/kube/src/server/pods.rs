//! Subresources that only pods have.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Body;
use super::query::Query;
use super::router::Target;
use super::{Server, codec, exec, logs, options, respond, verbs};
use crate::admission::{self, Attributes, Operation};
use crate::api::{Api, DeleteOptions, DryRun, Preconditions, User};
use crate::object;
use crate::resource::PODS;
use crate::status::{Cause, Status};

pub(super) async fn handle(
    server: &Arc<Server>,
    user: &Arc<User>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (api, notes) = &verbs::calling(server, user, query, &request);
    let answer = answer(server, api, target, query, request).await;
    Ok(respond::noted(answer, notes))
}

async fn answer(
    server: &Arc<Server>,
    api: &Api,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref().unwrap_or_default();
    let subresource = target.subresource.as_deref().unwrap_or_default();
    match subresource {
        "binding" => {
            let row = PODS
                .subresource(subresource)
                .ok_or_else(Status::no_such_resource)?;
            let body = codec::read(request).await?.object(verbs::body_type(row))?;
            bind(api, namespace, name, &body).await
        }
        "eviction" => {
            let row = PODS
                .subresource(subresource)
                .ok_or_else(Status::no_such_resource)?;
            let body = codec::read(request).await?.object(verbs::body_type(row))?;
            let given = &body["deleteOptions"];
            let text = |field: &str| {
                let text = object::text(given, &["preconditions", field]);
                Some(text.to_owned()).filter(|text| !text.is_empty())
            };
            let preconditions = Preconditions {
                uid: text("uid"),
                resource_version: text("resourceVersion"),
            };
            let in_body = object::items(given, &["dryRun"])
                .iter()
                .any(|one| one == "All");
            let dry_run = in_body || options::write(query, "CreateOptions")?.dry_run == DryRun::All;
            let options = DeleteOptions {
                grace_period_s: given["gracePeriodSeconds"].as_i64(),
                preconditions,
                dry_run: if dry_run { DryRun::All } else { DryRun::No },
                ..DeleteOptions::default()
            };
            api.evict(namespace, name, body, &options).await?;
            Ok(success())
        }
        "log" => {
            let pod = api.get(&PODS, Some(namespace), name).await?;
            logs::handle(server, &pod, query).await
        }
        "exec" | "attach" => {
            let pod = api.get(&PODS, Some(namespace), name).await?;
            connect(api, &pod, subresource, query).await?;
            exec::handle(server, pod, subresource == "attach", query, request).await
        }
        _ => Err(Status::no_such_resource()),
    }
}

/// Assigns a pod to the node that a Binding names.
pub(super) async fn bind(
    api: &Api,
    namespace: &str,
    name: &str,
    binding: &Value,
) -> Result<Response<Body>, Status> {
    let target = |field: &str| object::text(binding, &["target", field]);
    let invalid = |cause| Err(Status::invalid_kind("", "Binding", name, vec![cause]));
    if !matches!(target("kind"), "" | "Node") {
        let kind = Value::from(target("kind"));
        let supported = ["Node", "<empty>"];
        return invalid(Cause::not_supported("target.kind", &kind, &supported));
    }
    if target("name").is_empty() {
        return invalid(Cause::required("target.name", ""));
    }
    api.bind(namespace, name, target("name")).await?;
    Ok(success())
}

/// Admission of a stream into a pod. What it sees is the options of the request.
pub(super) async fn connect(
    api: &Api,
    pod: &Value,
    subresource: &str,
    query: &Query,
) -> Result<(), Status> {
    let row = PODS.subresource(subresource);
    let kind = row.map_or("PodPortForwardOptions", |row| row.kind);
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(flag) {
            options[flag] = true.into();
        }
    }
    if !query.get("container").is_empty() {
        options["container"] = query.get("container").into();
    }
    let command: Vec<_> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = command.into();
    }
    let ports: Vec<i64> = query
        .all("ports")
        .filter_map(|port| port.parse().ok())
        .collect();
    if !ports.is_empty() {
        options["ports"] = ports.into();
    }
    let mut attributes = Attributes {
        api,
        resource: &PODS,
        subresource: Some(subresource),
        namespace: object::namespace(pod),
        name: object::name(pod).to_owned(),
        operation: Operation::Connect,
        old: None,
        object: options,
        dry_run: DryRun::No,
    };
    admission::connect(&mut attributes).await
}

fn success() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::json(StatusCode::CREATED, &status)
}

/// The container that a request means: the one it names, the one the pod's annotation prefers, or
/// the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let names = |list: &str| -> Vec<String> {
        let containers = object::items(pod, &["spec", list]).iter();
        containers
            .map(|container| object::text(container, &["name"]).to_owned())
            .collect()
    };
    let pod_name = object::name(pod);
    if !asked.is_empty() {
        let is_known = lists
            .iter()
            .any(|list| names(list).iter().any(|name| name == asked));
        let unknown =
            || Status::bad_request(format!("container {asked} is not valid for pod {pod_name}"));
        return if is_known {
            Ok(asked.to_owned())
        } else {
            Err(unknown())
        };
    }
    let containers = names("containers");
    if let [only] = &containers[..] {
        return Ok(only.clone());
    }
    let mut message = format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        containers.join(" ")
    );
    let inits = names("initContainers");
    if !inits.is_empty() {
        message += &format!(" or one of the init containers: [{}]", inits.join(" "));
    }
    Err(Status::bad_request(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_with_several_containers_wants_one_named() {
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container(&pod, "").expect_err("ambiguous").message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init \
             containers: [i]"
        );
        assert_eq!(container(&pod, "i").as_deref(), Ok("i"));
        assert_eq!(
            container(&pod, "x").expect_err("unknown").message,
            "container x is not valid for pod p"
        );
    }
}
