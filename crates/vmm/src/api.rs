//! What the worker asks of a machine's body, and what it is told.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use types::api::{LogLine, LogQuery, ProcessStat, TerminalSize};
use types::guest::{ContainerReport, ExecEnd, ExecRequest, HealthReport, MachineSpec, Statistics};
use types::machine::{ExitEvent, Guest};
use types::{BootId, IsolationClass, MachineId, VolumeId};

use crate::VmmError;

/// Runs machines' bodies on this host.
///
/// ```text
///  [prepare()] boot() ── Ready ── Container… ── Exited ── kill()    kill() may come at any time
///                └───── Failed ─────────────────────────── kill()
/// ```
///
/// Every boot ends with exactly one `Failed` or `Exited` report, also when its shim is killed.
/// Reports are kept until `kill`, which is how the worker says that it has recorded the end. When
/// the host itself was booted again, nothing is left of a boot, and it is `Gone`.
pub trait Vmm: Send + Sync + 'static {
    /// Makes what a boot needs as far as it goes without a network, for `boot` to go on with, while
    /// the caller makes the network that `spec` names. Nothing runs yet: if `boot` does not follow
    /// (the worker may be killed), the boot has not begun; `kill` removes what was made.
    ///
    /// # Errors
    /// Those of `boot`.
    fn prepare(&self, spec: BootSpec) -> impl Future<Output = Result<(), VmmError>> + Send {
        let _ = spec;
        std::future::ready(Ok(()))
    }

    /// Starts a boot. Returns when its shim is up and has its specification written down; the
    /// boot goes on by itself and ends in `Ready` or `Failed` within `spec.boot_timeout`.
    /// A boot that is there already is left alone.
    ///
    /// # Errors
    /// If nothing was started: the class is not offered, a file is missing, or the shim failed.
    fn boot(&self, spec: BootSpec) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Reports of a boot with a sequence number above `after` (0: all of them), and then new ones
    /// as they come. The stream ends after the last report of the boot.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if this host knows nothing of that boot.
    fn reports(
        &self,
        machine: &MachineId,
        boot: BootId,
        after: u64,
    ) -> impl Future<Output = Result<mpsc::Receiver<Report>, VmmError>> + Send;

    /// Asks every container to end: `signal` (`None`: each one's own), and after `grace` a kill.
    /// Returns when the request has been handed over. A second call may shorten the grace.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the boot is over or its body does not answer.
    fn stop(
        &self,
        machine: &MachineId,
        boot: BootId,
        signal: Option<String>,
        grace: Duration,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Ends a boot at once and returns when nothing of it is left: no process, cgroup, mount or
    /// file in the run directory. Logs stay. Idempotent; also cleans up after a crashed shim.
    ///
    /// # Errors
    /// If something could not be removed; calling again is right.
    fn kill(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Runs a process beside a container's own. That it could not be started is told by
    /// [`Output::End`].
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn exec(
        &self,
        machine: &MachineId,
        boot: BootId,
        request: ExecRequest,
    ) -> impl Future<Output = Result<Io, VmmError>> + Send;

    /// Connects to a container's own standard streams.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn attach(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: String,
    ) -> impl Future<Output = Result<Io, VmmError>> + Send;

    /// Sends a signal to the first process of a container, or of each.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn signal(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: Option<String>,
        signal: String,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Saves the machine's memory beside its writable layers and ends its body. The boot then ends
    /// with [`ReportEvent::Suspended`]; a later boot with `resume` set goes on where this one stood.
    /// Returns when that has begun.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run, [`VmmError::CannotSuspend`] if its class
    /// cannot.
    fn suspend(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Deletes what [`Self::suspend`] saved. Idempotent.
    ///
    /// # Errors
    /// If something could not be deleted.
    fn discard_suspended(
        &self,
        machine: &MachineId,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// The machine's processes.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn processes(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> impl Future<Output = Result<Vec<ProcessStat>, VmmError>> + Send;

    /// What the machine uses.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn statistics(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> impl Future<Output = Result<Statistics, VmmError>> + Send;

    /// Copies files into or out of a container, as a tar archive on the streams.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run.
    fn copy(
        &self,
        machine: &MachineId,
        boot: BootId,
        copy: Copy,
    ) -> impl Future<Output = Result<Io, VmmError>> + Send;

    /// Lets a volume stand still: what the machine has written is in its file, and more has to wait,
    /// until the answer is dropped, or for [`types::guest::FREEZE_MS_MAX`].
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run, [`VmmError::Refused`] if its guest cannot.
    fn freeze(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
    ) -> impl Future<Output = Result<Frozen, VmmError>> + Send;

    /// Lets the machine's file system on a volume take up its file, which has `bytes` now.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the machine does not run, [`VmmError::Refused`] if its body or guest
    /// cannot; it grows at the next boot.
    fn grow(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
        bytes: u64,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// What a container wrote, also when the machine is stopped: logs stay until `forget`.
    /// With `query.follow` the stream ends when the machine's boot does.
    ///
    /// # Errors
    /// If the logs cannot be read, or `query.container` names none of the machine's containers.
    fn logs(
        &self,
        machine: &MachineId,
        query: LogQuery,
    ) -> impl Future<Output = Result<mpsc::Receiver<LogLine>, VmmError>> + Send;

    /// Deletes what a machine keeps on disk (writable layers, logs). Idempotent.
    ///
    /// # Errors
    /// If something could not be deleted.
    fn forget(&self, machine: &MachineId) -> impl Future<Output = Result<(), VmmError>> + Send;

    /// Machines that have anything on this host, with the boots whose end has not been
    /// acknowledged by `kill`. For the sweep at start-up.
    ///
    /// # Errors
    /// If the directories cannot be read.
    fn present(
        &self,
    ) -> impl Future<Output = Result<Vec<(MachineId, Option<BootId>)>, VmmError>> + Send;
}

/// Everything needed to run a machine once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootSpec {
    pub machine: MachineId,
    pub boot: BootId,
    pub isolation: IsolationClass,
    pub guest: Guest,
    pub attachment: BootNetwork,
    /// One for each of `spec.containers`.
    pub images: Vec<ContainerImage>,
    /// Size of each container's writable layer. One that is kept grows to it.
    pub rootfs_size_bytes: u64,
    /// Which earlier boots' writable layers this one goes on with; `None`: fresh ones.
    #[serde(default)]
    pub keep: Option<KeepLayers>,
    /// Go on from what [`Vmm::suspend`] saved. The boot fails if that cannot be used.
    #[serde(default)]
    pub resume: bool,
    /// What is handed to the guest. The disks' serial numbers (`image_disk`, `upper_disk`) are
    /// set by this crate.
    pub spec: MachineSpec,
    /// Time from `boot` to `Ready`, after which the boot fails.
    pub boot_timeout: Duration,
}

/// Writable layers that stay from boot to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepLayers {
    /// The machine's version, which layers are marked with.
    pub version: String,
    /// Whether those of any other version do as well. Only layers of boots that were to keep them
    /// are marked at all.
    pub any_version: bool,
}

/// The network interface, made by `net` before the boot begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootNetwork {
    /// The tap in the host's namespace (VM classes). Containers find `eth0` in their namespace.
    pub ifname: String,
    /// Path of the host's network namespace, in which the shim and the VMM run.
    pub host_netns: PathBuf,
    /// Path of the machine's own network namespace; needed by class `container` only.
    pub machine_netns: Option<PathBuf>,
    pub mac: MacAddress,
    /// User (and group) that may open the tap; the VMM runs as it.
    pub owner_uid: u32,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The read-only EROFS image of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerImage {
    pub container: String,
    pub rootfs: PathBuf,
}

/// The image of a container, of those of its boot.
pub(crate) fn image_of<'a>(
    images: &'a [ContainerImage],
    container: &str,
) -> Result<&'a Path, VmmError> {
    let image = images.iter().find(|image| image.container == container);
    let reason = || format!("container {container} has no image");
    let image = image.ok_or_else(|| VmmError::Spec { reason: reason() })?;
    Ok(&image.rootfs)
}

/// Something that happened in a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// From 1, without gaps.
    pub seq: u64,
    pub event: ReportEvent,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReportEvent {
    /// Network and file systems are up and supervision has begun.
    Ready,
    Container(ContainerReport),
    /// Last: the boot did not become ready, or its body was lost without an exit.
    Failed {
        reason: String,
    },
    /// The outcome of a check changed, or what it says.
    Health(HealthReport),
    /// Last: the machine was saved, and the body is gone.
    Suspended,
    /// Last: every container ended and the body is gone.
    Exited {
        exit: ExitEvent,
    },
}

/// Which way [`Vmm::copy`] goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// Unpack the archive on standard input under this directory.
    Into { container: String, path: String },
    /// Pack this file or directory to standard output.
    OutOf { container: String, path: String },
}

impl ReportEvent {
    /// Whether no report follows this one.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Ready | Self::Container(_) | Self::Health(_) => false,
            Self::Failed { .. } | Self::Suspended | Self::Exited { .. } => true,
        }
    }
}

/// Standard streams of a process in a machine. Dropping `output` ends the connection; an exec's
/// process then gets a hang-up, a container's own lives on.
#[derive(Debug)]
pub struct Io {
    pub input: mpsc::Sender<Input>,
    pub output: mpsc::Receiver<Output>,
}

/// A volume that stands still for as long as this lives.
#[derive(Debug)]
pub struct Frozen {
    machine: MachineId,
    io: Io,
}

impl Frozen {
    /// Waits until the guest says on `io` that it stands still.
    pub(crate) async fn begin(machine: &MachineId, mut io: Io) -> Result<Self, VmmError> {
        let machine = machine.clone();
        match next(&mut io.output).await {
            Output::Stdout(_) | Output::Stderr(_) => Ok(Self { machine, io }),
            Output::End(ExecEnd::Failed { reason }) => Err(VmmError::Refused { machine, reason }),
            Output::End(ExecEnd::Exited { .. }) => {
                let reason = "the volume did not stand still".to_owned();
                Err(VmmError::Refused { machine, reason })
            }
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// [`VmmError::Refused`] if it has done so before.
    pub async fn thaw(mut self) -> Result<(), VmmError> {
        // If nobody takes it, the output tells why.
        let _ = self.io.input.send(Input::CloseStdin).await;
        let machine = self.machine;
        match next(&mut self.io.output).await {
            Output::End(ExecEnd::Exited { .. }) => Ok(()),
            Output::End(ExecEnd::Failed { reason }) => Err(VmmError::Refused { machine, reason }),
            Output::Stdout(_) | Output::Stderr(_) => {
                let reason = "the guest is out of order".to_owned();
                Err(VmmError::Refused { machine, reason })
            }
        }
    }
}

/// A guest may have much to write before a volume stands still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(20);

async fn next(output: &mut mpsc::Receiver<Output>) -> Output {
    let failed = |reason: &str| {
        let reason = reason.to_owned();
        Output::End(ExecEnd::Failed { reason })
    };
    match tokio::time::timeout(FREEZE_TIMEOUT, output.recv()).await {
        Ok(Some(output)) => output,
        Ok(None) => failed("the machine ended meanwhile"),
        Err(_) => failed("the guest does not answer"),
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Stdin(Bytes),
    CloseStdin,
    Resize(TerminalSize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Last.
    End(ExecEnd),
}
