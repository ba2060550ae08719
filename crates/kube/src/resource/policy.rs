//! Rows of `policy`.

use super::{CORE, Resource, StatusPart, status_of};

pub static POD_DISRUPTION_BUDGETS: Resource = Resource {
    group: "policy",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    kind: "PodDisruptionBudget",
    short_names: &["pdb"],
    subresources: &[status_of("PodDisruptionBudget")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
    ..CORE
};
