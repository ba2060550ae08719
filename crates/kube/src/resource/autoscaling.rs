//! Rows of `autoscaling`.

use super::{CORE, Resource, StatusPart, status_of};

/// Version 2, which is the stored one.
pub static HORIZONTAL_POD_AUTOSCALERS: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    kind: "HorizontalPodAutoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status_of("HorizontalPodAutoscaler")],
    status: StatusPart::Subresource,
    schema: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    ..CORE
};

pub static HORIZONTAL_POD_AUTOSCALERS_V1: Resource = Resource {
    group: "autoscaling",
    version: "v1",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    kind: "HorizontalPodAutoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status_of("HorizontalPodAutoscaler")],
    status: StatusPart::Subresource,
    schema: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    stored_as: Some(&HORIZONTAL_POD_AUTOSCALERS),
    ..CORE
};

/// The body of the subresource `scale`; nothing of it is stored.
pub(crate) static SCALES: Resource = Resource {
    group: "autoscaling",
    plural: "scales",
    singular: "scale",
    kind: "Scale",
    verbs: &[],
    schema: "io.k8s.api.autoscaling.v1.Scale",
    ..CORE
};
