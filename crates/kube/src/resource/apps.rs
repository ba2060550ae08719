//! Rows of `apps`.

use super::{CORE, NameRule, Resource, SCALE, StatusPart, status_of};

pub static CONTROLLER_REVISIONS: Resource = Resource {
    group: "apps",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    kind: "ControllerRevision",
    schema: "io.k8s.api.apps.v1.ControllerRevision",
    ..CORE
};

pub static DAEMON_SETS: Resource = Resource {
    group: "apps",
    plural: "daemonsets",
    singular: "daemonset",
    kind: "DaemonSet",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[status_of("DaemonSet")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.apps.v1.DaemonSet",
    ..CORE
};

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

pub static STATEFUL_SETS: Resource = Resource {
    group: "apps",
    plural: "statefulsets",
    singular: "statefulset",
    kind: "StatefulSet",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[SCALE, status_of("StatefulSet")],
    names: NameRule::Label,
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.apps.v1.StatefulSet",
    ..CORE
};
