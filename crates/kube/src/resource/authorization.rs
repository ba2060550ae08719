//! Rows of `authorization.k8s.io`.

use super::{CORE, Resource, Scope};

/// A question that is answered and not stored.
pub static LOCAL_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    kind: "LocalSubjectAccessReview",
    verbs: &["create"],
    schema: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
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

/// A question that is answered and not stored.
pub static SELF_SUBJECT_RULES_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    kind: "SelfSubjectRulesReview",
    scope: Scope::Cluster,
    verbs: &["create"],
    schema: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    ..CORE
};

/// A question that is answered and not stored.
pub static SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    kind: "SubjectAccessReview",
    scope: Scope::Cluster,
    verbs: &["create"],
    schema: "io.k8s.api.authorization.v1.SubjectAccessReview",
    ..CORE
};
