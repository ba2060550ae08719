//! Admission: what may be in the cluster beyond the shape of one object.
//!
//! ```text
//!   defaults ── mutate: built-ins, webhooks ── validation ── validate: built-ins, policies,
//!                                                            webhooks, quota ── store
//! ```
//!
//! Both phases run the plugins in upstream's order. Warnings go to the request's
//! [`Notes`](crate::api::Notes), so that they reach the client with refusals too.

mod attributes;
mod builtin;

pub(crate) use attributes::{Attributes, Operation};
pub(crate) use builtin::complete;

use crate::status::Status;

/// What admission holds for a write until it is known how the write ended.
///
/// Dropped without [`Admitted::keep`], it is given back.
#[derive(Debug, Default)]
#[must_use = "a write that was done keeps what was reserved for it"]
pub(crate) struct Admitted {}

impl Admitted {
    /// The write is done.
    pub(crate) fn keep(self) {}
}

/// The phase that may change the object: after defaults, before validation.
pub(crate) async fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    builtin::mutate(attributes)
}

/// The phase that may only refuse: after validation, before the store.
pub(crate) async fn validate(attributes: &Attributes<'_>) -> Result<Admitted, Status> {
    builtin::validate(attributes)?;
    Ok(Admitted::default())
}

/// Both phases of a stream into a pod: `attributes.object` holds its options.
pub(crate) async fn connect(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    mutate(attributes).await?;
    validate(attributes).await?.keep();
    Ok(())
}
