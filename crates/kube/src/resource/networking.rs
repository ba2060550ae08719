//! Rows of `networking.k8s.io`.

use super::{CORE, NameRule, Resource, Scope, StatusPart, status_of};

pub static INGRESS_CLASSES: Resource = Resource {
    group: "networking.k8s.io",
    plural: "ingressclasses",
    singular: "ingressclass",
    kind: "IngressClass",
    scope: Scope::Cluster,
    has_generation: true,
    schema: "io.k8s.api.networking.v1.IngressClass",
    ..CORE
};

pub static INGRESSES: Resource = Resource {
    group: "networking.k8s.io",
    plural: "ingresses",
    singular: "ingress",
    kind: "Ingress",
    short_names: &["ing"],
    subresources: &[status_of("Ingress")],
    status: StatusPart::Subresource,
    has_generation: true,
    schema: "io.k8s.api.networking.v1.Ingress",
    ..CORE
};

pub static IP_ADDRESSES: Resource = Resource {
    group: "networking.k8s.io",
    plural: "ipaddresses",
    singular: "ipaddress",
    kind: "IPAddress",
    scope: Scope::Cluster,
    short_names: &["ip"],
    names: NameRule::IpAddress,
    schema: "io.k8s.api.networking.v1.IPAddress",
    ..CORE
};

pub static NETWORK_POLICIES: Resource = Resource {
    group: "networking.k8s.io",
    plural: "networkpolicies",
    singular: "networkpolicy",
    kind: "NetworkPolicy",
    short_names: &["netpol"],
    has_generation: true,
    schema: "io.k8s.api.networking.v1.NetworkPolicy",
    ..CORE
};

pub static SERVICE_CIDRS: Resource = Resource {
    group: "networking.k8s.io",
    plural: "servicecidrs",
    singular: "servicecidr",
    kind: "ServiceCIDR",
    scope: Scope::Cluster,
    subresources: &[status_of("ServiceCIDR")],
    status: StatusPart::Subresource,
    schema: "io.k8s.api.networking.v1.ServiceCIDR",
    ..CORE
};
