//! Rows of `policy`.

use super::{CORE, NameRule, Resource, StatusPart, status_of};

pub static POD_DISRUPTION_BUDGETS: Resource = Resource {
    group: "policy",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    kind: "PodDisruptionBudget",
    short_names: &["pdb"],
    // Upstream looks at the selector of a budget and not at its name.
    names: NameRule::PathSegment,
    subresources: &[status_of("PodDisruptionBudget")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
    needs_revision: true,
    ..CORE
};
