//! Rows of `authentication.k8s.io`.

use super::{CORE, Resource, Scope};

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
