//! Built-in kinds that are served in more than one form, and stored in one.
//!
//! ```text
//!   autoscaling/v1  HorizontalPodAutoscaler ──┐
//!   autoscaling/v2  HorizontalPodAutoscaler ──┴─> stored as autoscaling/v2
//!   events.k8s.io/v1  Event ──┐
//!                 v1  Event ──┴────────────────> stored as v1
//! ```
//!
//! Everything between the client and the store (defaults, admission, validation, managed fields)
//! happens in the form that the client uses, as upstream does it. Pure.

mod autoscaler;
mod event;

pub(crate) use autoscaler::cpu_utilization;
use serde_json::{Map, Value};

use crate::object::map_mut;
use crate::resource::{EVENTS_V1, HORIZONTAL_POD_AUTOSCALERS_V1, Resource};

/// Brings an object of `resource` to the form that it is stored in.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    let Some(stored) = resource.stored_as else {
        return;
    };
    if resource.is(&EVENTS_V1) {
        event::to_core(object);
    } else if resource.is(&HORIZONTAL_POD_AUTOSCALERS_V1) {
        autoscaler::to_v2(object);
    }
    name_kind(stored, object);
}

/// Brings a stored object to the form of `resource`.
pub(crate) fn from_stored(resource: &Resource, object: &mut Value) {
    if resource.stored_as.is_none() {
        return;
    }
    if resource.is(&EVENTS_V1) {
        event::from_core(object);
    } else if resource.is(&HORIZONTAL_POD_AUTOSCALERS_V1) {
        autoscaler::to_v1(object);
    }
    name_kind(resource, object);
}

fn name_kind(resource: &Resource, object: &mut Value) {
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.into();
}

/// Renames keys of a map, where they are.
fn rename(map: &mut Map<String, Value>, names: impl Iterator<Item = (&'static str, &'static str)>) {
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

/// The object's annotations, made if there are none.
fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(&mut object["metadata"], "annotations")
}
