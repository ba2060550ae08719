//! The fleet: who belongs to it, and how a host comes to.
//!
//! ```text
//!   founder                                     newcomer
//!   `Identity::open` makes the authority        `aerostat join aero1-…`
//!        │                                          │ keys of its own, in memory
//!        │ `invite`: address, fingerprint, secret   │
//!        ├───────────────── token ────────────────► │
//!        │ ◄── TLS, authority pinned by the fingerprint: secret, public keys ──
//!   secret spent, number given, record stored       │
//!        │ ───────── certificate, the hosts that are there ──► identity, whole, on disk
//! ```
//!
//! A host is its certificate: the fleet's authority says that this id has this signing key and this
//! key in the mesh. Records of hosts travel through third parties, so whoever gets one asks
//! [`verify_record`]. The authority's own key never leaves the host that founded the fleet.

mod certificate;
mod files;
mod fuzz;
mod identity;
mod invite;
pub mod join;
mod record;
#[cfg(test)]
mod tests;
mod token;

pub use fuzz::fuzz_record;
pub use identity::{Found, Identity, IdentityError};
pub use invite::{InviteError, invite};
pub use record::{BadRecord, VerifyKey, verify_record};
pub use token::{InvalidToken, Token};
