//! Rows of `apiextensions.k8s.io`.

use super::{CORE, Resource, Scope, StatusPart, status_of};

pub static CUSTOM_RESOURCE_DEFINITIONS: Resource = Resource {
    group: "apiextensions.k8s.io",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    kind: "CustomResourceDefinition",
    scope: Scope::Cluster,
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[status_of("CustomResourceDefinition")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    needs_revision: true,
    ..CORE
};
