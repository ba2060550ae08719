//! Secrets of apps: sealed where they are kept, opened where a machine boots.
//!
//! ```text
//!  API ── set ──► Handle (authority) ── seal ──► directory ──► copies on every host (ciphertext)
//!                    ▲      │ key: file 0600, environment, or a command
//!                    │      └ open ◄── show_secrets
//!                    │ rpc: /secrets/v1/of-app
//!  worker ── values ─┴─ Handle (elsewhere)              only for apps that have machines there
//! ```
//!
//! The directory's host alone can open a secret. Others have the ciphertexts: enough to know that
//! an app has none, and which version there is. What comes out of here goes into the specification
//! of one boot, and is kept nowhere.
//!
//! Each app has a key of its own, derived from the root key and the app's id; app and name of a
//! secret are bound into its seal, so that a ciphertext is of no use in another place.

mod handle;
mod keys;
mod seal;
mod serve;
mod value;

pub use handle::{Error, Handle, Rotated};
pub use keys::{KeyError, KeySource, Keyring};
pub use seal::{InvalidSecret, NAME_BYTES_MAX, VALUE_BYTES_MAX};
pub use serve::{IsPlaced, router};
pub use value::{AppSecrets, Secret};

#[cfg(test)]
mod tests;
