//! Rows of the core group.

use super::{CORE, NameRule, Resource, Scope, StatusPart, Subresource, status_of};

pub static NAMESPACES: Resource = Resource {
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    scope: Scope::Cluster,
    short_names: &["ns"],
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[
        Subresource {
            name: "finalize",
            kind: "Namespace",
            group_version: None,
            verbs: &["update"],
        },
        status_of("Namespace"),
    ],
    names: NameRule::Label,
    status: StatusPart::Subresource,
    schema: "io.k8s.api.core.v1.Namespace",
    ..CORE
};

pub static PODS: Resource = Resource {
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "attach",
            kind: "PodAttachOptions",
            group_version: None,
            verbs: &["create", "get"],
        },
        Subresource {
            name: "binding",
            kind: "Binding",
            group_version: None,
            verbs: &["create"],
        },
        Subresource {
            name: "eviction",
            kind: "Eviction",
            group_version: Some(("policy", "v1")),
            verbs: &["create"],
        },
        Subresource {
            name: "exec",
            kind: "PodExecOptions",
            group_version: None,
            verbs: &["create", "get"],
        },
        Subresource {
            name: "log",
            kind: "Pod",
            group_version: None,
            verbs: &["get"],
        },
        status_of("Pod"),
    ],
    status: StatusPart::Subresource,
    has_generation: true,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.Pod",
    ..CORE
};

pub static EVENTS: Resource = Resource {
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    schema: "io.k8s.api.core.v1.Event",
    ..CORE
};

pub static CONFIG_MAPS: Resource = Resource {
    plural: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    short_names: &["cm"],
    schema: "io.k8s.api.core.v1.ConfigMap",
    ..CORE
};

pub static SECRETS: Resource = Resource {
    plural: "secrets",
    singular: "secret",
    kind: "Secret",
    schema: "io.k8s.api.core.v1.Secret",
    ..CORE
};

pub static SERVICE_ACCOUNTS: Resource = Resource {
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    short_names: &["sa"],
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.ServiceAccount",
    ..CORE
};

pub static SERVICES: Resource = Resource {
    plural: "services",
    singular: "service",
    kind: "Service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[status_of("Service")],
    names: NameRule::Label1035,
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.Service",
    ..CORE
};

pub static NODES: Resource = Resource {
    plural: "nodes",
    singular: "node",
    kind: "Node",
    scope: Scope::Cluster,
    short_names: &["no"],
    subresources: &[status_of("Node")],
    status: StatusPart::Subresource,
    schema: "io.k8s.api.core.v1.Node",
    ..CORE
};
