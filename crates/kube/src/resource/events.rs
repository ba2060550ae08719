//! Rows of `events.k8s.io`.

use super::{CORE, EVENTS, Resource};

/// The events of the core group under other names.
pub static EVENTS_V1: Resource = Resource {
    group: "events.k8s.io",
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    schema: "io.k8s.api.events.v1.Event",
    stored_as: Some(&EVENTS),
    created_by_update: true,
    ..CORE
};
