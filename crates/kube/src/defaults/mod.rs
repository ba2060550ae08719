//! Defaults: what the server adds to an object. Measured on a real server of version 1.36, kind by
//! kind, because clients compare what they sent with what they get.

mod pod;
mod service;
mod workload;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

pub(crate) use pod::qos_class;
pub(crate) use service::keep_addresses;

use crate::object::{self, default, map_mut};
use crate::resource::Resource;

/// Completes a new object.
pub(crate) fn on_create(resource: &Resource, object: &mut Value) {
    on_both(resource, object);
    match (resource.group, resource.plural) {
        ("", "pods") => {
            let class = pod::qos_class(object);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            let meta = object::meta_mut(object);
            let labels = meta.entry("labels").or_insert(json!({}));
            labels["kubernetes.io/metadata.name"] = name.into();
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("apps", "replicasets") => object["status"] = json!({"replicas": 0}),
        _ => {}
    }
}

/// Completes a changed object.
pub(crate) fn on_update(resource: &Resource, object: &mut Value) {
    on_both(resource, object);
    if (resource.group, resource.plural) == ("", "namespaces") {
        let name = object::name(object).to_owned();
        let labels = object::meta_mut(object)
            .entry("labels")
            .or_insert(json!({}));
        labels["kubernetes.io/metadata.name"] = name.into();
    }
}

fn on_both(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::apply(object),
        ("", "secrets") => secret(object),
        ("", "nodes") => node(object),
        ("", "events") => event(object),
        ("", "services") => service::service(object),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        _ => {}
    }
}

/// `stringData` is for writing only.
fn secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    default(map, "type", "Opaque");
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        let data = map_mut(object, "data");
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

fn node(object: &mut Value) {
    map_mut(object, "spec");
    let status = map_mut(object, "status");
    default(
        status,
        "daemonEndpoints",
        json!({"kubeletEndpoint": {"Port": 0}}),
    );
    let info = status.entry("nodeInfo").or_insert(json!({}));
    for field in [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ] {
        if info.get(field).is_none() {
            info[field] = "".into();
        }
    }
    // A node may use its memory and processors up to what it has, unless it says otherwise.
    let capacity = status.get("capacity").cloned();
    if let Some(capacity) = capacity {
        default(status, "allocatable", capacity);
    }
}

/// Go writes these fields of an event even when they are empty.
fn event(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (field, empty) in [
        ("source", json!({})),
        ("reportingComponent", json!("")),
        ("reportingInstance", json!("")),
    ] {
        default(map, field, empty);
    }
}
