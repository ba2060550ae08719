//! Supervision of the containers of one machine, and both ends of its protocol.
//!
//! ```text
//!  host (shim)                      guest (init as PID 1, or the container-class shim itself)
//!  wire::host::Connection ==yamux== Guest::serve --events--> supervisor --effects--> Runtime
//! ```
//!
//! `supervisor` decides when a container starts, is signalled and has ended; a [`Runtime`] knows
//! how a container is made to exist; [`Reaper`] is the only place that waits for processes.
//! Nothing here knows how machines are isolated: that is what the two runtimes differ in.

mod archive;
mod copy;
mod driver;
pub mod environment;
pub mod fd;
pub mod files;
pub mod inspect;
pub mod mounts;
mod output;
mod probe;
mod process;
pub mod reaper;
pub mod root;
pub mod runtime;
pub mod serve;
mod session;
pub mod signal;
pub mod stdio;
pub mod supervisor;
mod sys;
pub mod user;
mod volume;
pub mod wire;

pub use reaper::{Exit, ExitStatus, Reaper};
pub use runtime::{Alive, Process, ProcessIo, RunEnd, Runtime, RuntimeError};
pub use serve::{Ended, Guest};
