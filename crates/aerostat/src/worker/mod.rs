//! The worker: owns the machines of this host, and nobody else changes them.
//!
//! ```text
//!  Handle ──request──▶ driver (one task per machine)      waits: requests, reports, time
//!                        │  machine.apply(now, event)     decides, pure
//!                        ├─▶ ledger: row and events, one transaction ─▶ catalog
//!                        └─▶ effects: images, network, vmm            performs
//! ```
//!
//! Every change is in the ledger before its effect is performed, and what can be half done when
//! the process dies is found again at the next start (`recovery`): shims outlive the worker and
//! are re-adopted.

mod capacity;
mod check;
mod crash;
mod driver;
mod fuzz;
mod handle;
mod host;
mod ledger;
mod machine;
mod ports;
mod recovery;
mod refused;
mod remote;
mod secrets;
mod spec;
mod volumes;

pub use capacity::{Bid, BidRequest, Capacity, Classes, Reservation};
pub(crate) use check::why_unbuilt;
pub use check::{CheckedConfig, Invalid, ONLY_CONTAINER, check, check_signal};
#[doc(hidden)]
pub use fuzz::fuzz_config;
pub use handle::{CreateRequest, Handle, StopRequest, UpdateRequest};
pub use host::Config;
pub use ledger::LedgerError;
pub use machine::{
    LEASE_TTL_MAX, Lease, LeaseRequest, MetadataChange, Nonce, Permit, SecretsWanted,
};
pub use ports::{Allocation, ImageSettings, Images, Network, PortError, ReadyImage, Secrets};
pub use recovery::{StartError, Worker};
pub use refused::{Lack, NoBid, Refused, Scope};
pub use remote::{Destroyed, Remote, VolumeBid, VolumeBidRequest, router};
pub use volumes::{
    NewVolume, ShownVolume, VolumeOwner, VolumeQuery, VolumeRefused, Volumes, VolumesError,
    check_body as check_volume,
};

#[cfg(test)]
pub(crate) mod tests;
