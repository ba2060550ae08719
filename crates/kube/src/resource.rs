//! The resources that are served: one row each, everything else is generic.

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What a name must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label, at most 63 characters.
    Label,
    /// RFC 1123 subdomain, at most 253 characters.
    Subdomain,
    /// RFC 1035 label, at most 63 characters: one that does not begin with a digit.
    Label1035,
}

/// What happens to the status part on writes of the whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPart {
    /// The object has no status subresource.
    None,
    /// Only `/status` writes it.
    Subresource,
}

/// A second endpoint of a resource, below the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    /// Kind of its body.
    pub kind: &'static str,
    /// Group and version of that kind where they are not the resource's own.
    pub group_version: Option<(&'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

/// One resource type. Rows are compared by identity of group and plural.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub scope: Scope,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub names: NameRule,
    pub status: StatusPart,
    /// Whether `metadata.generation` counts changes of the specification.
    pub has_generation: bool,
    /// A deletion answers with the object, not with a Status.
    pub returns_deleted: bool,
    /// Name of its type in the schema table.
    pub schema: &'static str,
}

impl Resource {
    /// `v1`, or `group/version`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `pods`, or `leases.coordination.k8s.io`.
    pub fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Key prefix of all objects, or of those in `namespace`, in the store.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        let group = if self.group.is_empty() {
            "core"
        } else {
            self.group
        };
        match namespace {
            Some(namespace) => format!("/registry/{group}/{}/{namespace}/", self.plural),
            None => format!("/registry/{group}/{}/", self.plural),
        }
    }

    /// Key of an object in the store.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        self.prefix(namespace) + name
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    pub fn is(&self, other: &Resource) -> bool {
        (self.group, self.plural) == (other.group, other.plural)
    }
}

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const fn status_of(kind: &'static str) -> Subresource {
    Subresource {
        name: "status",
        kind,
        group_version: None,
        verbs: GET_PATCH_UPDATE,
    }
}

/// What most resources have in common.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    scope: Scope::Namespaced,
    short_names: &[],
    categories: &[],
    verbs: ALL_VERBS,
    subresources: &[],
    names: NameRule::Subdomain,
    status: StatusPart::None,
    has_generation: false,
    returns_deleted: false,
    schema: "",
};

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

/// Replicas of a workload, beside the workload.
const SCALE: Subresource = Subresource {
    name: "scale",
    kind: "Scale",
    group_version: Some(("autoscaling", "v1")),
    verbs: GET_PATCH_UPDATE,
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

/// The body of the subresource `scale`; nothing of it is stored.
pub(crate) static SCALES: Resource = Resource {
    group: "autoscaling",
    plural: "scales",
    singular: "scale",
    kind: "Scale",
    verbs: &[],
    schema: "io.k8s.api.autoscaling.v1.Scale",
    ..CORE
};

pub static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    plural: "leases",
    singular: "lease",
    kind: "Lease",
    schema: "io.k8s.api.coordination.v1.Lease",
    ..CORE
};

pub static ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    plural: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    ..CORE
};

pub static RUNTIME_CLASSES: Resource = Resource {
    group: "node.k8s.io",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    kind: "RuntimeClass",
    scope: Scope::Cluster,
    schema: "io.k8s.api.node.v1.RuntimeClass",
    ..CORE
};

/// A question that is answered and not stored.
pub static SELF_SUBJECT_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    kind: "SelfSubjectReview",
    scope: Scope::Cluster,
    verbs: &["create"],
    schema: "io.k8s.api.authentication.v1.SelfSubjectReview",
    ..CORE
};

/// A question that is answered and not stored.
pub static SELF_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    kind: "SelfSubjectAccessReview",
    scope: Scope::Cluster,
    verbs: &["create"],
    schema: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    ..CORE
};

/// Everything served, groups together, in the order of discovery.
pub static ALL: &[&Resource] = &[
    &CONFIG_MAPS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &PODS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &SELF_SUBJECT_REVIEWS,
    &SELF_SUBJECT_ACCESS_REVIEWS,
    &LEASES,
    &ENDPOINT_SLICES,
    &RUNTIME_CLASSES,
];

/// The row of a path, if it is served.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    ALL.iter().copied().find(|resource| {
        (resource.group, resource.version, resource.plural) == (group, version, plural)
    })
}

/// The row of a kind that can be stored, as references between objects name it.
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    ALL.iter().copied().find(|resource| {
        resource.kind == kind
            && resource.api_version() == api_version
            && resource.verbs.contains(&"get")
    })
}

/// The groups and versions served, in the order of discovery.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = ALL
        .iter()
        .map(|resource| (resource.group, resource.version))
        .collect();
    all.dedup();
    all
}
