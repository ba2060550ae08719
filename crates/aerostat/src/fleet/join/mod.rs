//! How a host joins: TLS 1.3 on a port of the underlay, and three messages.
//!
//! ```text
//!  newcomer                                   authority
//!     │ ◄───── certificate, chain ───────────────┤   pinned by the token's fingerprint
//!     │ ◄───── Hello: version, clock ────────────┤   both sides compare their clocks
//!     ├─ Request: secret, keys, name, number … ─►│   the signature covers this TLS session
//!     │                                          │   checks; spend; number; certificate; record
//!     │ ◄───── Joined: certificate, hosts ───────┤
//!     │ checks everything, then writes it whole  │   or Refused: why
//! ```
//!
//! A message is its length (32 bits, big-endian) and JSON. The token is redeemed for the newcomer's
//! key, then its number is given, then its record stored; each may be repeated by the same key and
//! by no other, so a newcomer whose answer was lost, or whose authority died half-way, asks again
//! with the same keys and goes on where it was. Before the record is there, nobody knows the host.

mod client;
mod message;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::SocketAddr;

use super::identity::IdentityError;
use super::record::BadRecord;

pub use client::{Application, join};
pub use message::Refusal;
pub use server::{Door, bind};

/// Clocks that differ by more would disagree about certificates, tokens and who spoke last.
pub const CLOCK_DIFFERENCE_S_MAX: u64 = 300;

/// Why this host did not join. It is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot reach the fleet at {address}; is the token for this network, and TCP port {} \
             open there?", address.port())]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("what listens at {address} is not the fleet of this token: another has answered")]
    Stranger { address: SocketAddr },
    #[error("what listens at {address} does not let hosts join")]
    NoFleet {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "the fleet's certificate is not valid at this host's time, {now}; set the clock of this \
         host"
    )]
    Time { now: jiff::Timestamp },
    #[error(
        "this host's clock is {difference_s} s {} the fleet's, and more than \
         {CLOCK_DIFFERENCE_S_MAX} s cannot be; set the clock, best by NTP",
        side(ahead)
    )]
    Clock { difference_s: u64, ahead: bool },
    #[error("the fleet at {address} speaks version {theirs} of joining, this host {ours}")]
    Version {
        address: SocketAddr,
        theirs: u32,
        ours: u32,
    },
    #[error("the fleet refuses: {0}")]
    Refused(Refusal),
    #[error("the connection to {address} was lost before the answer; try again")]
    Lost {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the answer of {address} cannot be used: {reason}")]
    Answer {
        address: SocketAddr,
        reason: &'static str,
    },
    #[error("the answer of {address} cannot be used")]
    Record {
        address: SocketAddr,
        source: BadRecord,
    },
    #[error("cannot set up TLS")]
    Tls { source: rustls::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(
        "cannot listen on {address} for hosts that want to join; end what listens on TCP port {} \
         there, or set join_listen in the configuration",
        address.port()
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot set up TLS for hosts that want to join")]
    Tls { source: rustls::Error },
}

/// Where the first clock stands.
fn side(ahead: &bool) -> &'static str {
    if *ahead { "ahead of" } else { "behind" }
}

/// By how much the first clock is ahead of the second, in milliseconds, if that is too much.
fn too_far_apart(one_ms: i64, other_ms: i64) -> Option<(u64, bool)> {
    let difference_s = one_ms.abs_diff(other_ms) / 1000;
    (difference_s > CLOCK_DIFFERENCE_S_MAX).then_some((difference_s, one_ms > other_ms))
}
