//! Rows of `rbac.authorization.k8s.io`.

use super::{CORE, NameRule, Resource, Scope};

pub static CLUSTER_ROLE_BINDINGS: Resource = Resource {
    group: "rbac.authorization.k8s.io",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    kind: "ClusterRoleBinding",
    scope: Scope::Cluster,
    names: NameRule::PathSegment,
    schema: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    created_by_update: true,
    ..CORE
};

pub static CLUSTER_ROLES: Resource = Resource {
    group: "rbac.authorization.k8s.io",
    plural: "clusterroles",
    singular: "clusterrole",
    kind: "ClusterRole",
    scope: Scope::Cluster,
    names: NameRule::PathSegment,
    schema: "io.k8s.api.rbac.v1.ClusterRole",
    created_by_update: true,
    ..CORE
};

pub static ROLE_BINDINGS: Resource = Resource {
    group: "rbac.authorization.k8s.io",
    plural: "rolebindings",
    singular: "rolebinding",
    kind: "RoleBinding",
    names: NameRule::PathSegment,
    schema: "io.k8s.api.rbac.v1.RoleBinding",
    created_by_update: true,
    ..CORE
};

pub static ROLES: Resource = Resource {
    group: "rbac.authorization.k8s.io",
    plural: "roles",
    singular: "role",
    kind: "Role",
    names: NameRule::PathSegment,
    schema: "io.k8s.api.rbac.v1.Role",
    created_by_update: true,
    ..CORE
};
