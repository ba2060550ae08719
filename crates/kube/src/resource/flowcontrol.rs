//! Rows of `flowcontrol.apiserver.k8s.io`.

use super::{CORE, Resource, Scope, StatusPart, status_of};

pub static FLOW_SCHEMAS: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    plural: "flowschemas",
    singular: "flowschema",
    kind: "FlowSchema",
    scope: Scope::Cluster,
    subresources: &[status_of("FlowSchema")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.flowcontrol.v1.FlowSchema",
    ..CORE
};

pub static PRIORITY_LEVEL_CONFIGURATIONS: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    kind: "PriorityLevelConfiguration",
    scope: Scope::Cluster,
    subresources: &[status_of("PriorityLevelConfiguration")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    ..CORE
};
