//! Tokens: who may do what, as text that any host can check and any holder can restrict further.
//!
//! ```text
//!  root key (authority, 0600) ── mint ─► block 0: id, name, checks of its scope
//!                                           │ attenuate (any holder, offline)
//!                                           ▼
//!                                        block 1: more checks … block n
//!  public key (directory, on every host) ── verify ─► Verified ── allow(Access, now) ─► yes / Denied
//! ```
//!
//! A token is a biscuit: a chain of blocks of which each is signed with the key that the one before
//! it names, the first with the fleet's root key. What blocks say are *checks* over facts that the
//! request brings along (`org`, `app`, `machine`, `verb`, `time`); all of them must hold, so a
//! block can only take away. There is nothing here about HTTP, and no clock: `now` is given.

mod error;
#[doc(hidden)]
pub mod fuzz;
mod root;
mod text;
mod verified;

use types::token::Verb;

pub use error::{Denied, TokenError};
pub use root::{RootKey, RootKeyError};
pub use text::{Inspected, attenuate, inspect};
pub use verified::{PublicKeyText, Verified};

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access<'a> {
    /// What everybody may ask who has a valid token: names of regions, its own token. Lists are
    /// such questions too; what they show is asked for one by one.
    Platform,
    To(Target<'a>),
}

/// What a request does, and to what. What is not said is not one of them but all, or none: a
/// token that is restricted to some is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    pub verb: Verb,
    pub org: Option<&'a str>,
    pub app: Option<&'a str>,
    pub machine: Option<&'a str>,
}

impl Target<'_> {
    /// Something that is of no organisation.
    pub fn fleet(verb: Verb) -> Self {
        Self {
            verb,
            org: None,
            app: None,
            machine: None,
        }
    }
}

impl std::fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::To(target) = self else {
            return f.write_str("any request");
        };
        write!(f, "`{}` on ", target.verb)?;
        match (target.machine, target.app, target.org) {
            (Some(machine), Some(app), _) => write!(f, "machine {machine} of app `{app}`"),
            (_, Some(app), _) => write!(f, "app `{app}`"),
            (_, None, Some(org)) => write!(f, "all of organisation `{org}`"),
            (_, None, None) => f.write_str("the whole fleet"),
        }
    }
}

#[cfg(test)]
mod tests;
