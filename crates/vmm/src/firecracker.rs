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
mod launch;
mod model;
mod setup;
#[cfg(test)]
mod tests;
mod vsock;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};
use types::guest::VSOCK_PORT;

use crate::hold::{self, Point};
use crate::paths::{BootDir, Paths};
use crate::qemu::{Console, guest_files};
use crate::shim::ShimSpec;
use crate::suspended::About;
use crate::{BootSpec, VmmError};

use api::Api;
use jail::{Access, Jail};
use launch::{Starting, describe};
use model::{SnapshotCreate, SnapshotType, VmState};
use setup::{Begin, Setup};

pub(crate) use find::find;
pub use find::{FirecrackerMissing, FirecrackerPaths, FirecrackerPrograms};

/// A guest that has said that it is done resets at once.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(5);
/// Writing a large guest's memory to a slow disk.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);
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
        let begin = begin(&jail, paths, spec)?;
        let setup = Setup::new(&spec.boot, begin)?;
        let starting = Starting::spawn(&jail, &programs, paths, spec)?;
        let (
            Starting {
                process,
                console,
                log,
            },
            api,
        ) = starting.begin(&jail.api_socket(), &setup).await?;
        let vsock = Vsock {
            socket: jail.outside(Path::new(setup::VSOCK)),
        };
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

/// What writes a snapshot. Another version may have other devices and another format.
fn about(programs: &FirecrackerPrograms, boot: &BootSpec) -> About {
    let vmm = format!("Firecracker {}", programs.version);
    About::new(boot, vmm, "pci kvm".into())
}

/// Shows the jail what the machine begins with. Sets the disks' serial numbers in `spec`.
fn begin(jail: &Jail, paths: &Paths, spec: &mut ShimSpec) -> Result<Begin, VmmError> {
    let drives = setup::drives(jail, paths, spec)?;
    if spec.boot.resume {
        let suspended = paths.suspended(&spec.boot.machine);
        let show = |name: &str| {
            let inside = format!("saved-{name}");
            jail.file(&inside, &suspended.file(name), Access::Private)
        };
        return Ok(Begin::Restore {
            state: show(STATE)?,
            memory: show(MEMORY)?,
        });
    }
    let [kernel, initramfs] = guest_files(&spec.guest_dir, spec.kernel.as_deref())?;
    Ok(Begin::Boot {
        kernel: jail.file("vmlinux", &kernel, Access::Shared)?,
        initramfs: jail.file("initramfs.cpio", &initramfs, Access::Shared)?,
        drives,
    })
}
