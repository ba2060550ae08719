//! Rows of `coordination.k8s.io`.

use super::{CORE, Resource};

pub static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    plural: "leases",
    singular: "lease",
    kind: "Lease",
    schema: "io.k8s.api.coordination.v1.Lease",
    created_by_update: true,
    needs_revision: true,
    ..CORE
};
