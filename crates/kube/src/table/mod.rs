//! Tables: what `kubectl get` prints, computed here as upstream's printers do.

mod cells;
mod pod;
mod service;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;
use crate::resource::Resource;
use crate::status::{Cause, Status};
use crate::time;

/// A column: name, type, and priority (1 is shown by `-o wide` only).
type Column = (&'static str, &'static str, u8);

const NAME_AGE: &[Column] = &[("Name", "string", 0), ("Age", "string", 0)];

fn columns(resource: &Resource) -> &'static [Column] {
    match (resource.group, resource.plural) {
        ("", "pods") => &[
            ("Name", "string", 0),
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            ("Age", "string", 0),
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        ("", "events") => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string", 1),
        ],
        ("", "namespaces") => &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Age", "string", 0),
        ],
        ("", "nodes") => &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Roles", "string", 0),
            ("Age", "string", 0),
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        ("", "configmaps") => &[
            ("Name", "string", 0),
            ("Data", "string", 0),
            ("Age", "string", 0),
        ],
        ("", "secrets") => &[
            ("Name", "string", 0),
            ("Type", "string", 0),
            ("Data", "string", 0),
            ("Age", "string", 0),
        ],
        ("", "services") => service::SERVICE,
        ("discovery.k8s.io", "endpointslices") => service::ENDPOINT_SLICE,
        ("apps", "deployments") => workload::DEPLOYMENT,
        ("apps", "replicasets") => workload::REPLICA_SET,
        ("coordination.k8s.io", "leases") => &[
            ("Name", "string", 0),
            ("Holder", "string", 0),
            ("Age", "string", 0),
        ],
        ("node.k8s.io", "runtimeclasses") => &[
            ("Name", "string", 0),
            ("Handler", "string", 0),
            ("Age", "string", 0),
        ],
        _ => NAME_AGE,
    }
}

fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = || json!(object::name(object));
    let age = || json!(created_ago(object, now));
    match (resource.group, resource.plural) {
        ("", "pods") => pod::cells(object, now),
        ("", "events") => cells::event(object, now),
        ("", "nodes") => cells::node(object, now),
        ("", "namespaces") => vec![name(), object["status"]["phase"].clone(), age()],
        ("", "configmaps") => {
            let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
            vec![name(), json!(count("data") + count("binaryData")), age()]
        }
        ("", "secrets") => {
            let count = object["data"].as_object().map_or(0, serde_json::Map::len);
            vec![name(), object["type"].clone(), json!(count), age()]
        }
        ("", "services") => service::service(object, now),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object, now),
        ("apps", "deployments") => workload::deployment(object, now),
        ("apps", "replicasets") => workload::replica_set(object, now),
        ("coordination.k8s.io", "leases") => {
            vec![
                name(),
                json!(object::text(object, &["spec", "holderIdentity"])),
                age(),
            ]
        }
        ("node.k8s.io", "runtimeclasses") => vec![name(), object["handler"].clone(), age()],
        _ => vec![name(), age()],
    }
}

fn created_ago(object: &Value, now: Timestamp) -> String {
    time::age(
        object::meta(object, "creationTimestamp").and_then(time::parse),
        now,
    )
}

/// How much of the object goes with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => {
                let supported = ["Metadata", "None", "Object"];
                let cause = Cause::not_supported("includeObject", &json!(other), &supported);
                Err(Status::invalid_kind(
                    "meta.k8s.io",
                    "TableOptions",
                    "",
                    vec![cause],
                ))
            }
        }
    }
}

/// Whether a table tells its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Yes,
    No,
}

fn definition((name, kind, priority): &Column) -> Value {
    let format = if *name == "Name" { "name" } else { "" };
    json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
}

/// A Table of these objects, with the list's metadata.
pub(crate) fn render(
    resource: &Resource,
    objects: &[Value],
    metadata: Value,
    include: IncludeObject,
    header: Header,
) -> Value {
    let now = Timestamp::now();
    let definitions = || match &resource.custom {
        Some(kind) => kind.columns().into(),
        None => columns(resource).iter().map(definition).collect(),
    };
    let rows = objects.iter().map(|object| {
        let cells = match &resource.custom {
            Some(kind) => kind.cells(object, now),
            None => row(resource, object, now),
        };
        let mut rendered = json!({"cells": cells});
        match include {
            IncludeObject::None => {}
            IncludeObject::Metadata => rendered["object"] = partial(object),
            IncludeObject::Object => rendered["object"] = object.clone(),
        }
        rendered
    });
    let definitions: Value = match header {
        Header::Yes => definitions(),
        Header::No => json!([]),
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows.collect::<Vec<_>>(),
    })
}

/// Only the metadata of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{BUILT_IN, CONFIG_MAPS};

    #[test]
    fn every_row_has_a_cell_per_column() {
        for resource in BUILT_IN {
            let cells = row(
                resource,
                &json!({"metadata": {"name": "a"}}),
                Timestamp::UNIX_EPOCH,
            );
            assert_eq!(cells.len(), columns(resource).len(), "{}", resource.plural);
        }
    }

    #[test]
    fn a_table_carries_its_objects_metadata() {
        let object =
            json!({"metadata": {"name": "a"}, "data": {"x": "1"}, "binaryData": {"y": ""}});
        let table = render(
            &CONFIG_MAPS,
            &[object],
            json!({}),
            IncludeObject::Metadata,
            Header::Yes,
        );
        assert_eq!(table["rows"][0]["cells"], json!(["a", 2, "<unknown>"]));
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
        assert!(table["rows"][0]["object"].get("data").is_none());
    }
}
