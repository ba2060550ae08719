//! Tables: what `kubectl get` prints, computed here as upstream's printers do.

mod autoscaler;
mod cells;
mod cluster;
mod extension;
mod network;
mod pod;
mod service;
mod storage;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::HashMap;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::convert;
use crate::label_selector;
use crate::object;
use crate::resource::Resource;
use crate::status::{Cause, Status};
use crate::time;

/// The columns of every kind, as a real server tells them: `<group> <plural>|<column>, ...`, a column
/// being `<name>:<type>:<priority>`.
static COLUMNS: &str = include_str!("columns.txt");

/// A column: name, type, and priority (1 is shown by `-o wide` only).
type Column = (&'static str, &'static str, u8);

const NAME_AGE: &[Column] = &[("Name", "string", 0), ("Age", "string", 0)];

fn columns(resource: &Resource) -> &'static [Column] {
    static PARSED: OnceLock<HashMap<(&str, &str), Vec<Column>>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| COLUMNS.lines().filter_map(parse_columns).collect());
    let group = if resource.group.is_empty() {
        "core"
    } else {
        resource.group
    };
    parsed
        .get(&(group, resource.plural))
        .map_or(NAME_AGE, Vec::as_slice)
}

fn parse_columns(line: &'static str) -> Option<((&'static str, &'static str), Vec<Column>)> {
    let (of, columns) = line.split_once('|')?;
    let columns = columns.split(", ").filter_map(|column| {
        let (rest, priority) = column.rsplit_once(':')?;
        let (name, kind) = rest.rsplit_once(':')?;
        Some((name, kind, priority.parse().ok()?))
    });
    Some((of.split_once(' ')?, columns.collect()))
}

fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = || json!(object::name(object));
    let age = || json!(created_ago(object, now));
    match (resource.group, resource.plural) {
        ("", "pods") => pod::cells(object, now),
        ("", "events") => cells::event(object, now),
        ("events.k8s.io", "events") => {
            let mut event = object.clone();
            convert::to_stored(resource, &mut event);
            cells::event(&event, now)
        }
        ("", "nodes") => cells::node(object, now),
        ("", "namespaces") => vec![name(), object["status"]["phase"].clone(), age()],
        ("", "componentstatuses") => cells::component(object),
        ("", "configmaps") => {
            let count = count(&object["data"]) + count(&object["binaryData"]);
            vec![name(), json!(count), age()]
        }
        ("", "secrets") => {
            vec![
                name(),
                object["type"].clone(),
                json!(count(&object["data"])),
                age(),
            ]
        }
        ("", "services") => service::service(object, now),
        ("", "endpoints") => service::endpoints(object, now),
        ("", "persistentvolumes") => storage::volume(object, now),
        ("", "persistentvolumeclaims") => storage::claim(object, now),
        ("", "podtemplates") => workload::pod_template(object),
        ("", "replicationcontrollers") => workload::replica_set(object, now),
        ("", "resourcequotas") => cluster::quota(object, now),
        ("", "limitranges")
        | ("rbac.authorization.k8s.io", "roles" | "clusterroles")
        | ("storage.k8s.io", "csistoragecapacities")
        | ("apiextensions.k8s.io", "customresourcedefinitions") => {
            vec![name(), object["metadata"]["creationTimestamp"].clone()]
        }
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object, now),
        ("apps", "controllerrevisions") => workload::revision(object, now),
        ("apps", "daemonsets") => workload::daemon_set(object, now),
        ("apps", "deployments") => workload::deployment(object, now),
        ("apps", "replicasets") => workload::replica_set(object, now),
        ("apps", "statefulsets") => workload::stateful_set(object, now),
        ("batch", "cronjobs") => workload::cron_job(object, now),
        ("batch", "jobs") => workload::job(object, now),
        ("autoscaling", "scales") => {
            let replicas = |part: &str| json!(number(object, &[part, "replicas"]));
            vec![name(), replicas("spec"), replicas("status"), age()]
        }
        ("autoscaling", "horizontalpodautoscalers") => autoscaler::row(resource, object, now),
        ("resource.k8s.io", "resourceclaims") => vec![name(), cluster::claim_state(object), age()],
        ("resource.k8s.io", "resourceslices") => vec![
            name(),
            text_or(object, &["spec", "nodeName"], ""),
            text_or(object, &["spec", "driver"], ""),
            text_or(object, &["spec", "pool", "name"], ""),
            age(),
        ],
        ("coordination.k8s.io", "leases") => {
            let holder = object::text(object, &["spec", "holderIdentity"]);
            vec![name(), json!(holder), age()]
        }
        ("node.k8s.io", "runtimeclasses") => vec![name(), object["handler"].clone(), age()],
        ("storage.k8s.io", plural) => storage::row(plural, object, now),
        ("networking.k8s.io", plural) => network::row(plural, object, now),
        ("admissionregistration.k8s.io", plural) => extension::admission(plural, object, now),
        ("apiregistration.k8s.io", "apiservices") => extension::api_service(object, now),
        ("certificates.k8s.io", "certificatesigningrequests") => cluster::request(object, now),
        ("policy", "poddisruptionbudgets") => cluster::budget(object, now),
        ("rbac.authorization.k8s.io", _) => cluster::binding(object, now),
        ("scheduling.k8s.io", "priorityclasses") => cluster::priority_class(object, now),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => cluster::flow_schema(object, now),
        ("flowcontrol.apiserver.k8s.io", _) => cluster::priority_level(object, now),
        _ => vec![name(), age()],
    }
}

/// Entries of a map, or items of a list.
fn count(value: &Value) -> usize {
    let of_map = value.as_object().map(serde_json::Map::len);
    of_map.or(value.as_array().map(Vec::len)).unwrap_or(0)
}

/// A text, or what stands for none.
fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

/// The text at a path, or what stands for none.
fn text_or(object: &Value, path: &[&str], none: &str) -> Value {
    json!(or(object::text(object, path), none))
}

/// The number at a path, which is 0 if nobody said.
fn number(object: &Value, path: &[&str]) -> i64 {
    let number = object::at(object, path).and_then(Value::as_i64);
    number.unwrap_or(0)
}

/// The texts of a list, joined.
fn joined(list: &Value, separator: &str) -> String {
    let texts = list.as_array().into_iter().flatten();
    let texts: Vec<_> = texts.filter_map(Value::as_str).collect();
    texts.join(separator)
}

/// A selector as people read it.
fn selector(selector: &Value) -> Value {
    json!(or(&label_selector::format(selector), "<none>"))
}

/// Labels as people read them.
fn labels(labels: &Value) -> Value {
    selector(&json!({ "matchLabels": labels }))
}

/// A number or a text, as one of the two.
fn plain(value: &Value, none: &str) -> Value {
    match value {
        Value::Null => json!(none),
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
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
            IncludeObject::None => rendered["object"] = Value::Null,
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
mod column_tests {
    use super::*;
    use crate::resource::{BUILT_IN, CONFIG_MAPS};

    #[test]
    fn the_columns_are_those_of_a_genuine_server() {
        let measured = include_str!("../../testdata/table-columns.txt");
        let told = |columns: &[Column]| {
            let columns = columns
                .iter()
                .map(|(name, kind, at)| format!("{name}:{kind}:{at}"));
            columns.collect::<Vec<_>>().join(", ")
        };
        for resource in BUILT_IN.iter().filter(|row| row.verbs.contains(&"list")) {
            let start = format!("{} {} ", resource.api_version(), resource.plural);
            let mut lines = measured.lines();
            let line = lines.find(|line| line.starts_with(&start)).expect(&start);
            let (_, expected) = line.rsplit_once(" | ").expect("columns");
            assert_eq!(told(columns(resource)), expected, "{start}");
        }
    }

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
