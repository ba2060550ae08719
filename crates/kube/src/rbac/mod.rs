//! Who may do what: role-based access control over the Role and Binding objects in the store.
//!
//! ```text
//! store ─ events of roles and bindings ─> Index (by subject) ─┐
//! User, Request ──────────────────────────────────────────────┴─> Decision
//! ```
//!
//! [`Authorizer::allowed`] takes in what has been written since the last question before it
//! answers, so a role that was granted or taken away counts from the next request on. Rules only
//! allow; what no rule allows is refused. Members of `system:masters` are not asked about.

mod authorizer;
mod bootstrap;
mod cover;
mod escalation;
mod index;
mod request;
mod rule;

pub use authorizer::{Authorizer, Decision};
pub(crate) use bootstrap::reconcile;
pub(crate) use cover::quoted;
pub(crate) use escalation::check as check_escalation;
pub use request::{Asked, Request};
pub use rule::Rule;
