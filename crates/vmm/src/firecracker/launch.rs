//! From a jail that is furnished to a Firecracker that was told everything: the jailer's start, its
//! control group, and what is said when that fails.

use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tracing::info;

use super::Failure;
use super::api::{Api, ApiError};
use super::find::FirecrackerPrograms;
use super::jail::{Confinement, ControlGroup, Jail};
use super::setup::Setup;
use crate::cgroup::Group;
use crate::paths::Paths;
use crate::qemu::Console;
use crate::shim::ShimSpec;
use crate::sys;

/// Firecracker has as many threads as the guest has processors, and two.
const PIDS_MAX: u32 = 64;

/// A Firecracker that was spawned and has no machine yet.
pub(super) struct Starting {
    pub(super) process: Child,
    pub(super) console: Console,
    pub(super) log: Console,
}

/// What went wrong, and what jailer or Firecracker said about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the virtual machine{said}")]
pub(super) struct StartError {
    said: String,
    source: Failure,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Ended(String);

impl Starting {
    /// Starts the jailer, which becomes Firecracker.
    pub(super) fn spawn(
        jail: &Jail,
        programs: &FirecrackerPrograms,
        paths: &Paths,
        spec: &ShimSpec,
    ) -> Result<Self, Failure> {
        let attachment = &spec.boot.attachment;
        let (log_outside, log) = jail.pipe("log")?;
        // Open before Firecracker is: it does not wait for a reader.
        let log_reader = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&log_outside)?;
        let confinement = Confinement {
            id: spec.boot.machine.as_str(),
            uid: attachment.owner_uid,
            network: &attachment.host_netns,
            group: &control_group(spec)?,
            log: &log,
        };
        let (console, theirs) = net::UnixStream::pair()?;
        let (output, errors) = (OwnedFd::from(theirs.try_clone()?), OwnedFd::from(theirs));
        let mut command = std::process::Command::new(&programs.jailer);
        command
            .args(jail.argv(programs, confinement))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        sys::no_new_privileges(&mut command);
        let mut command = Command::from(command);
        let process = command.kill_on_drop(true).spawn()?;
        // It holds our copies of the guest's end of the console.
        drop(command);
        let pid = process.id().ok_or("the jailer has ended at once")?;
        info!(pid, version = programs.version, "Firecracker started");
        // Unlike the shim, it may be chosen when memory is short.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0")?;
        let data = paths.data(&spec.boot.machine);
        console.set_nonblocking(true)?;
        let console = UnixStream::from_std(console)?;
        Ok(Self {
            process,
            console: Console::start(console, &data.join("console.log")),
            log: Console::start(log_reader, &data.join("firecracker.log")),
        })
    }

    /// Sets the machine up and starts it. If that fails, nothing is left of it.
    pub(super) async fn begin(
        mut self,
        socket: &Path,
        setup: &Setup,
    ) -> Result<(Self, Api), StartError> {
        let begun = {
            let speaking = async {
                let mut api = Api::connect(socket).await?;
                setup.carry_out(&mut api).await?;
                Ok::<_, ApiError>(api)
            };
            tokio::select! {
                biased;
                begun = speaking => begun.map_err(Failure::from),
                status = self.process.wait() => Err(match status {
                    Ok(status) => Ended(describe(status)).into(),
                    Err(error) => Failure::from(error),
                }),
            }
        };
        match begun {
            Ok(api) => Ok((self, api)),
            Err(source) => {
                let _ = self.process.kill().await;
                self.log.stop();
                let said = match self.console.end().await {
                    words if words.is_empty() => String::new(),
                    words => format!(" (it said: {words})"),
                };
                Err(StartError { said, source })
            }
        }
    }
}

pub(super) fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "it was switched off".to_owned(),
        Some(_) | None => format!("Firecracker ended with {status}"),
    }
}

/// The jailer puts Firecracker into a group below the boot's, where the limits of all of it are.
fn control_group(spec: &ShimSpec) -> Result<ControlGroup, Failure> {
    let boot = &spec.boot;
    let group = Group::new(spec.host, &boot.machine, boot.boot)?;
    let limits = spec.limits();
    let pids = ("pids.max", PIDS_MAX.to_string());
    let memory = limits.memory_bytes.to_string();
    // Every controller that is to count this process has to be named.
    let (version, settings) = if group.is_v1() {
        let cpu = ("cpu.shares", group.read("cpu", "cpu.shares")?);
        (1, vec![("memory.limit_in_bytes", memory), cpu, pids])
    } else {
        let cpu = ("cpu.weight", group.read("cpu", "cpu.weight")?);
        (2, vec![("memory.max", memory), cpu, pids])
    };
    Ok(ControlGroup {
        version,
        parent: group.relative(),
        settings,
    })
}
