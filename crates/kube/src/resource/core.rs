//! Rows of the core group.

use super::{
    CORE, GET_PATCH_UPDATE, NameRule, Resource, SCALE, Scope, StatusPart, Subresource, status_of,
};

/// What stands behind an object, reached through the API server.
const fn proxy_of(kind: &'static str) -> Subresource {
    Subresource {
        name: "proxy",
        kind,
        group_version: None,
        verbs: &["create", "delete", "get", "patch", "update"],
    }
}

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
            name: "ephemeralcontainers",
            kind: "Pod",
            group_version: None,
            verbs: &["get", "patch", "update"],
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
        Subresource {
            name: "portforward",
            kind: "PodPortForwardOptions",
            group_version: None,
            verbs: &["create", "get"],
        },
        proxy_of("PodProxyOptions"),
        Subresource {
            name: "resize",
            kind: "Pod",
            group_version: None,
            verbs: GET_PATCH_UPDATE,
        },
        status_of("Pod"),
    ],
    status: StatusPart::Subresource,
    has_generation: true,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.Pod",
    ..CORE
};

/// Assigns a pod to a node. It is not stored.
pub static BINDINGS: Resource = Resource {
    plural: "bindings",
    singular: "binding",
    kind: "Binding",
    verbs: &["create"],
    schema: "io.k8s.api.core.v1.Binding",
    ..CORE
};

/// How the parts of the control plane do. They are not stored.
pub static COMPONENT_STATUSES: Resource = Resource {
    plural: "componentstatuses",
    singular: "componentstatus",
    kind: "ComponentStatus",
    scope: Scope::Cluster,
    short_names: &["cs"],
    verbs: &["get", "list"],
    schema: "io.k8s.api.core.v1.ComponentStatus",
    ..CORE
};

pub static EVENTS: Resource = Resource {
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    // Upstream looks at the names of events of `events.k8s.io` only.
    names: NameRule::PathSegment,
    schema: "io.k8s.api.core.v1.Event",
    created_by_update: true,
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
    subresources: &[Subresource {
        name: "token",
        kind: "TokenRequest",
        group_version: Some(("authentication.k8s.io", "v1")),
        verbs: &["create"],
    }],
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
    subresources: &[proxy_of("ServiceProxyOptions"), status_of("Service")],
    names: NameRule::Label,
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.Service",
    created_by_update: true,
    ..CORE
};

pub static NODES: Resource = Resource {
    plural: "nodes",
    singular: "node",
    kind: "Node",
    scope: Scope::Cluster,
    short_names: &["no"],
    subresources: &[proxy_of("NodeProxyOptions"), status_of("Node")],
    status: StatusPart::Subresource,
    schema: "io.k8s.api.core.v1.Node",
    ..CORE
};

pub static ENDPOINTS: Resource = Resource {
    plural: "endpoints",
    singular: "endpoints",
    kind: "Endpoints",
    short_names: &["ep"],
    schema: "io.k8s.api.core.v1.Endpoints",
    created_by_update: true,
    ..CORE
};

pub static LIMIT_RANGES: Resource = Resource {
    plural: "limitranges",
    singular: "limitrange",
    kind: "LimitRange",
    short_names: &["limits"],
    schema: "io.k8s.api.core.v1.LimitRange",
    created_by_update: true,
    ..CORE
};

pub static PERSISTENT_VOLUME_CLAIMS: Resource = Resource {
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    kind: "PersistentVolumeClaim",
    short_names: &["pvc"],
    subresources: &[status_of("PersistentVolumeClaim")],
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    ..CORE
};

pub static PERSISTENT_VOLUMES: Resource = Resource {
    plural: "persistentvolumes",
    singular: "persistentvolume",
    kind: "PersistentVolume",
    scope: Scope::Cluster,
    short_names: &["pv"],
    subresources: &[status_of("PersistentVolume")],
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.PersistentVolume",
    ..CORE
};

pub static POD_TEMPLATES: Resource = Resource {
    plural: "podtemplates",
    singular: "podtemplate",
    kind: "PodTemplate",
    has_generation: true,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.PodTemplate",
    ..CORE
};

pub static REPLICATION_CONTROLLERS: Resource = Resource {
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    kind: "ReplicationController",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[SCALE, status_of("ReplicationController")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.core.v1.ReplicationController",
    orphans_by_default: true,
    ..CORE
};

pub static RESOURCE_QUOTAS: Resource = Resource {
    plural: "resourcequotas",
    singular: "resourcequota",
    kind: "ResourceQuota",
    short_names: &["quota"],
    subresources: &[status_of("ResourceQuota")],
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.core.v1.ResourceQuota",
    ..CORE
};
