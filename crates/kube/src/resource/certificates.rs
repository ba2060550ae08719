//! Rows of `certificates.k8s.io`.

use super::{
    CORE, GET_PATCH_UPDATE, NameRule, Resource, Scope, StatusPart, Subresource, status_of,
};

pub static CERTIFICATE_SIGNING_REQUESTS: Resource = Resource {
    group: "certificates.k8s.io",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    kind: "CertificateSigningRequest",
    scope: Scope::Cluster,
    short_names: &["csr"],
    subresources: &[
        Subresource {
            name: "approval",
            kind: "CertificateSigningRequest",
            group_version: None,
            verbs: GET_PATCH_UPDATE,
        },
        status_of("CertificateSigningRequest"),
    ],
    names: NameRule::PathSegment,
    status: StatusPart::Subresource,
    schema: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    ..CORE
};
