//! The forms of an object: as the request brings it, and as a webhook or policy wants to see it.

use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::matching::Form;
use crate::api::scale::{scale_of, set_replicas};
use crate::convert;
use crate::object;
use crate::resource::{Resource, StatusPart};
use crate::status::Status;

/// `object` (of the request, or the old one) in the form `form`. Null stays null.
pub(super) async fn shown(
    attributes: &Attributes<'_>,
    form: &Form,
    object: &Value,
) -> Result<Value, Status> {
    if object.is_null() {
        return Ok(Value::Null);
    }
    // The scale of a workload is one object, whichever form the workload is in.
    if attributes.subresource == Some("scale") {
        return Ok(scale_of(attributes.resource, object));
    }
    match &form.0 {
        Some(row) if is_whole(attributes) => {
            between(attributes.resource, row, object.clone()).await
        }
        Some(_) | None => Ok(object.clone()),
    }
}

/// Makes what a webhook left of the shown object the object of the request.
pub(super) async fn take(
    attributes: &mut Attributes<'_>,
    form: &Form,
    shown: Value,
) -> Result<(), Status> {
    if attributes.subresource == Some("scale") {
        let replicas = shown["spec"]["replicas"].as_i64().unwrap_or(0);
        set_replicas(attributes.resource, &mut attributes.object, replicas);
        return Ok(());
    }
    let mut object = match &form.0 {
        Some(row) if is_whole(attributes) => between(row, attributes.resource, shown).await?,
        Some(_) | None => shown,
    };
    if is_whole(attributes) {
        keep_identity(&attributes.object, &mut object);
        let has_part = attributes.resource.status == StatusPart::Subresource;
        if has_part && attributes.subresource != Some("status") {
            keep(&attributes.object, &mut object, "status");
        }
        let (api, old) = (attributes.api, attributes.old);
        api.completed(attributes.resource, old, &mut object)?;
    }
    attributes.object = object;
    Ok(())
}

/// Whether the request carries the object and not something of its own.
fn is_whole(attributes: &Attributes<'_>) -> bool {
    let is_write = matches!(attributes.operation, Operation::Create | Operation::Update);
    is_write && matches!(attributes.subresource, None | Some("status" | "finalize"))
}

/// Who an object is, is not for webhooks to say.
fn keep_identity(before: &Value, after: &mut Value) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        keep(
            &before["metadata"],
            object::ensure_at(after, "metadata"),
            field,
        );
    }
}

fn keep(before: &Value, after: &mut Value, field: &str) {
    let Some(after) = after.as_object_mut() else {
        return;
    };
    match before.get(field) {
        Some(value) => drop(after.insert(field.to_owned(), value.clone())),
        None => drop(after.remove(field)),
    }
}

async fn between(from: &Resource, to: &Resource, mut object: Value) -> Result<Value, Status> {
    if let Some(kind) = &from.custom {
        object = kind.to_stored(object).await?;
    }
    convert::to_stored(from, &mut object);
    if let Some(kind) = &to.custom {
        kind.present(&mut object);
        let converted = kind.convert(vec![object]).await?.pop();
        object = converted.ok_or_else(|| Status::internal("a conversion lost the object"))?;
    }
    convert::from_stored(to, &mut object);
    Ok(object)
}
