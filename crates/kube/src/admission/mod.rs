//! Admission: what may be in the cluster beyond the shape of one object.
//!
//! ```text
//!   defaults ── mutate: built-ins, policies, webhooks ── validation
//!            ── validate: built-ins, policies, webhooks, quota ── store
//! ```
//!
//! Both phases run the plugins in upstream's order. Warnings go to the request's
//! [`Notes`](crate::api::Notes), so that they reach the client with refusals too.

pub(crate) mod amounts;
mod attributes;
mod builtin;
mod expressions;
mod forms;
mod index;
mod matching;
mod policies;
pub(crate) mod quota;
mod state;
mod webhooks;

pub(crate) use attributes::{Attributes, Operation};
pub(crate) use builtin::complete;
pub(crate) use index::Index;
pub(crate) use state::State;
pub use state::{AdmissionConfig, NodeTaints, PodSecurityConfig, ServiceAccounts};

use crate::rbac;
use crate::status::Status;

/// What admission holds for a write until it is known how the write ended.
///
/// Dropped without [`Admitted::keep`], it is given back.
#[derive(Debug, Default)]
#[must_use = "a write that was done keeps what was reserved for it"]
pub(crate) struct Admitted {
    reservation: quota::Reservation,
}

impl Admitted {
    /// The write is done.
    pub(crate) fn keep(self) {
        self.reservation.keep();
    }
}

/// The phase that may change the object: after defaults, before validation.
pub(crate) async fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    builtin::mutate(attributes)?;
    let by_policies = policies::mutate(attributes).await?;
    let round = webhooks::mutate(attributes).await?;
    if by_policies.is_changed || round.is_changed {
        // What was added is completed like the rest, and who asked for it sees it once more.
        builtin::mutate(attributes)?;
        policies::mutate_again(attributes, by_policies.reinvocable).await?;
        webhooks::mutate_again(attributes, round.reinvocable).await?;
    }
    Ok(())
}

/// The phase that may only refuse: after validation, before the store.
pub(crate) async fn validate(attributes: &Attributes<'_>) -> Result<Admitted, Status> {
    if matches!(attributes.operation, Operation::Create | Operation::Update) {
        rbac::check_escalation(
            attributes.api,
            attributes.resource,
            attributes.namespace,
            attributes.old,
            &attributes.object,
        )?;
    }
    builtin::validate(attributes).await?;
    policies::validate(attributes).await?;
    webhooks::validate(attributes).await?;
    // Last, so that nothing is reserved for what is refused.
    let reservation = quota::reserve(attributes).await?;
    Ok(Admitted { reservation })
}

/// Both phases of a stream into a pod: `attributes.object` holds its options.
pub(crate) async fn connect(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    mutate(attributes).await?;
    validate(attributes).await?.keep();
    Ok(())
}
