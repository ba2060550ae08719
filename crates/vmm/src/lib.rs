//! One machine's body: its shim, its isolation class and the channel to what runs inside.
//!
//! ```text
//!  worker ── Vmm ── Local ──shim.sock── shim (one process per boot; outlives the worker)
//!                                        │  spec.json, reports, logs/
//!                                        ├── microvm, emulated: QEMU ── virtio-serial ── init
//!                                        └── container: supervision in process ── libcontainer
//! ```
//!
//! Only this crate knows which hypervisor runs. It knows nothing of apps, addresses or the ledger:
//! it gets a [`BootSpec`] with everything resolved and answers with [`Report`]s.
#![deny(unsafe_code)]

mod api;
mod error;
pub mod fake;
mod local;
mod probe;

pub use api::{
    BootNetwork, BootSpec, ContainerImage, Input, Io, MacAddress, Output, Report, ReportEvent, Vmm,
};
pub use error::VmmError;
pub use local::{Local, LocalConfig};
pub use probe::{Kvm, Offer, Offers, probe};
