//! Rows of `scheduling.k8s.io`.

use super::{CORE, Resource, Scope};

pub static PRIORITY_CLASSES: Resource = Resource {
    group: "scheduling.k8s.io",
    plural: "priorityclasses",
    singular: "priorityclass",
    kind: "PriorityClass",
    scope: Scope::Cluster,
    short_names: &["pc"],
    has_generation: true,
    schema: "io.k8s.api.scheduling.v1.PriorityClass",
    ..CORE
};
