//! Rows of `authentication.k8s.io`.

use super::{CORE, Resource, Scope};

/// The body of `serviceaccounts/token`; nothing of it is stored.
pub static TOKEN_REQUESTS: Resource = Resource {
    group: "authentication.k8s.io",
    plural: "tokenrequests",
    singular: "tokenrequest",
    kind: "TokenRequest",
    verbs: &[],
    schema: "io.k8s.api.authentication.v1.TokenRequest",
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
pub static TOKEN_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    plural: "tokenreviews",
    singular: "tokenreview",
    kind: "TokenReview",
    scope: Scope::Cluster,
    verbs: &["create"],
    schema: "io.k8s.api.authentication.v1.TokenReview",
    ..CORE
};
