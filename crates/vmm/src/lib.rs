//! One machine's body: its shim, its isolation class and the channel to what runs inside.
//!
//! ```text
//!  worker ── Vmm ── Local ──shim.sock── shim (one process per boot; outlives the worker)
//!                                        │  spec.json, reports, logs/
//!                                        ├── microvm: Firecracker ── vsock ── init
//!                                        ├── microvm, emulated: QEMU ── virtio-serial ── init
//!                                        └── container: supervision in process ── libcontainer
//! ```
//!
//! Only this crate knows which hypervisor runs. It knows nothing of apps, addresses or the ledger:
//! it gets a [`BootSpec`] with everything resolved and answers with [`Report`]s.
#![deny(unsafe_code)]

mod api;
mod cgroup;
mod container;
mod error;
pub mod fake;
mod firecracker;
mod hold;
mod local;
mod mount;
mod paths;
mod probe;
mod qemu;
mod report_log;
mod shim;
pub mod sparse;
mod spool;
mod suspended;
mod sys;
mod upper;

pub use api::{
    BootNetwork, BootSpec, ContainerImage, Copy, Frozen, Input, Io, KeepLayers, MacAddress, Output,
    Report, ReportEvent, Vmm,
};
pub use container::container_main;
pub use error::VmmError;
pub use firecracker::{FirecrackerMissing, FirecrackerPaths, FirecrackerPrograms};
pub use local::{Local, LocalConfig};
pub use probe::{Kvm, Offer, Offers, probe};
pub use shim::shim_main;
