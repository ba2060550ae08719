//! Defaults: what the server adds to an object. Measured on a real server of version 1.36, kind by
//! kind, because clients compare what they sent with what they get.

mod cluster;
mod device;
mod extension;
mod pod;
mod service;
mod storage;
mod workload;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

pub(crate) use pod::qos_class;
pub(crate) use service::keep_addresses;

use crate::custom;
use crate::object::{self, default, map_mut};
use crate::resource::Resource;
use extension::Webhooks;

/// Completes a new object.
pub(crate) fn on_create(resource: &Resource, object: &mut Value) {
    complete(resource, object);
    match (resource.group, resource.plural) {
        ("", "pods") => {
            let class = qos_class(object);
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
        ("", "persistentvolumes") => storage::new_volume(object),
        ("apps", "daemonsets") => workload::template_generation(None, object),
        ("batch", "jobs") => workload::job_selector(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            object["status"] = custom::definition::first_status(object);
        }
        _ => {}
    }
    if let Some(status) = first_status(resource) {
        object["status"] = status;
    }
}

/// Fields of a status that Go writes even when they are zero.
fn first_status(resource: &Resource) -> Option<Value> {
    Some(match (resource.group, resource.plural) {
        ("", "services") | ("networking.k8s.io", "ingresses") => json!({"loadBalancer": {}}),
        ("apps", "replicasets") | ("", "replicationcontrollers") => json!({"replicas": 0}),
        ("apps", "statefulsets") => json!({"replicas": 0, "availableReplicas": 0}),
        ("apps", "daemonsets") => json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0}),
        ("policy", "poddisruptionbudgets") => json!({"disruptionsAllowed": 0,
            "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ("autoscaling", "horizontalpodautoscalers") if resource.version == "v1" => {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        }
        ("autoscaling", "horizontalpodautoscalers") => {
            json!({"desiredReplicas": 0, "currentMetrics": null})
        }
        ("storage.k8s.io", "volumeattachments") => json!({"attached": false}),
        _ => return None,
    })
}

/// Completes a changed object.
pub(crate) fn on_update(resource: &Resource, old: &Value, object: &mut Value) {
    complete(resource, object);
    match (resource.group, resource.plural) {
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            let labels = object::meta_mut(object)
                .entry("labels")
                .or_insert(json!({}));
            labels["kubernetes.io/metadata.name"] = name.into();
        }
        ("apps", "daemonsets") => workload::template_generation(Some(old), object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            custom::definition::remember_storage(object);
        }
        _ => {}
    }
}

/// What a new and a changed object get alike.
pub(crate) fn complete(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.plural) {
        ("", "pods") => pod::apply(object),
        ("", "secrets") => secret(object),
        ("", "nodes") => node(object),
        ("", "events") => event(object),
        ("events.k8s.io", "events") => event_of_events(object),
        ("", "services") => service::service(object),
        ("", "endpoints") => cluster::endpoints(object),
        ("", "limitranges") => cluster::limit_range(object),
        ("", "persistentvolumeclaims") => storage::claim(object),
        ("", "persistentvolumes") => storage::volume(object),
        ("", "podtemplates") => workload::pod_template(object),
        ("", "replicationcontrollers") => workload::replication_controller(object),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object),
        ("apps", "daemonsets") => workload::daemon_set(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("apps", "statefulsets") => workload::stateful_set(object),
        ("batch", "cronjobs") => workload::cron_job(object),
        ("batch", "jobs") => workload::job(object),
        ("autoscaling", "horizontalpodautoscalers") if resource.version == "v1" => {
            cluster::autoscaler_v1(object);
        }
        ("autoscaling", "horizontalpodautoscalers") => cluster::autoscaler(object),
        ("networking.k8s.io", "networkpolicies") => cluster::network_policy(object),
        ("networking.k8s.io", "ingressclasses") => cluster::ingress_class(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            cluster::role_binding(object);
        }
        ("scheduling.k8s.io", "priorityclasses") => cluster::priority_class(object),
        ("storage.k8s.io", "storageclasses") => storage::class(object),
        ("resource.k8s.io", "resourceclaims") => device::claim(object),
        ("resource.k8s.io", "resourceclaimtemplates") => device::template(object),
        ("resource.k8s.io", "resourceslices") => device::slice(object),
        ("storage.k8s.io", "csidrivers") => storage::driver(object),
        ("storage.k8s.io", "csinodes") => storage::node(object),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => cluster::flow_schema(object),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => {
            cluster::priority_level(object);
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => extension::definition(object),
        ("apiregistration.k8s.io", "apiservices") => extension::api_service(object),
        ("admissionregistration.k8s.io", plural) => match plural {
            "mutatingwebhookconfigurations" => extension::webhooks(Webhooks::Mutating, object),
            "validatingwebhookconfigurations" => extension::webhooks(Webhooks::Validating, object),
            "mutatingadmissionpolicies" | "validatingadmissionpolicies" => {
                extension::policy(object);
            }
            _ => extension::binding(object),
        },
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

/// [`event`] under other names.
fn event_of_events(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    default(map, "deprecatedSource", json!({}));
    for field in [
        "deprecatedFirstTimestamp",
        "deprecatedLastTimestamp",
        "eventTime",
    ] {
        default(map, field, Value::Null);
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
        ("firstTimestamp", Value::Null),
        ("lastTimestamp", Value::Null),
        ("eventTime", Value::Null),
    ] {
        default(map, field, empty);
    }
}
