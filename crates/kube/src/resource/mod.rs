//! The resources that are served: one row each, everything else is generic.
//!
//! ```text
//!   core, apps, ...   rows that are always there: statics
//!   crate::custom     rows that CustomResourceDefinitions make: shared, replaced as a whole
//!          └──────> catalog: what is served now
//! ```
//!
//! A row is plain words. Those of a custom resource are interned (see `words`), so that a row, an
//! error or a target of a request names its resource for nothing, whoever has defined it.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod catalog;
mod certificates;
mod coordination;
mod core;
mod devices;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod scheduling;
mod storage;
mod words;

use std::ops::Deref;
use std::sync::Arc;

pub use self::admissionregistration::{
    MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS, VALIDATING_WEBHOOK_CONFIGURATIONS,
};
pub use self::apiextensions::CUSTOM_RESOURCE_DEFINITIONS;
pub use self::apiregistration::API_SERVICES;
pub use self::apps::{CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS};
pub use self::authentication::{SELF_SUBJECT_REVIEWS, TOKEN_REQUESTS, TOKEN_REVIEWS};
pub use self::authorization::{
    LOCAL_SUBJECT_ACCESS_REVIEWS, SELF_SUBJECT_ACCESS_REVIEWS, SELF_SUBJECT_RULES_REVIEWS,
    SUBJECT_ACCESS_REVIEWS,
};
pub(crate) use self::autoscaling::SCALES;
pub use self::autoscaling::{HORIZONTAL_POD_AUTOSCALERS, HORIZONTAL_POD_AUTOSCALERS_V1};
pub use self::batch::{CRON_JOBS, JOBS};
pub use self::catalog::{Catalog, Snapshot};
pub use self::certificates::CERTIFICATE_SIGNING_REQUESTS;
pub use self::coordination::LEASES;
pub use self::core::{
    BINDINGS, COMPONENT_STATUSES, CONFIG_MAPS, ENDPOINTS, EVENTS, LIMIT_RANGES, NAMESPACES, NODES,
    PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, POD_TEMPLATES, PODS, REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS, SECRETS, SERVICE_ACCOUNTS, SERVICES,
};
pub use self::devices::{
    DEVICE_CLASSES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS, RESOURCE_SLICES,
};
pub use self::discovery::ENDPOINT_SLICES;
pub use self::events::EVENTS_V1;
pub use self::flowcontrol::{FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS};
pub use self::networking::{
    INGRESS_CLASSES, INGRESSES, IP_ADDRESSES, NETWORK_POLICIES, SERVICE_CIDRS,
};
pub use self::node::RUNTIME_CLASSES;
pub use self::policy::POD_DISRUPTION_BUDGETS;
pub use self::rbac::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};
pub use self::scheduling::PRIORITY_CLASSES;
pub use self::storage::{
    CSI_DRIVERS, CSI_NODES, CSI_STORAGE_CAPACITIES, STORAGE_CLASSES, VOLUME_ATTACHMENTS,
    VOLUME_ATTRIBUTES_CLASSES,
};
pub(crate) use self::words::{WordsFull, intern, intern_all};
use crate::custom;

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
    /// Anything that can be one segment of a path.
    PathSegment,
    /// An IP address in its canonical form.
    IpAddress,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subresource {
    pub name: &'static str,
    /// Kind of its body.
    pub kind: &'static str,
    /// Group and version of that kind where they are not the resource's own.
    pub group_version: Option<(&'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

/// One resource type in one version. Rows are compared by group and plural ([`Resource::is`]).
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
    /// Whether an update of what is not there creates it.
    pub created_by_update: bool,
    /// Whether an update must say which revision it replaces.
    pub needs_revision: bool,
    /// Whether a deletion that does not say leaves the dependents alive.
    pub orphans_by_default: bool,
    /// Name of its type in the schema table; empty for a custom resource.
    pub schema: &'static str,
    /// The row whose form and place its objects have in the store, if they are not its own: see
    /// [`crate::convert`].
    pub stored_as: Option<&'static Resource>,
    /// What its CustomResourceDefinition says, where there is one.
    pub custom: Option<Arc<custom::Kind>>,
}

/// A served row: a static one, or one that a CustomResourceDefinition has made. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Row {
    BuiltIn(&'static Resource),
    Custom(Arc<Resource>),
}

impl Deref for Row {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            Row::BuiltIn(resource) => resource,
            Row::Custom(resource) => resource,
        }
    }
}

impl From<&'static Resource> for Row {
    fn from(resource: &'static Resource) -> Self {
        Row::BuiltIn(resource)
    }
}

impl From<Arc<Resource>> for Row {
    fn from(resource: Arc<Resource>) -> Self {
        Row::Custom(resource)
    }
}

impl Resource {
    /// What the rows of custom resources have in common.
    pub(crate) const CUSTOM: Resource = Resource {
        needs_revision: true,
        ..CORE
    };

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
        let group = match self.stored_as.map_or(self.group, |stored| stored.group) {
            "" => "core",
            group => group,
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

    /// Whether its objects are in the store as those of `other`.
    pub fn is_stored_as(&self, other: &Resource) -> bool {
        self.stored_as.unwrap_or(self).is(other)
    }
}

pub(crate) const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
pub(crate) const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

pub(crate) const fn status_of(kind: &'static str) -> Subresource {
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
    created_by_update: false,
    needs_revision: false,
    orphans_by_default: false,
    schema: "",
    stored_as: None,
    custom: None,
};

/// Replicas of a workload, beside the workload.
pub(crate) const SCALE: Subresource = Subresource {
    name: "scale",
    kind: "Scale",
    group_version: Some(("autoscaling", "v1")),
    verbs: GET_PATCH_UPDATE,
};

/// The rows that are always there, groups together, in the order of discovery.
pub static BUILT_IN: &[&Resource] = &[
    &BINDINGS,
    &COMPONENT_STATUSES,
    &CONFIG_MAPS,
    &ENDPOINTS,
    &EVENTS,
    &LIMIT_RANGES,
    &NAMESPACES,
    &NODES,
    &PERSISTENT_VOLUME_CLAIMS,
    &PERSISTENT_VOLUMES,
    &PODS,
    &POD_TEMPLATES,
    &REPLICATION_CONTROLLERS,
    &RESOURCE_QUOTAS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &API_SERVICES,
    &CONTROLLER_REVISIONS,
    &DAEMON_SETS,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &STATEFUL_SETS,
    &EVENTS_V1,
    &SELF_SUBJECT_REVIEWS,
    &TOKEN_REVIEWS,
    &LOCAL_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_RULES_REVIEWS,
    &SUBJECT_ACCESS_REVIEWS,
    &HORIZONTAL_POD_AUTOSCALERS,
    &HORIZONTAL_POD_AUTOSCALERS_V1,
    &CRON_JOBS,
    &JOBS,
    &CERTIFICATE_SIGNING_REQUESTS,
    &INGRESS_CLASSES,
    &INGRESSES,
    &IP_ADDRESSES,
    &NETWORK_POLICIES,
    &SERVICE_CIDRS,
    &POD_DISRUPTION_BUDGETS,
    &CLUSTER_ROLE_BINDINGS,
    &CLUSTER_ROLES,
    &ROLE_BINDINGS,
    &ROLES,
    &CSI_DRIVERS,
    &CSI_NODES,
    &CSI_STORAGE_CAPACITIES,
    &STORAGE_CLASSES,
    &VOLUME_ATTACHMENTS,
    &VOLUME_ATTRIBUTES_CLASSES,
    &MUTATING_ADMISSION_POLICIES,
    &MUTATING_ADMISSION_POLICY_BINDINGS,
    &MUTATING_WEBHOOK_CONFIGURATIONS,
    &VALIDATING_ADMISSION_POLICIES,
    &VALIDATING_ADMISSION_POLICY_BINDINGS,
    &VALIDATING_WEBHOOK_CONFIGURATIONS,
    &CUSTOM_RESOURCE_DEFINITIONS,
    &PRIORITY_CLASSES,
    &LEASES,
    &RUNTIME_CLASSES,
    &ENDPOINT_SLICES,
    &FLOW_SCHEMAS,
    &PRIORITY_LEVEL_CONFIGURATIONS,
    &DEVICE_CLASSES,
    &RESOURCE_CLAIM_TEMPLATES,
    &RESOURCE_CLAIMS,
    &RESOURCE_SLICES,
];
