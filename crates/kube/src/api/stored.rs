//! Between an object and its bytes in the store.
//!
//! ```text
//!   object, in the version of its row ── to the storage version ── JSON ──> bytes
//!   object, in the version of its row <── from whichever was stored ── JSON <── bytes
//! ```
//!
//! Built-in kinds are converted by [`crate::convert`]. Only a custom resource with a conversion
//! webhook has to wait on the way; for all others the second half is done at once. What need not be
//! looked at goes out as it is stored: see [`verbatim`].

use bytes::Bytes;
use serde_json::Value;

use super::verbatim;
use crate::convert;
use crate::object;
use crate::resource::Resource;
use crate::secrecy;
use crate::status::Status;

/// The object as it is stored: without its revision, which the store knows better.
pub(super) async fn encode(resource: &Resource, object: &Value) -> Result<Bytes, Status> {
    let mut converted = None;
    if let Some(kind) = &resource.custom {
        let mut object = object.clone();
        object::meta_mut(&mut object).remove("resourceVersion");
        converted = Some(kind.to_stored(object).await?);
    } else if resource.stored_as.is_some() {
        let object = converted.insert(object.clone());
        convert::to_stored(resource, object);
    }
    let bytes = verbatim::write(converted.as_ref().unwrap_or(object))
        .map_err(|error| Status::internal(format!("cannot encode the object: {error}")))?;
    Ok(verbatim::stored(bytes))
}

/// A stored object with its revision. It is in the version of `resource`, unless a webhook has to
/// convert it: see [`convert`].
pub(super) fn decode(resource: &Resource, entry: &store::Entry) -> Result<Value, Status> {
    decode_at(resource, entry, entry.rev)
}

/// [`decode`], with the revision of something that happened later.
pub(super) fn decode_at(
    resource: &Resource,
    entry: &store::Entry,
    rev: u64,
) -> Result<Value, Status> {
    if secrecy::is_sealed(&entry.value) {
        return Err(sealed(&entry.value));
    }
    let mut object: Value = serde_json::from_slice(&entry.value)
        .map_err(|error| Status::internal(format!("cannot read a stored object: {error}")))?;
    object::set_resource_version(&mut object, rev);
    if let Some(kind) = &resource.custom {
        kind.present(&mut object);
    }
    convert::from_stored(resource, &mut object);
    Ok(object)
}

/// An object that could not be opened on its way up. The log has the cause.
fn sealed(value: &[u8]) -> Status {
    let id = secrecy::key_id(value).unwrap_or_default();
    Status::internal(format!(
        "a stored Secret is encrypted with key {id:?}, and this server cannot open it; restore the \
         key file from a backup"
    ))
}

/// Brings decoded objects to the version of `resource`, by its webhook where it has one.
pub(super) async fn convert(
    resource: &Resource,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    match &resource.custom {
        Some(kind) => kind.convert(objects).await,
        None => Ok(objects),
    }
}

/// [`decode`] and [`convert`] of one.
pub(super) async fn decode_whole(
    resource: &Resource,
    entry: &store::Entry,
) -> Result<Value, Status> {
    convert_one(resource, decode(resource, entry)?).await
}

/// [`convert`] of one.
pub(super) async fn convert_one(resource: &Resource, object: Value) -> Result<Value, Status> {
    if resource.custom.is_none() {
        return Ok(object);
    }
    let converted = convert(resource, vec![object]).await?.pop();
    converted.ok_or_else(|| Status::internal("the conversion lost the object"))
}
