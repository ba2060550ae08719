//! The words of Aerostat: ids, 6PN addresses, machine configuration, API bodies and the guest
//! protocol. No I/O, no clock, no async.
#![forbid(unsafe_code)]

pub mod api;
mod chain;
pub mod cluster;
pub mod fleet;
pub mod guest;
pub mod id;
pub mod image_ref;
pub mod machine;
pub mod secret;
pub mod service;
pub mod sixpn;
pub mod token;
pub mod volume;

pub use chain::chain;
pub use id::{
    AppName, BootId, HostId, MachineId, NetworkId, OrgSlug, SnapshotId, VersionId, VolumeId,
};
pub use image_ref::ImageRef;
pub use machine::IsolationClass;
pub use sixpn::SixPn;
