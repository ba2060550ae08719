//! Rows of `apps`.

use super::{CORE, Resource, SCALE, StatusPart, status_of};

pub static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    plural: "deployments",
    singular: "deployment",
    kind: "Deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, status_of("Deployment")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.apps.v1.Deployment",
    ..CORE
};

pub static REPLICA_SETS: Resource = Resource {
    group: "apps",
    plural: "replicasets",
    singular: "replicaset",
    kind: "ReplicaSet",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, status_of("ReplicaSet")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    ..CORE
};
