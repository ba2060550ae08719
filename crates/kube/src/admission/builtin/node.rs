//! TaintNodesByCondition and PodTopologyLabels: what nodes give and what pods take over from them.

use serde_json::json;

use crate::admission::state::NodeTaints;
use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::{NODES, PODS};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const TOPOLOGY: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Nothing is scheduled to a new node until somebody has seen it ready.
pub(super) fn taint(attributes: &mut Attributes<'_>) {
    let is_new = attributes.operation == Operation::Create && attributes.is_object(&NODES);
    if !is_new || attributes.state().config.node_taints == NodeTaints::No {
        return;
    }
    let spec = object::map_mut(&mut attributes.object, "spec");
    let taints = spec.entry("taints").or_insert(json!([]));
    let Some(taints) = taints.as_array_mut() else {
        return;
    };
    if !taints
        .iter()
        .any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// A pod that is bound to a node learns where the node is. The binding carries it to the pod.
pub(super) fn topology_labels(attributes: &mut Attributes<'_>) {
    let is_binding = attributes.operation == Operation::Create
        && attributes.resource.is(&PODS)
        && attributes.subresource == Some("binding");
    if !is_binding {
        return;
    }
    let node = object::text(&attributes.object, &["target", "name"]);
    let Ok(node) = attributes.api.read(&NODES, None, node) else {
        return;
    };
    for key in TOPOLOGY {
        if let Some(value) = object::label(&node, key) {
            let meta = object::meta_mut(&mut attributes.object);
            let labels = meta.entry("labels").or_insert(json!({}));
            labels[key] = value.into();
        }
    }
}
