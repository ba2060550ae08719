//! Which isolation classes this host offers, and why not the others.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use types::IsolationClass;

/// What `/dev/kvm` is good for, found by running guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kvm {
    Usable,
    /// It starts guests, but interprets their kernel and lacks instructions that Linux needs.
    Emulated,
    Absent,
}

/// Whether a class can be had here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "offer", rename_all = "lowercase")]
pub enum Offer {
    /// `by` names what runs it, for people.
    Offered {
        by: String,
    },
    Missing {
        reason: String,
    },
}

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    pub kvm: Kvm,
    /// Version of QEMU, if there is one.
    pub qemu: Option<String>,
    pub classes: BTreeMap<IsolationClass, Offer>,
}

impl Offers {
    pub fn offers(&self, class: IsolationClass) -> bool {
        matches!(self.classes.get(&class), Some(Offer::Offered { .. }))
    }

    /// Why a class is not offered; `None` if it is.
    pub fn missing(&self, class: IsolationClass) -> Option<&str> {
        match self.classes.get(&class) {
            Some(Offer::Offered { .. }) => None,
            Some(Offer::Missing { reason }) => Some(reason),
            None => Some("it has not been looked for"),
        }
    }
}

/// Finds out what this host offers. The answer is kept in the file `cache` for as long as the
/// host is not rebooted. Takes up to a few seconds; blocks.
pub fn probe(cache: &Path) -> Offers {
    let _ = cache;
    let missing = |class| {
        let reason = "the probe is not built yet".to_owned();
        (class, Offer::Missing { reason })
    };
    Offers {
        kvm: Kvm::Absent,
        qemu: None,
        classes: IsolationClass::ALL.into_iter().map(missing).collect(),
    }
}
