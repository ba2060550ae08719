//! Rows of `node.k8s.io`.

use super::{CORE, Resource, Scope};

pub static RUNTIME_CLASSES: Resource = Resource {
    group: "node.k8s.io",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    kind: "RuntimeClass",
    scope: Scope::Cluster,
    schema: "io.k8s.api.node.v1.RuntimeClass",
    created_by_update: true,
    needs_revision: true,
    ..CORE
};
