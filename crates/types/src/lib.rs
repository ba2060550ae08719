//! The words of Aerostat: ids, 6PN addresses, machine configuration, API bodies and the guest
//! protocol. No I/O, no clock, no async.
#![forbid(unsafe_code)]



pub mod id;
pub mod image_ref;

pub mod sixpn;

pub use id::{AppName, BootId, HostId, MachineId, NetworkId, OrgSlug, VersionId};
pub use image_ref::ImageRef;

pub use sixpn::SixPn;
