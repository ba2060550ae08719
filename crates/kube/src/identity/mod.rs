//! Who calls: users, and how a request proves to be one's.
//!
//! ```text
//! TLS certificate ──┐
//! bearer token ─────┼─> Authenticator ─> User ─> impersonation ─> rbac::Authorizer
//! nothing ──────────┘       │              (as somebody else)
//!                           └─ invalid: 401, before anything else is looked at
//! ```

mod user;

pub use user::User;
pub(crate) use user::{AUTHENTICATED, service_account_name};
