//! Class `microvm`: one Firecracker in the jail of its jailer, as a child of the shim.
//!
//! ```text
//!  shim ── exec ──► jailer ── becomes ──► firecracker (own root, user, network, control group)
//!    │                                        │  API: machine-config, boot-source, drives,
//!    ├── Unix socket in the jail ─────────────┤       network-interfaces, vsock, entropy, start
//!    ├── standard output ◄── serial console ──┤
//!    ├── pipe in the jail ◄──────── log ──────┤
//!    └── v.sock: CONNECT ─────────────────────┴──► vsock ──► init
//! ```
//!
//! The jailer closes what it inherits, so what Firecracker opens stands in the jail by name. It
//! changes its user and thereby forgets whose child it is: a Firecracker outlives a killed shim,
//! until the worker sees that and destroys the control group.

mod api;
mod find;
mod jail;
mod model;
mod setup;
#[cfg(test)]
mod tests;
mod vsock;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};
use types::guest::VSOCK_PORT;

use crate::cgroup::Group;
use crate::hold::{self, Point};
use crate::paths::{BootDir, Paths};
use crate::qemu::{Console, guest_files};
use crate::shim::ShimSpec;
use crate::suspended::About;
use crate::{BootSpec, VmmError, sys};

use api::{Api, ApiError};
use jail::{Access, Confinement, ControlGroup, Jail};
use model::{SnapshotCreate, SnapshotType, VmState};
use setup::{Begin, Setup};

pub(crate) use find::find;
pub use find::{FirecrackerMissing, FirecrackerPaths, FirecrackerPrograms};

/// A guest that has said that it is done resets at once.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(5);
/// Writing a large guest's memory to a slow disk.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);
/// Firecracker has as many threads as the guest has processors, and two.
const PIDS_MAX: u32 = 64;
/// Files of a snapshot.
const STATE: &str = "state";
const MEMORY: &str = "memory";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running Firecracker.
#[derive(Debug)]
pub(crate) struct Firecracker {
    process: Child,
    api: Api,
    console: Console,
    log: Console,
    programs: FirecrackerPrograms,
    dir: BootDir,
    /// Where it can write snapshots, as seen from outside of the jail.
    save: PathBuf,
}

/// Where to connect to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vsock {
    socket: PathBuf,
}

impl Vsock {
    /// Connects to init, waiting until it listens. May be dropped.
    pub(crate) async fn connect(&self) -> UnixStream {
        vsock::connect(&self.socket, VSOCK_PORT).await
    }
}

impl Firecracker {
    /// Starts Firecracker and the guest in it, or lets it go on from what was saved. Sets the disks'
    /// serial numbers in `spec`. Must be called in a mount namespace that is the shim's alone.
    pub(crate) async fn start(
        dir: &BootDir,
        paths: &Paths,
        spec: &mut ShimSpec,
    ) -> Result<(Self, Vsock), Failure> {
        let programs = spec.firecracker.clone();
        let programs = programs.ok_or("this host has no Firecracker that can be used")?;
        let id = spec.boot.machine.to_string();
        let uid = spec.boot.attachment.owner_uid;
        let suspended = paths.suspended(&spec.boot.machine);
        if spec.boot.resume {
            suspended.read()?.fits(&about(&programs, &spec.boot))?;
        }
        let jail = Jail::create(&dir.jail(), &programs, &id, uid)?;
        let save = paths.data(&spec.boot.machine).join("firecracker");
        crate::paths::remove(&save)?;
        std::fs::create_dir(&save).map_err(VmmError::file("make directory", &save))?;
        jail.directory(setup::SAVE, &save, Access::Writable)?;
        let drives = setup::drives(&jail, paths, spec)?;
        let begin = if spec.boot.resume {
            let show = |name: &str| {
                let inside = format!("saved-{name}");
                jail.file(&inside, &suspended.file(name), Access::Private)
            };
            Begin::Restore {
                state: show(STATE)?,
                memory: show(MEMORY)?,
            }
        } else {
            let [kernel, initramfs] = guest_files(&spec.guest_dir, spec.kernel.as_deref())?;
            Begin::Boot {
                kernel: jail.file("vmlinux", &kernel, Access::Shared)?,
                initramfs: jail.file("initramfs.cpio", &initramfs, Access::Shared)?,
                drives,
            }
        };
        let (log_outside, log) = jail.pipe("log")?;
        // Open before Firecracker is: it does not wait for a reader.
        let log_reader = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&log_outside)?;
        let setup = Setup::new(&spec.boot, begin)?;
        let group = control_group(spec)?;
        let (console, theirs) = std::os::unix::net::UnixStream::pair()?;
        let confinement = Confinement {
            id: &id,
            uid,
            network: &spec.boot.attachment.host_netns,
            group: &group,
            log: &log,
        };
        let mut command = std::process::Command::new(&programs.jailer);
        command
            .args(jail.argv(&programs, confinement))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
            .stderr(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        sys::no_new_privileges(&mut command);
        let mut command = Command::from(command);
        let process = command.kill_on_drop(true).spawn()?;
        // It holds our copies of the guest's end of the console.
        drop(command);
        let pid = process.id().ok_or("the jailer has ended at once")?;
        info!(pid, version = programs.version, "Firecracker started");
        let data = paths.data(&spec.boot.machine);
        console.set_nonblocking(true)?;
        let console = Console::start(UnixStream::from_std(console)?, &data.join("console.log"));
        let log = Console::start(log_reader, &data.join("firecracker.log"));
        let started = Starting {
            process,
            console,
            log,
        };
        let (started, api) = started.begin(&jail.api_socket(), &setup).await?;
        // Unlike the shim, it may be chosen when memory is short.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0")?;
        let vsock = Vsock {
            socket: jail.outside(Path::new(setup::VSOCK)),
        };
        let Starting {
            process,
            console,
            log,
        } = started;
        let mut running = Self {
            process,
            api,
            console,
            log,
            programs,
            dir: dir.clone(),
            save,
        };
        if spec.boot.resume {
            hold::at(dir, Point::Loaded).await;
            suspended.use_up()?;
            hold::at(dir, Point::Taken).await;
            running.api.patch("/vm", &VmState::Resumed).await?;
            info!("machine goes on");
            hold::at(dir, Point::Continued).await;
        }
        Ok((running, vsock))
    }

    /// Returns when Firecracker has ended. May be dropped.
    pub(crate) async fn lost(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => format!("the virtual machine ended: {}", describe(status)),
            Err(error) => format!("the virtual machine is lost: {error}"),
        }
    }

    /// Lets the machine stand still. It is saved next, or killed.
    pub(crate) async fn pause(&mut self) -> Result<(), Failure> {
        self.api.patch("/vm", &VmState::Paused).await?;
        hold::at(&self.dir, Point::Paused).await;
        Ok(())
    }

    /// Writes what is needed to go on later. When this returns it is on disk, and the machine
    /// must not go on here.
    pub(crate) async fn save(&mut self, paths: &Paths, boot: &BootSpec) -> Result<(), Failure> {
        let unfinished = paths.suspended(&boot.machine).begin()?;
        let inside = |name| Path::new("/").join(setup::SAVE).join(name);
        let body = SnapshotCreate {
            snapshot_type: SnapshotType::Full,
            snapshot_path: inside(STATE),
            mem_file_path: inside(MEMORY),
        };
        let path = "/snapshot/create";
        self.api.put_slow(path, &body, SNAPSHOT_TIMEOUT).await?;
        for name in [STATE, MEMORY] {
            unfinished.adopt(name, &self.save.join(name))?;
        }
        hold::at(&self.dir, Point::Saved).await;
        let disks = paths.disks(boot);
        let about = about(&self.programs, boot);
        spawn_blocking(move || unfinished.complete(about, &disks)).await??;
        hold::at(&self.dir, Point::Completed).await;
        Ok(())
    }

    /// Waits for Firecracker if the guest resets, and kills it otherwise. Returns the end of what
    /// stood on the console.
    pub(crate) async fn finish(mut self, exited: bool) -> String {
        let patience = if exited {
            POWER_OFF_TIMEOUT
        } else {
            Duration::ZERO
        };
        if timeout(patience, self.process.wait()).await.is_err()
            && let Err(error) = self.process.kill().await
        {
            warn!(%error, "cannot kill Firecracker");
        }
        if let Err(error) = crate::paths::remove(&self.save) {
            warn!(error = types::chain(&error), "cannot remove directory");
        }
        self.log.stop();
        self.console.end().await
    }
}

/// A Firecracker that was spawned and has no machine yet.
struct Starting {
    process: Child,
    console: Console,
    log: Console,
}

/// What went wrong, and what jailer or Firecracker said about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the virtual machine{said}")]
struct StartError {
    said: String,
    source: Failure,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Ended(String);

impl Starting {
    /// Sets the machine up and starts it. If that fails, nothing is left of it.
    async fn begin(mut self, socket: &Path, setup: &Setup) -> Result<(Self, Api), StartError> {
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

/// What writes a snapshot. Another version may have other devices and another format.
fn about(programs: &FirecrackerPrograms, boot: &BootSpec) -> About {
    let vmm = format!("Firecracker {}", programs.version);
    About::new(boot, vmm, "pci kvm".into())
}

fn describe(status: ExitStatus) -> String {
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
