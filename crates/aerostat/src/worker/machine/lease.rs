//! Leases: for a while, only one client may change a machine.
//!
//! ```text
//!  nobody ──acquire──▶ held ──refresh──▶ held, for longer
//!    ▲                  │
//!    └─release, expiry──┘
//! ```
//!
//! A lease is cooperation between clients, not a protection from them: whoever may call the API
//! may also read the nonce. It binds requests only; restart policies and ends of bodies need none.
//! The lease is a part of the machine's row, so it is durable before it is acknowledged, and its
//! end is a point in time, so it ends whether or not a worker runs.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Effect, Machine, later};
use crate::worker::refused::Refused;

/// Longest time for which a lease is given at once. Its holder may refresh it as often as it likes.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(3600);

/// What the holder of a lease shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// Twelve hexadecimal digits, as Fly's are.
    pub(crate) fn random() -> Self {
        Self(format!("{:012x}", rand::random::<u64>() >> 16))
    }

    /// What a client says that it was given. Any text; a wrong one opens nothing.
    pub fn given(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who asks for a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Permit {
    /// Somebody without a lease.
    #[default]
    None,
    /// Somebody who says that they hold the lease.
    Holder(Nonce),
    /// Somebody who need not care: the whole app is going.
    Override,
}

/// A lease that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// For people who find the machine leased.
    pub owner: String,
    pub description: String,
    /// At most [`LEASE_TTL_MAX`].
    pub ttl: Duration,
}

/// A lease that somebody has, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub nonce: Nonce,
    pub owner: String,
    pub description: String,
    pub expires_at: Timestamp,
}

impl Lease {
    pub(crate) fn begin(request: LeaseRequest, nonce: Nonce, now: Timestamp) -> Self {
        Self {
            nonce,
            owner: request.owner,
            description: request.description,
            expires_at: later(now, request.ttl.min(LEASE_TTL_MAX)),
        }
    }

    /// Whether it counts at `now`. One that lasts longer than any was ever given is from a time
    /// when the clock was wrong.
    fn counts(&self, now: Timestamp) -> bool {
        now < self.expires_at && self.expires_at <= later(now, LEASE_TTL_MAX)
    }
}

/// What is to become of the lease. Only its holder may ask for anything but `Acquire`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    Acquire(LeaseRequest, Nonce),
    Refresh(Duration),
    Release,
}

impl Machine {
    /// The lease that somebody holds.
    pub(crate) fn lease(&self, now: Timestamp) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.counts(now))
    }

    /// Whether somebody may ask for a change now.
    pub(crate) fn admit(&self, now: Timestamp, permit: &Permit) -> Result<(), Refused> {
        match (self.lease(now), permit) {
            (None, _) | (Some(_), Permit::Override) => Ok(()),
            (Some(lease), Permit::Holder(nonce)) if lease.nonce == *nonce => Ok(()),
            (Some(lease), Permit::None | Permit::Holder(_)) => Err(Refused::LeaseHeld {
                id: self.id.clone(),
                owner: lease.owner.clone(),
                expires_at: lease.expires_at,
            }),
        }
    }

    /// Changes the lease for somebody who was admitted.
    pub(super) fn change_lease(
        &mut self,
        now: Timestamp,
        change: LeaseChange,
    ) -> Result<Vec<Effect>, Refused> {
        match change {
            LeaseChange::Acquire(request, nonce) => {
                self.lease = Some(Lease::begin(request, nonce, now));
            }
            LeaseChange::Refresh(ttl) => {
                let mut lease = self.lease(now).cloned().ok_or(Refused::LeaseNotFound)?;
                lease.expires_at = later(now, ttl.min(LEASE_TTL_MAX));
                self.lease = Some(lease);
            }
            LeaseChange::Release => {
                self.lease(now).ok_or(Refused::LeaseNotFound)?;
                self.lease = None;
            }
        }
        Ok(vec![])
    }

    /// Forgets a lease that is over, so that it does not come back when the clock is set back.
    pub(super) fn expire_lease(&mut self, now: Timestamp) {
        if self.lease(now).is_none() {
            self.lease = None;
        }
    }
}

#[cfg(test)]
mod tests;
