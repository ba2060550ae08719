//! Who may say what: a statement counts if its origin has signed it, whoever brought it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::warn;
use types::HostId;

use crate::catalog::codec::{Malformed, Page, Signed};
use crate::catalog::origins::Arrived;
use crate::catalog::{Position, Word};

/// Verifies a signature: of a message, by one host.
pub type Verify = Arc<dyn Fn(&[u8], &[u8]) -> bool + Send + Sync>;
/// The verifier of a host's key; `None` if the fleet has no such host. Asked for every statement,
/// so it should remember what it has found out about a certificate.
pub type KeyOf = Arc<dyn Fn(HostId) -> Option<Verify> + Send + Sync>;

/// Warnings are given once per host and reason, for so many of them.
const WARNINGS_MAX: usize = 1024;

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Malformed,
    UnknownHost,
    BadSignature,
    OutOfOrder,
    Foreign,
}

/// What was dropped since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Bytes that could not be read.
    pub malformed: u64,
    /// Signed in the name of a host that the fleet does not have.
    pub unknown_host: u64,
    pub bad_signature: u64,
    /// In a page where it does not belong.
    pub out_of_order: u64,
    /// About a machine of another host.
    pub foreign: u64,
}

pub(super) struct Verifier {
    key_of: KeyOf,
    counts: [AtomicU64; 5],
    warned: Mutex<BTreeSet<(HostId, Reason)>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dropped().fmt(f)
    }
}

impl Verifier {
    pub(super) fn new(key_of: KeyOf) -> Self {
        Self {
            key_of,
            counts: Default::default(),
            warned: Mutex::default(),
        }
    }

    pub(super) fn dropped(&self) -> Dropped {
        let count = |reason: Reason| self.counts[reason as usize].load(Ordering::Relaxed);
        Dropped {
            malformed: count(Reason::Malformed),
            unknown_host: count(Reason::UnknownHost),
            bad_signature: count(Reason::BadSignature),
            out_of_order: count(Reason::OutOfOrder),
            foreign: count(Reason::Foreign),
        }
    }

    fn count(&self, reason: Reason, by: u64, host: HostId, why: &dyn fmt::Display) {
        if by == 0 {
            return;
        }
        self.counts[reason as usize].fetch_add(by, Ordering::Relaxed);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNINGS_MAX && warned.insert((host, reason)) {
            warn!(%host, %why, "something said of machines is dropped; said once");
        }
    }

    pub(super) fn count_malformed(&self, from: HostId, malformed: &Malformed) {
        self.count(Reason::Malformed, 1, from, malformed);
    }

    pub(super) fn count_foreign(&self, origin: HostId, by: usize) {
        let by = u64::try_from(by).unwrap_or(u64::MAX);
        let why = "the machine is another host's";
        self.count(Reason::Foreign, by, origin, &why);
    }

    /// Whether `signed` is what its origin has signed.
    fn is_genuine(&self, signed: &Signed) -> bool {
        let origin = signed.origin;
        let Some(verify) = (self.key_of)(origin) else {
            let why = "the fleet has no such host";
            self.count(Reason::UnknownHost, 1, origin, &why);
            return false;
        };
        let (message, signature) = signed.message();
        let genuine = verify(&message, signature);
        if !genuine {
            let why = "the signature is not the host's";
            self.count(Reason::BadSignature, 1, origin, &why);
        }
        genuine
    }

    /// A genuine word.
    pub(super) fn word(&self, bytes: Bytes) -> Option<(Word, Bytes)> {
        let signed = Signed::parse(bytes).and_then(|signed| Ok((signed.word()?, signed)));
        match signed {
            Ok((word, signed)) => self.is_genuine(&signed).then_some((word, signed.bytes)),
            Err(malformed) => {
                self.count(Reason::Malformed, 1, HostId::new(0), &malformed);
                None
            }
        }
    }

    /// The statements of a page that `from` has brought, up to the first that is not what it
    /// should be: what comes behind it proves nothing about what is missing.
    pub(super) fn page(&self, from: HostId, page: Page, whole: bool) -> Arrived {
        let mut arrived = Arrived {
            origin: page.origin,
            after: Position {
                epoch: page.epoch,
                version: page.after,
            },
            floor: page.floor,
            statements: Vec::with_capacity(page.statements.len().min(1024)),
            last: None,
            complete: false,
            whole,
        };
        let mut last = arrived.after;
        for bytes in page.statements {
            let signed = match Signed::parse(bytes) {
                Ok(signed) => signed,
                Err(malformed) => {
                    self.count(Reason::Malformed, 1, from, &malformed);
                    return arrived;
                }
            };
            let in_place = signed.origin == page.origin
                && signed.position.epoch == page.epoch
                && signed.position > last;
            if !in_place {
                let why = "a statement in a page where it does not belong";
                self.count(Reason::OutOfOrder, 1, from, &why);
                return arrived;
            }
            if !self.is_genuine(&signed) {
                return arrived;
            }
            last = signed.position;
            arrived.last = Some(last.version);
            match signed.entry() {
                Ok(entry) => arrived.statements.push((entry, signed.bytes)),
                // Its origin means it: waiting for a better one would stop everything behind it.
                Err(malformed) => self.count(Reason::Malformed, 1, page.origin, &malformed),
            }
        }
        arrived.complete = true;
        arrived
    }
}
