//! Discovery and OpenAPI of all servers together. What a remote server has was read when it was
//! last asked whether it is there.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};

use super::super::body::Body;
use super::super::{Server, discovery, openapi, usage};
use super::Remote;
use crate::status::Status;

/// `/apis`, plain and aggregated.
pub(super) fn groups(
    server: &Server,
    remotes: &[Arc<Remote>],
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let served = &*server.api.resources().snapshot();
    if discovery::is_aggregated(request) {
        let mut list = discovery::aggregated_list(served, |group| !group.is_empty());
        if let Some(items) = list["items"].as_array_mut() {
            for remote in remotes {
                merge_aggregated(server, items, remote);
            }
        }
        return Ok(discovery::cached(request, discovery::AGGREGATED, &list));
    }
    let mut list = discovery::group_list(served);
    if let Some(groups) = list["groups"].as_array_mut() {
        for remote in remotes {
            merge_group(groups, remote);
        }
    }
    Ok(discovery::cached(request, "application/json", &list))
}

/// `/apis/<group>`.
pub(super) fn group(
    server: &Server,
    remotes: &[Arc<Remote>],
    name: &str,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let served = &*server.api.resources().snapshot();
    let mut groups = match discovery::group_list(served)["groups"].take() {
        Value::Array(groups) => groups,
        _ => Vec::new(),
    };
    for remote in remotes {
        merge_group(&mut groups, remote);
    }
    let found = groups.into_iter().find(|group| group["name"] == name);
    let mut group = found.ok_or_else(Status::no_such_resource)?;
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Ok(discovery::cached(request, "application/json", &group))
}

/// `/openapi/v3`.
pub(super) fn documents(
    server: &Server,
    remotes: &[Arc<Remote>],
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let served = &*server.api.resources().snapshot();
    let mut index = openapi::index(served);
    for remote in remotes
        .iter()
        .filter(|one| one.is_available && one.is_remote())
    {
        let path = format!("apis/{}/{}", remote.group, remote.version);
        let url = format!("/openapi/v3/{path}");
        index["paths"][&path] = json!({"serverRelativeURL": url});
    }
    Ok(discovery::cached(request, "application/json", &index))
}

fn merge_group(groups: &mut Vec<Value>, remote: &Remote) {
    let version = json!({
        "groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version,
    });
    let known = groups
        .iter_mut()
        .find(|group| group["name"] == remote.group.as_str());
    let Some(group) = known else {
        groups.push(json!({"name": remote.group, "versions": [version],
            "preferredVersion": version}));
        return;
    };
    if let Some(versions) = group["versions"].as_array_mut()
        && !versions.contains(&version)
    {
        versions.push(version);
    }
}

fn merge_aggregated(server: &Server, items: &mut Vec<Value>, remote: &Remote) {
    let known = if remote.is_remote() {
        server.aggregated.resources(&remote.name)
    } else {
        Some(Arc::new(usage::resources()))
    };
    // Nothing has been heard of it yet.
    let Some(resources) = known else {
        return;
    };
    let freshness = if remote.is_available {
        "Current"
    } else {
        "Stale"
    };
    let version = json!({"version": remote.version, "resources": aggregated(&resources, remote),
        "freshness": freshness});
    let item = items
        .iter_mut()
        .find(|item| item["metadata"]["name"] == remote.group.as_str());
    match item.and_then(|item| item["versions"].as_array_mut()) {
        Some(versions) => {
            versions.retain(|one| one["version"] != remote.version.as_str());
            versions.push(version);
        }
        None => items.push(json!({
            "metadata": {"name": remote.group, "creationTimestamp": null}, "versions": [version],
        })),
    }
}

/// An APIResourceList in the words of aggregated discovery.
fn aggregated(resources: &Value, remote: &Remote) -> Vec<Value> {
    let all = resources["resources"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let kind = |one: &Value| {
        let or = |field: &str, own: &str| one[field].as_str().unwrap_or(own).to_owned();
        json!({"group": or("group", &remote.group), "version": or("version", &remote.version),
            "kind": one["kind"]})
    };
    let mut entries: Vec<Value> = Vec::new();
    for one in &all {
        let name = one["name"].as_str().unwrap_or_default();
        if let Some((plural, below)) = name.split_once('/') {
            let of = entries.iter_mut().find(|entry| entry["resource"] == plural);
            if let Some(entry) = of {
                let below = json!({"subresource": below, "verbs": one["verbs"],
                    "responseKind": kind(one)});
                match entry["subresources"].as_array_mut() {
                    Some(present) => present.push(below),
                    None => entry["subresources"] = json!([below]),
                }
            }
            continue;
        }
        let scope = if one["namespaced"] == true {
            "Namespaced"
        } else {
            "Cluster"
        };
        let mut entry = json!({"resource": name, "singularResource": one["singularName"],
            "scope": scope, "responseKind": kind(one), "verbs": one["verbs"]});
        for field in ["shortNames", "categories"] {
            if let Some(list) = one.get(field) {
                entry[field] = list.clone();
            }
        }
        entries.push(entry);
    }
    entries
}
