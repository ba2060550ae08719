//! Values that are not to be seen.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// A value of a secret. Printing it for debugging does not show it, and its memory is cleared.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for whoever has to hand it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a machine of an app is given at its boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppSecrets {
    /// Of the app's secrets at that moment; 0: it never had any.
    pub version: u64,
    pub values: BTreeMap<String, Secret>,
}
