//! Rows of `admissionregistration.k8s.io`.

use super::{CORE, Resource, Scope, StatusPart, status_of};

pub static MUTATING_ADMISSION_POLICIES: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    kind: "MutatingAdmissionPolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    needs_revision: true,
    ..CORE
};

pub static MUTATING_ADMISSION_POLICY_BINDINGS: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    kind: "MutatingAdmissionPolicyBinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    needs_revision: true,
    ..CORE
};

pub static MUTATING_WEBHOOK_CONFIGURATIONS: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    kind: "MutatingWebhookConfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    needs_revision: true,
    ..CORE
};

pub static VALIDATING_ADMISSION_POLICIES: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    kind: "ValidatingAdmissionPolicy",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[status_of("ValidatingAdmissionPolicy")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    needs_revision: true,
    ..CORE
};

pub static VALIDATING_ADMISSION_POLICY_BINDINGS: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    kind: "ValidatingAdmissionPolicyBinding",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    needs_revision: true,
    ..CORE
};

pub static VALIDATING_WEBHOOK_CONFIGURATIONS: Resource = Resource {
    group: "admissionregistration.k8s.io",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    kind: "ValidatingWebhookConfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    has_generation: true,
    schema: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    needs_revision: true,
    ..CORE
};
