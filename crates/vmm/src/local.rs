//! The machines of this host, each boot in a shim of its own.
//!
//! Nothing is kept in memory: what exists is read from directories, locks and control groups, so
//! that a worker that was killed at any point is replaced by another one, which calls the same
//! methods again.

mod channel;
mod reports;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;
use types::api::{LogLine, LogQuery, ProcessStat};
use types::guest::{ExecRequest, Statistics};
use types::{BootId, HostId, IsolationClass, MachineId, VolumeId};

use crate::api::image_of;
use crate::cgroup::Group;
use crate::paths::{BootDir, Paths, is_file_name, remove};
use crate::shim::{self, Request, SPEC_VERSION, ShimSpec, Spares, Told};
use crate::spool::{self, Reader};
use crate::suspended::Suspended;
use crate::{BootSpec, Copy, Frozen, Io, Offers, Report, Vmm, VmmError, qemu};
use reports::{Shimless, follow_reports};

/// Reports on their way to the worker, which writes each one down.
const REPORTS_MAX: usize = 64;
/// Lines on their way to whoever reads a log.
const LINES_MAX: usize = 256;
/// Containers in one machine: two disks each.
const CONTAINERS_MAX: usize = 12;
/// Disks on one PCI bus of 32 slots, beside network, control port, random numbers and the chipset.
const DISKS_MAX: usize = 26;
/// A killed process is gone when the kernel has taken apart its memory and mounts.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// The machine that just begins needs the processors more than the next one.
const REPLENISH_PAUSE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(10);

/// Where things are, and what may run.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Machines keep their writable layers and logs in `<data_dir>/machines/<id>`.
    pub data_dir: PathBuf,
    /// Boots live in `<run_dir>/machines/<id>/<boot>`.
    pub run_dir: PathBuf,
    /// Holds the guest's `vmlinux` and `initramfs.cpio`.
    pub guest_dir: PathBuf,
    /// Kernel to boot in place of both that one and the next.
    pub kernel: Option<PathBuf>,
    /// Where a kernel may be at any time, to boot in place of the one in `guest_dir`.
    pub chosen_kernel: PathBuf,
    pub host: HostId,
    /// Program with the sub-commands `shim` and `container`: this very binary.
    pub shim: PathBuf,
    /// What the host can do.
    pub offers: Offers,
    /// What policy allows.
    pub allow: BTreeSet<IsolationClass>,
}

/// [`Vmm`] of this host. Holds no state that is not on disk, so that a new one takes over.
#[derive(Debug, Clone)]
pub struct Local {
    config: LocalConfig,
    paths: Paths,
    spares: Spares,
    /// Shims of boots that are prepared and not yet to begin.
    prepared: Arc<Mutex<HashMap<(MachineId, BootId), Told>>>,
}

impl Local {
    pub fn new(config: LocalConfig) -> Self {
        let paths = Paths {
            data_dir: config.data_dir.clone(),
            run_dir: config.run_dir.clone(),
        };
        let spares = Spares::new(config.shim.clone(), config.run_dir.clone());
        Self {
            config,
            paths,
            spares,
            prepared: Arc::default(),
        }
    }

    /// Gets ready for the first boot, which is as fast as later ones then.
    pub async fn warm_up(&self) {
        self.spares.replenish().await;
    }

    pub fn config(&self) -> &LocalConfig {
        &self.config
    }

    fn kernel(&self) -> Option<PathBuf> {
        let chosen = || self.config.chosen_kernel.canonicalize().ok();
        self.config.kernel.clone().or_else(chosen)
    }

    /// Whether `spec` can be carried out here, as far as can be told without trying.
    fn check(&self, spec: &BootSpec) -> Result<(), VmmError> {
        let class = spec.isolation;
        let refused = |reason: &str| VmmError::NotOffered {
            class,
            reason: reason.to_owned(),
        };
        if !self.config.allow.contains(&class) {
            return Err(refused("this host's configuration does not allow it"));
        }
        if let Some(reason) = self.config.offers.missing(class) {
            return Err(refused(reason));
        }
        match class {
            IsolationClass::Microvm | IsolationClass::Emulated => {
                qemu::guest_files(&self.config.guest_dir, self.kernel().as_deref())?;
            }
            IsolationClass::Container => {
                if spec.resume {
                    return Err(VmmError::CannotSuspend { class });
                }
                if spec.attachment.machine_netns.is_none() {
                    return Err(wrong("class container needs a network namespace".into()));
                }
            }
        }
        let containers = &spec.spec.containers;
        if containers.is_empty() || containers.len() > CONTAINERS_MAX {
            let count = containers.len();
            return Err(wrong(format!(
                "{count} containers; 1 to {CONTAINERS_MAX} are possible"
            )));
        }
        let mut names = BTreeSet::new();
        for container in containers {
            let name = &container.name;
            if !is_file_name(name) || !names.insert(name) {
                return Err(wrong(format!(
                    "container name `{name}` is not possible here"
                )));
            }
            let image = image_of(&spec.images, name)?;
            fs::metadata(image).map_err(VmmError::file("find image", image))?;
        }
        let volumes = &spec.spec.volumes;
        for volume in volumes {
            fs::metadata(&volume.file).map_err(VmmError::file("find volume", &volume.file))?;
        }
        let disks = 2 * containers.len() + volumes.len();
        if class != IsolationClass::Container && disks > DISKS_MAX {
            return Err(wrong(format!(
                "it needs {disks} disks, for images, writable layers and volumes; {DISKS_MAX} are \
                 possible"
            )));
        }
        Ok(())
    }

    /// What a shim needs to find.
    fn write_down(&self, spec: BootSpec) -> Result<BootDir, VmmError> {
        self.check(&spec)?;
        let dir = self.paths.boot(&spec.machine, spec.boot);
        for path in [&dir.0, &self.paths.data(&spec.machine)] {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(path);
            made.map_err(VmmError::file("make directory", path))?;
        }
        if !shim::is_begun(&dir) {
            let spec = ShimSpec {
                version: SPEC_VERSION,
                data_dir: self.config.data_dir.clone(),
                run_dir: self.config.run_dir.clone(),
                guest_dir: self.config.guest_dir.clone(),
                kernel: self.kernel(),
                host: self.config.host,
                program: self.config.shim.clone(),
                firecracker: self.config.offers.firecracker.clone(),
                boot: spec,
            };
            spec.write(&dir)?;
        }
        Ok(dir)
    }

    /// Lets a shim make what it can before the machine has a network.
    async fn tell(&self, spec: BootSpec) -> Result<Told, VmmError> {
        let this = self.clone();
        let dir = blocking(move || this.write_down(spec)).await?;
        self.spares.tell(&dir).await
    }

    fn prepared(&self) -> MutexGuard<'_, HashMap<(MachineId, BootId), Told>> {
        // Every change is one call of the map, so a panic elsewhere leaves it whole.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(machine: &MachineId, boot: BootId) -> VmmError {
        let machine = machine.clone();
        VmmError::Gone { machine, boot }
    }

    /// Streams of whatever the request starts.
    async fn open_io(
        &self,
        machine: &MachineId,
        boot: BootId,
        request: Request,
    ) -> Result<Io, VmmError> {
        let dir = self.paths.boot(machine, boot);
        let opened = channel::open(machine, &dir, &request).await?;
        opened
            .map(channel::io)
            .ok_or_else(|| Self::gone(machine, boot))
    }

    /// The container that a query means.
    fn container(&self, machine: &MachineId, query: &LogQuery) -> Result<String, VmmError> {
        let logs = self.paths.logs(machine);
        let names = spool::containers(&logs).map_err(VmmError::file("read directory", &logs))?;
        let machine = machine.clone();
        match (&query.container, names.as_slice()) {
            (Some(name), _) if names.contains(name) => Ok(name.clone()),
            (Some(name), _) => Err(VmmError::NoContainer {
                machine,
                container: name.clone(),
            }),
            (None, [name]) => Ok(name.clone()),
            (None, []) => Err(VmmError::NoContainer {
                machine,
                container: String::new(),
            }),
            (None, _) => Err(VmmError::WhichContainer {
                machine,
                names: names.join(", "),
            }),
        }
    }

    /// The newest boot of a machine that has a shim.
    fn alive(&self, machine: &MachineId) -> Option<BootDir> {
        let boots = self.paths.boots().ok()?;
        let mut boots: Vec<_> = boots.into_iter().filter(|(id, _)| id == machine).collect();
        boots.sort_by_key(|(_, boot)| *boot);
        let dirs = boots.into_iter().rev();
        dirs.map(|(id, boot)| self.paths.boot(&id, boot))
            .find(shim::is_alive)
    }
}

fn wrong(reason: String) -> VmmError {
    VmmError::Spec { reason }
}

/// Runs something that blocks. If it panics, so do we.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Vmm for Local {
    async fn prepare(&self, spec: BootSpec) -> Result<(), VmmError> {
        let key = (spec.machine.clone(), spec.boot);
        let told = self.tell(spec).await?;
        self.prepared().insert(key, told);
        Ok(())
    }

    async fn boot(&self, spec: BootSpec) -> Result<(), VmmError> {
        let machine = spec.machine.clone();
        let prepared = self.prepared().remove(&(machine.clone(), spec.boot));
        let told = match prepared {
            Some(told) => told,
            None => self.tell(spec).await?,
        };
        let begun = told.go(&machine).await;
        let spares = self.spares.clone();
        tokio::spawn(async move {
            tokio::time::sleep(REPLENISH_PAUSE).await;
            spares.replenish().await;
        });
        begun
    }

    async fn reports(
        &self,
        machine: &MachineId,
        boot: BootId,
        after: u64,
    ) -> Result<mpsc::Receiver<Report>, VmmError> {
        let dir = self.paths.boot(machine, boot);
        let begun = {
            let dir = dir.clone();
            blocking(move || shim::has_begun(&dir)).await
        };
        if !begun.map_err(VmmError::file("look for a boot in", &dir.0))? {
            return Err(Self::gone(machine, boot));
        }
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        let shimless = Shimless {
            suspended: self.paths.suspended(machine),
            boot,
            dir,
        };
        let machine = machine.clone();
        tokio::spawn(async move { follow_reports(&machine, shimless, after, sender).await });
        Ok(receiver)
    }

    async fn stop(
        &self,
        machine: &MachineId,
        boot: BootId,
        signal: Option<String>,
        grace: Duration,
    ) -> Result<(), VmmError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { signal, grace_ms };
        let dir = self.paths.boot(machine, boot);
        let opened = channel::open(machine, &dir, &request).await?;
        opened.map(drop).ok_or_else(|| Self::gone(machine, boot))
    }

    async fn kill(&self, machine: &MachineId, boot: BootId) -> Result<(), VmmError> {
        let dir = self.paths.boot(machine, boot);
        // Its shim leaves.
        self.prepared().remove(&(machine.clone(), boot));
        let (host, machine) = (self.config.host, machine.clone());
        let suspended = self.paths.suspended(&machine);
        blocking(move || kill(host, &machine, boot, &dir, &suspended)).await
    }

    async fn exec(
        &self,
        machine: &MachineId,
        boot: BootId,
        request: ExecRequest,
    ) -> Result<Io, VmmError> {
        self.open_io(machine, boot, Request::Exec(request)).await
    }

    async fn attach(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: String,
    ) -> Result<Io, VmmError> {
        self.open_io(machine, boot, Request::Attach { container })
            .await
    }

    async fn signal(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: Option<String>,
        signal: String,
    ) -> Result<(), VmmError> {
        let request = Request::Signal { container, signal };
        let dir = self.paths.boot(machine, boot);
        let opened = channel::open(machine, &dir, &request).await?;
        opened.map(drop).ok_or_else(|| Self::gone(machine, boot))
    }

    async fn suspend(&self, machine: &MachineId, boot: BootId) -> Result<(), VmmError> {
        let dir = self.paths.boot(machine, boot);
        if !shim::is_alive(&dir) {
            return Err(Self::gone(machine, boot));
        }
        let class = ShimSpec::read(&dir)?.boot.isolation;
        if class == IsolationClass::Container {
            return Err(VmmError::CannotSuspend { class });
        }
        let opened = channel::open(machine, &dir, &Request::Suspend).await?;
        opened.map(drop).ok_or_else(|| Self::gone(machine, boot))
    }

    async fn discard_suspended(&self, machine: &MachineId) -> Result<(), VmmError> {
        let suspended = self.paths.suspended(machine);
        blocking(move || suspended.discard()).await
    }

    async fn processes(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> Result<Vec<ProcessStat>, VmmError> {
        let dir = self.paths.boot(machine, boot);
        let answer = channel::ask(machine, &dir, &Request::Processes).await?;
        answer.ok_or_else(|| Self::gone(machine, boot))
    }

    async fn statistics(&self, machine: &MachineId, boot: BootId) -> Result<Statistics, VmmError> {
        let dir = self.paths.boot(machine, boot);
        let answer = channel::ask(machine, &dir, &Request::Statistics).await?;
        answer.ok_or_else(|| Self::gone(machine, boot))
    }

    async fn copy(&self, machine: &MachineId, boot: BootId, copy: Copy) -> Result<Io, VmmError> {
        let request = match copy {
            Copy::Into { container, path } => Request::PutFiles { container, path },
            Copy::OutOf { container, path } => Request::GetFiles { container, path },
        };
        self.open_io(machine, boot, request).await
    }

    async fn freeze(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
    ) -> Result<Frozen, VmmError> {
        let volume = volume.to_string();
        let request = Request::FreezeVolume { volume };
        Frozen::begin(machine, self.open_io(machine, boot, request).await?).await
    }

    async fn grow(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
        bytes: u64,
    ) -> Result<(), VmmError> {
        let dir = self.paths.boot(machine, boot);
        let volume = volume.to_string();
        let request = Request::GrowVolume { volume, bytes };
        let answer = channel::ask(machine, &dir, &request).await?;
        answer.ok_or_else(|| Self::gone(machine, boot))
    }

    async fn logs(
        &self,
        machine: &MachineId,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, VmmError> {
        let container = self.container(machine, &query)?;
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        if query.follow
            && !query.previous
            && let Some(dir) = self.alive(machine)
        {
            let request = Request::Logs {
                container: container.clone(),
                query: query.clone(),
            };
            if let Some(stream) = channel::open(machine, &dir, &request).await? {
                tokio::spawn(channel::lines(stream, sender));
                return Ok(receiver);
            }
        }
        let logs = self.paths.logs(machine);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_log(&logs, &container, &query, &sender) {
                warn!(%error, "log cannot be read");
            }
        });
        Ok(receiver)
    }

    async fn forget(&self, machine: &MachineId) -> Result<(), VmmError> {
        let data = self.paths.data(machine);
        blocking(move || remove(&data)).await
    }

    async fn present(&self) -> Result<Vec<(MachineId, Option<BootId>)>, VmmError> {
        let paths = self.paths.clone();
        let (boots, machines) =
            blocking(move || Ok::<_, VmmError>((paths.boots()?, paths.machines()?))).await?;
        let with_boot: BTreeSet<_> = boots.iter().map(|(id, _)| id.clone()).collect();
        let without = machines.into_iter().filter(|id| !with_boot.contains(id));
        let mut present: Vec<_> = without.map(|id| (id, None)).collect();
        present.extend(boots.into_iter().map(|(id, boot)| (id, Some(boot))));
        present.sort();
        Ok(present)
    }
}

fn kill(
    host: HostId,
    machine: &MachineId,
    boot: BootId,
    dir: &BootDir,
    suspended: &Suspended,
) -> Result<(), VmmError> {
    let left = |what: String| VmmError::Left {
        machine: machine.clone(),
        boot,
        what,
    };
    let group = Group::new(host, machine, boot).map_err(|e| left(format!("its group: {e}")))?;
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        group
            .destroy()
            .map_err(|error| left(format!("its control group: {error}")))?;
        if !dir.0.exists() {
            return Ok(());
        }
        // A shim that was just started may join its group only now.
        let lock = match shim::try_lock(dir) {
            Ok(lock) => lock.map(Some),
            // Not even the specification was written, or an earlier kill was interrupted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(None),
            Err(error) => return Err(VmmError::file("lock", dir.lock())(error)),
        };
        if let Some(_lock) = lock {
            group
                .destroy()
                .map_err(|error| left(format!("its control group: {error}")))?;
            suspended.tidy()?;
            remove(&dir.0)?;
            // The machine's directory, if this was its only boot.
            if let Some(parent) = dir.0.parent() {
                let _ = fs::remove_dir(parent);
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(left("its shim".to_owned()));
        }
        std::thread::sleep(POLL);
    }
}

fn read_log(
    logs: &Path,
    container: &str,
    query: &LogQuery,
    sender: &mpsc::Sender<LogLine>,
) -> std::io::Result<()> {
    let query = LogQuery {
        follow: false,
        ..query.clone()
    };
    let mut reader = Reader::open(logs, container, &query)?;
    loop {
        let batch = reader.next()?;
        for line in batch.lines {
            if sender.blocking_send(line).is_err() {
                return Ok(());
            }
        }
        if batch.is_end {
            return Ok(());
        }
    }
}
