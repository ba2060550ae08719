//! Classes `microvm` and `emulated`: one QEMU, as a child of the shim.
//!
//! QEMU opens nothing that a stranger may name: disks, tap, control channel and console are
//! opened here and handed over as descriptors, so that it can run as a user that may read none
//! of those paths, in a root directory with nothing but programs (`jail.rs`), without a network
//! beside the tap, without capabilities and behind its own seccomp filter. It dies with the shim.
//! What it gets to know of the host is its command line.

mod argv;
mod console;
mod jail;
mod qmp;
mod suspend;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::Gid;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{info, warn};
use types::IsolationClass;

use crate::api::image_of;
use crate::cgroup::Group;
use crate::paths::{BootDir, Paths};
use crate::shim::{ShimSpec, through_dir};
use crate::sys::Confinement;
use crate::upper::prepare_uppers;
use crate::{VmmError, probe, sys};

use argv::{Accelerator, Begin, Disk, DiskKind, Machine};
pub(crate) use console::Console;
use jail::Jail;
use qmp::Qmp;

/// A guest that has said that it is done powers off at once.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The files that every guest boots from. `kernel`: the one to boot in place of that of `guest_dir`.
pub(crate) fn guest_files(
    guest_dir: &Path,
    kernel: Option<&Path>,
) -> Result<[PathBuf; 2], VmmError> {
    let mut files = ["vmlinux", "initramfs.cpio"].map(|name| guest_dir.join(name));
    if let Some(kernel) = kernel {
        files[0] = kernel.to_owned();
    }
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
    qmp: Qmp,
    dir: BootDir,
    accelerator: Accelerator,
}

impl Vm {
    /// Starts QEMU, and with `resume` gives it the memory that was saved. Sets the disks' serial
    /// numbers in `spec`. Must be called on the thread that lives as long as the shim.
    pub(crate) async fn start(
        dir: &BootDir,
        paths: &Paths,
        spec: &mut ShimSpec,
    ) -> Result<Self, Failure> {
        let accelerator = match spec.boot.isolation {
            IsolationClass::Microvm => Accelerator::Kvm,
            IsolationClass::Emulated | IsolationClass::Container => Accelerator::Tcg,
        };
        if !spec.boot.resume {
            return Self::spawn(dir, paths, spec, accelerator, Begin::Boot);
        }
        let suspended = paths.suspended(&spec.boot.machine);
        let about = suspended.read()?;
        let mut vm = Self::spawn(dir, paths, spec, accelerator, Begin::Restore)?;
        vm.restore(&suspended, &about, &spec.boot).await?;
        Ok(vm)
    }

    fn spawn(
        dir: &BootDir,
        paths: &Paths,
        spec: &mut ShimSpec,
        accelerator: Accelerator,
        begin: Begin,
    ) -> Result<Self, Failure> {
        let [kernel, initramfs] = guest_files(&spec.guest_dir, spec.kernel.as_deref())?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        let disks = disks(paths, spec, begin, &mut fds)?;
        let boot = &spec.boot;
        let tap = sys::open_tap(&boot.attachment.ifname)
            .map_err(VmmError::file("open tap", &boot.attachment.ifname))?;
        let control = through_dir(&dir.control(), UnixListener::bind)
            .map_err(VmmError::file("listen on", dir.control()))?;
        let (console, console_theirs) = UnixStream::pair()?;
        let (monitor, monitor_theirs) = UnixStream::pair()?;
        let jail = Jail::make(&dir.jail(), &kernel, &initramfs, devices(accelerator))?;
        let machine = Machine {
            name: boot.machine.as_str(),
            accelerator,
            firmware: &probe::qboot().ok_or("the firmware qboot.rom is not installed")?,
            cpus: boot.guest.cpus,
            memory_mib: boot.guest.memory_mb,
            disks: &disks,
            tap: tap.as_raw_fd(),
            mac: boot.attachment.mac,
            control: control.as_raw_fd(),
            console: console_theirs.as_raw_fd(),
            monitor: monitor_theirs.as_raw_fd(),
            begin,
        };
        let mut command = std::process::Command::new(&jail.program);
        command
            .args(machine.argv())
            .stdin(Stdio::null())
            .env_clear();
        fds.extend([tap, control.into()]);
        fds.extend([console_theirs.into(), monitor_theirs.into()]);
        sys::keep_fds(&mut command, fds.iter().map(AsRawFd::as_raw_fd).collect());
        sys::confine(
            &mut command,
            Confinement {
                uid: boot.attachment.owner_uid,
                groups: groups(machine.accelerator),
                root: Some(jail.root),
            },
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
        console.set_nonblocking(true)?;
        let console = Console::start(tokio::net::UnixStream::from_std(console)?, &log);
        Ok(Self {
            qemu,
            console,
            qmp: Qmp::new(monitor)?,
            dir: dir.clone(),
            accelerator,
        })
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

/// Opens two disks for each container, its image and a writable layer, and one for each volume.
/// Writable layers are made anew, unless the memory of a machine that has used them is restored.
fn disks(
    paths: &Paths,
    spec: &mut ShimSpec,
    begin: Begin,
    fds: &mut Vec<OwnedFd>,
) -> Result<Vec<Disk>, Failure> {
    if matches!(begin, Begin::Boot) {
        prepare_uppers(paths, &spec.boot)?;
    }
    let boot = &mut spec.boot;
    let mut disks = Vec::new();
    let mut add = |file: File, serial: &str, kind| {
        disks.push(Disk {
            serial: serial.to_owned(),
            fd: file.as_raw_fd(),
            kind,
        });
        fds.push(file.into());
    };
    for (index, container) in boot.spec.containers.iter_mut().enumerate() {
        let name = &container.name;
        let image = image_of(&boot.images, name)?;
        let upper = paths.upper(&boot.machine, name);
        container.image_disk = format!("image{index}");
        container.upper_disk = format!("upper{index}");
        let image = File::open(image).map_err(VmmError::file("open image", image))?;
        add(image, &container.image_disk, DiskKind::Image);
        let upper = open_writable(&upper, "open writable layer")?;
        add(upper, &container.upper_disk, DiskKind::Upper);
    }
    for (index, volume) in boot.spec.volumes.iter_mut().enumerate() {
        volume.disk = format!("volume{index}");
        let file = open_writable(Path::new(&volume.file), "open volume")?;
        add(file, &volume.disk, DiskKind::Volume);
    }
    Ok(disks)
}

fn open_writable(path: &Path, doing: &'static str) -> Result<File, VmmError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(VmmError::file(doing, path))
}

/// Names in `/dev` of what QEMU opens itself.
fn devices(accelerator: Accelerator) -> &'static [&'static str] {
    match accelerator {
        Accelerator::Kvm => &["kvm", "urandom"],
        Accelerator::Tcg => &["urandom"],
    }
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
