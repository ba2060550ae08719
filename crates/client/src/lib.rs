//! Client of the Machines API, for everything of Aerostat that asks for machines: the command
//! line, the Kubernetes side and tests. It can do what the public API can do and no more.
//!
//! One method per endpoint; ids are typed, bodies are those of `types::api`. Requests go over a
//! Unix socket, or over TCP with a token. Three kinds of answers go on for a while: a [`Watch`] of
//! machines, an [`ExecIo`] (exec and attach) and a [`Logs`] receiver.
#![forbid(unsafe_code)]

mod apps;
mod clusters;
mod control;
mod error;
mod files;
mod hosts;
mod images;
mod machines;
mod mesh;
mod orgs;
mod secrets;
mod services;
mod stream;
mod tokens;
mod transport;
mod volumes;
mod watch;
mod wireguard;

pub use control::Restart;
pub use error::Error;
pub use files::Archive;
pub use images::Pull;
pub use machines::{MachineFilter, MachineList, WaitFor, WaitQuery};
pub use orgs::OrgMachineFilter;
pub use stream::{ExecInput, ExecIo, ExecOutput, ExecParams, Logs};
pub use transport::{Client, InvalidUrl};
pub use volumes::VolumeList;
pub use watch::Watch;
