//! PID 1 inside a guest: the container runtime of the VM classes, as one static program.
//!
//! ```text
//! kernel --> /init: file systems, modules --> port or vsock --> Guest::serve --> exit: power off
//!                                                                 |
//!                                          /init enter <fd>: becomes a container's process
//! ```
//!
//! Containers share network, host name and System V IPC, as those of a pod do; each has mounts
//! and a PID namespace of its own, so that the end of its main process is the end of all of
//! them. Privileges are not reduced: the machine is the boundary.

mod boot;
mod console;
mod containers;
mod disks;
mod enter;
mod groups;
mod mounts;
mod netlink;
mod network;
mod plan;
mod port;
mod statistics;
mod sys;
mod vsock;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(enter::VERB), Some(descriptor)) => enter::main(&descriptor),
        (_, _) if std::process::id() == 1 => boot::main(),
        (_, _) => {
            console::say("init runs as process 1 of a guest, and nowhere else");
            ExitCode::from(2)
        }
    }
}
