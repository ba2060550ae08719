//! Rows of `autoscaling`.

use super::{CORE, Resource};

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
