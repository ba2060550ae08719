//! Built-in plugins, in upstream's order. Each looks at what concerns it and leaves the rest.

mod certificates;
mod limit_ranger;
mod namespace;
mod node;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::defaults;
use crate::object;
use crate::resource::{PODS, Resource};
use crate::status::Status;

/// The plugins that complete or change objects.
pub(super) fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    namespace::lifecycle(attributes)?;
    limit_ranger::mutate(attributes);
    service_account::mutate(attributes)?;
    node::taint(attributes);
    priority::mutate(attributes)?;
    if attributes.subresource.is_none() {
        complete(attributes.resource, attributes.old, &mut attributes.object);
    }
    storage::default_class(attributes);
    storage::in_use_protection(attributes);
    runtime_class::mutate(attributes)?;
    storage::default_ingress_class(attributes);
    node::topology_labels(attributes);
    if attributes.operation == Operation::Create && attributes.is_object(&PODS) {
        // What LimitRanger gave may have changed it.
        let class = defaults::qos_class(&attributes.object);
        object::map_mut(&mut attributes.object, "status").insert("qosClass".into(), class.into());
    }
    Ok(())
}

/// The plugins that only refuse (and warn).
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    limit_ranger::validate(attributes)?;
    pod_security::validate(attributes).await?;
    priority::validate(attributes)?;
    storage::resize(attributes)?;
    certificates::validate(attributes)
}

/// The part of admission that looks at nothing but the object.
pub(crate) fn complete(resource: &Resource, old: Option<&Value>, object: &mut Value) {
    let is_changed = || old.is_none_or(|old| old["spec"] != object["spec"]);
    if resource.is(&PODS) && object.is_object() && is_changed() {
        tolerations::complete(object);
    }
}
