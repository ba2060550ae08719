//! Rows of `discovery.k8s.io`.

use super::{CORE, Resource};

pub static ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    plural: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    has_generation: true,
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    ..CORE
};
