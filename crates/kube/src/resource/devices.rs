//! Rows of `resource.k8s.io`: devices, and claims to them.

use super::{CORE, Resource, Scope, StatusPart, status_of};

const GROUP: &str = "resource.k8s.io";

pub static DEVICE_CLASSES: Resource = Resource {
    group: GROUP,
    plural: "deviceclasses",
    singular: "deviceclass",
    kind: "DeviceClass",
    scope: Scope::Cluster,
    has_generation: true,
    returns_deleted: true,
    schema: "io.k8s.api.resource.v1.DeviceClass",
    ..CORE
};

pub static RESOURCE_CLAIMS: Resource = Resource {
    group: GROUP,
    plural: "resourceclaims",
    singular: "resourceclaim",
    kind: "ResourceClaim",
    subresources: &[status_of("ResourceClaim")],
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.resource.v1.ResourceClaim",
    ..CORE
};

pub static RESOURCE_CLAIM_TEMPLATES: Resource = Resource {
    group: GROUP,
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    kind: "ResourceClaimTemplate",
    returns_deleted: true,
    schema: "io.k8s.api.resource.v1.ResourceClaimTemplate",
    ..CORE
};

pub static RESOURCE_SLICES: Resource = Resource {
    group: GROUP,
    plural: "resourceslices",
    singular: "resourceslice",
    kind: "ResourceSlice",
    scope: Scope::Cluster,
    has_generation: true,
    returns_deleted: true,
    schema: "io.k8s.api.resource.v1.ResourceSlice",
    ..CORE
};
