//! Rows of `apiregistration.k8s.io`.

use super::{CORE, NameRule, Resource, Scope, StatusPart, status_of};

pub static API_SERVICES: Resource = Resource {
    group: "apiregistration.k8s.io",
    plural: "apiservices",
    singular: "apiservice",
    kind: "APIService",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[status_of("APIService")],
    names: NameRule::PathSegment,
    status: StatusPart::Subresource,
    schema: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    needs_revision: true,
    ..CORE
};
