//! Classes `microvm` and `emulated`: one QEMU, as a child of the shim.
//!
//! QEMU opens nothing that a stranger may name: disks, tap, control channel and console are
//! opened here and handed over as descriptors, so that it can run as a user that may read none
//! of those paths. It dies with the shim. What it gets to know of the host is its command line.

mod argv;
mod console;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::Gid;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{info, warn};
use types::IsolationClass;

use crate::cgroup::Group;
use crate::paths::Paths;
use crate::shim::ShimSpec;
use crate::{VmmError, mount, probe, sys};

use argv::{Accelerator, Disk, Machine};
use console::Console;

/// A guest that has said that it is done powers off at once.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The files that every guest boots from.
pub(crate) fn guest_files(guest_dir: &Path) -> Result<[PathBuf; 2], VmmError> {
    let files = ["vmlinux", "initramfs.cpio"].map(|name| guest_dir.join(name));
    match files.iter().find(|path| !path.is_file()) {
        Some(path) => Err(VmmError::GuestMissing { path: path.clone() }),
        None => Ok(files),
    }
}

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Vm {
    qemu: Child,
    console: Console,
}

impl Vm {
    /// Starts QEMU. Returns with it the host's end of the control port. Sets the disks' serial
    /// numbers in `spec`. Must be called on the thread that lives as long as the shim.
    pub(crate) fn start(
        paths: &Paths,
        spec: &mut ShimSpec,
    ) -> Result<(Self, tokio::net::UnixStream), Failure> {
        let [kernel, initramfs] = guest_files(&spec.guest_dir)?;
        let open = |path: &Path| File::open(path).map_err(VmmError::file("open", path));
        let (kernel, initramfs) = (open(&kernel)?, open(&initramfs)?);
        let mut fds: Vec<OwnedFd> = Vec::new();
        let disks = disks(paths, spec, &mut fds)?;
        let boot = &spec.boot;
        let tap = sys::open_tap(&boot.attachment.ifname)
            .map_err(VmmError::file("open tap", &boot.attachment.ifname))?;
        let (control, control_theirs) = UnixStream::pair()?;
        let (console, console_theirs) = UnixStream::pair()?;
        let machine = Machine {
            name: boot.machine.as_str(),
            accelerator: match boot.isolation {
                IsolationClass::Microvm => Accelerator::Kvm,
                IsolationClass::Emulated | IsolationClass::Container => Accelerator::Tcg,
            },
            firmware: &probe::qboot().ok_or("the firmware qboot.rom is not installed")?,
            cpus: boot.guest.cpus,
            memory_mib: boot.guest.memory_mb,
            kernel: kernel.as_raw_fd(),
            initramfs: initramfs.as_raw_fd(),
            disks: &disks,
            tap: tap.as_raw_fd(),
            mac: boot.attachment.mac,
            control: control_theirs.as_raw_fd(),
            console: console_theirs.as_raw_fd(),
        };
        let mut command = std::process::Command::new(probe::QEMU);
        command.args(machine.argv()).stdin(Stdio::null());
        fds.extend([kernel.into(), initramfs.into(), tap]);
        fds.extend([control_theirs.into(), console_theirs.into()]);
        sys::keep_fds(&mut command, fds.iter().map(AsRawFd::as_raw_fd).collect());
        sys::confine(
            &mut command,
            boot.attachment.owner_uid,
            groups(machine.accelerator),
        );
        let mut command = Command::from(command);
        let qemu = command.kill_on_drop(true).spawn()?;
        let pid = qemu.id().ok_or("QEMU has ended at once")?;
        let group = Group::new(spec.host, &boot.machine, boot.boot)?;
        group.join("vm", &["memory", "cpu", "pids"], pid)?;
        // Unlike the shim, it may be chosen when memory is short.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0")?;
        info!(pid, "QEMU started");
        let log = paths.data(&boot.machine).join("console.log");
        let console = Console::start(to_tokio(console)?, &log);
        Ok((Self { qemu, console }, to_tokio(control)?))
    }

    /// Returns when QEMU has ended. May be dropped.
    pub(crate) async fn lost(&mut self) -> String {
        match self.qemu.wait().await {
            Ok(status) => format!("the virtual machine ended: {}", describe(status)),
            Err(error) => format!("the virtual machine is lost: {error}"),
        }
    }

    /// Waits for QEMU if the guest powers off, and kills it otherwise. Returns the end of what
    /// stood on the console.
    pub(crate) async fn finish(mut self, exited: bool) -> String {
        let patience = if exited {
            POWER_OFF_TIMEOUT
        } else {
            Duration::ZERO
        };
        if timeout(patience, self.qemu.wait()).await.is_err()
            && let Err(error) = self.qemu.kill().await
        {
            warn!(%error, "cannot kill QEMU");
        }
        self.console.end().await
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "it was switched off".to_owned(),
        Some(_) | None => format!("QEMU ended with {status}"),
    }
}

fn to_tokio(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// Opens two disks for each container: its image, and a fresh writable layer.
fn disks(paths: &Paths, spec: &mut ShimSpec, fds: &mut Vec<OwnedFd>) -> Result<Vec<Disk>, Failure> {
    let boot = &mut spec.boot;
    let data = paths.data(&boot.machine);
    let mut disks = Vec::new();
    for (index, container) in boot.spec.containers.iter_mut().enumerate() {
        let name = &container.name;
        let image = boot.images.iter().find(|image| image.container == *name);
        let image = &image
            .ok_or(format!("container {name} has no image"))?
            .rootfs;
        let upper = data.join(format!("upper-{name}.ext4"));
        mount::make_upper(&upper, boot.rootfs_size_bytes)?;
        container.image_disk = format!("image{index}");
        container.upper_disk = format!("upper{index}");
        let image = File::open(image).map_err(VmmError::file("open image", image))?;
        let mut writable = OpenOptions::new();
        let upper = writable
            .read(true)
            .write(true)
            .open(&upper)
            .map_err(VmmError::file("open writable layer", &upper))?;
        disks.push(Disk {
            serial: container.image_disk.clone(),
            fd: image.as_raw_fd(),
            read_only: true,
        });
        disks.push(Disk {
            serial: container.upper_disk.clone(),
            fd: upper.as_raw_fd(),
            read_only: false,
        });
        fds.extend([OwnedFd::from(image), OwnedFd::from(upper)]);
    }
    Ok(disks)
}

/// Groups that QEMU needs beside its user's: the one that may use KVM.
fn groups(accelerator: Accelerator) -> Vec<Gid> {
    match accelerator {
        Accelerator::Tcg => Vec::new(),
        Accelerator::Kvm => Path::new("/dev/kvm")
            .metadata()
            .map(|device| Gid::from_raw(device.gid()))
            .into_iter()
            .filter(|group| group.as_raw() != 0)
            .collect(),
    }
}
