//! What every driver and every handle of one worker share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::api::{LogLine, LogQuery, ProcessStat};
use types::guest::{ExecRequest, Statistics};
use types::machine::Machine as Shown;
use types::{BootId, HostId, ImageRef, MachineId, VolumeId};
use vmm::{Frozen, Io, Vmm, VmmError};

use super::capacity::{Accounts, Capacity, Classes};
use super::driver::{Driver, REQUESTS_MAX, Request};
use super::ledger::Ledger;
use super::machine::{Effect, Machine};
use super::ports::{Images, Network, Secrets};
use super::spec::Settings;
use super::volumes::{self, Live, Volumes, VolumesError};
use crate::catalog::Catalog;

/// The VMM itself ends a boot that is not ready in time; one that does not is ended so much later.
const BOOT_MARGIN: Duration = Duration::from_secs(15);

/// What a worker is to be.
#[derive(Debug, Clone)]
pub struct Config {
    pub host: HostId,
    pub region: String,
    /// The ledger's file. Its directory exists, and gets a folder `volumes`.
    pub ledger: PathBuf,
    pub capacity: Capacity,
    /// A folder on the disk that machines write to, of which not more is given out than is left;
    /// without one `capacity` is what there is.
    pub disk: Option<PathBuf>,
    pub classes: Classes,
    /// Time a machine has from its start until its guest is ready.
    pub boot_timeout: Duration,
    /// Size of a writable layer where the configuration does not say.
    pub rootfs_mib_default: u64,
    /// User ids that VMMs run as, first and last; used by nobody else on this host.
    pub uids: (u32, u32),
    /// What machines are given at their boots.
    pub secrets: Arc<dyn Secrets>,
}

/// What does not depend on how machines are run.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) ledger: Ledger,
    pub(super) catalog: Catalog,
    accounts: Arc<Mutex<Accounts>>,
    pub(super) volumes: Volumes,
    drivers: Mutex<BTreeMap<MachineId, Driven>>,
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The way to a machine's driver.
#[derive(Debug, Clone)]
struct Driven {
    requests: mpsc::Sender<Request>,
    /// The boot that one can reach into; 0: none.
    reachable: Arc<AtomicU64>,
}

impl Core {
    /// Opens the volumes, too: their files are beside the ledger.
    pub(super) async fn new(
        config: Config,
        ledger: Ledger,
        catalog: Catalog,
    ) -> Result<Self, VolumesError> {
        let accounts = Arc::new(Mutex::new(Accounts::new(config.capacity)));
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let parts = volumes::Parts {
            host: config.host,
            region: config.region.clone(),
            folder: config.ledger.with_file_name("volumes"),
            ledger: ledger.clone(),
            accounts: Arc::clone(&accounts),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        };
        Ok(Self {
            volumes: Volumes::open(parts).await?,
            config,
            ledger,
            catalog,
            accounts,
            drivers: Mutex::default(),
            shutdown,
            tasks,
        })
    }

    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = self.config.disk.as_deref();
        // Whoever cannot be measured was so at the start of the daemon.
        if let Some(Ok(disk)) = disk.map(nix::sys::statvfs::statvfs) {
            accounts.see_disk((disk.blocks_available() * disk.fragment_size()) >> 20);
        }
        accounts
    }

    fn drivers(&self) -> MutexGuard<'_, BTreeMap<MachineId, Driven>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requests_of(&self, id: &MachineId) -> Option<mpsc::Sender<Request>> {
        self.drivers().get(id).map(|driven| driven.requests.clone())
    }

    pub(super) fn reachable(&self, id: &MachineId) -> Option<BootId> {
        let boot = self.drivers().get(id)?.reachable.load(Ordering::Acquire);
        (boot > 0).then_some(BootId(boot))
    }

    pub(super) fn forget_driver(&self, id: &MachineId) {
        self.drivers().remove(id);
    }

    /// The machine as it was published last.
    pub(super) fn shown(&self, machine: &Machine) -> Shown {
        let entry = self.catalog.get(&machine.id);
        entry.map_or_else(|| machine.show(0), |entry| entry.machine.clone())
    }

    pub(super) fn boot_deadline(&self) -> Timestamp {
        let deadline = Timestamp::now().saturating_add(self.config.boot_timeout + BOOT_MARGIN);
        deadline.unwrap_or(Timestamp::MAX)
    }

    pub(super) fn spec_settings(&self) -> Settings {
        Settings {
            boot_timeout: self.config.boot_timeout,
            rootfs_mib_default: self.config.rootfs_mib_default,
        }
    }
}

/// A worker with its ports.
pub(super) struct Host<V, N, I> {
    pub(super) core: Arc<Core>,
    pub(super) vmm: V,
    pub(super) network: N,
    pub(super) images: I,
}

/// What handles need of the ports, without their types.
pub(super) trait Reach: Send + Sync {
    /// Starts the driver of a machine that has none.
    fn drive(self: Arc<Self>, machine: Machine, effects: Vec<Effect>);
    fn images_present(&self, images: Vec<ImageRef>) -> BoxFuture<'_, bool>;
    fn exec<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<Io, VmmError>>;
    fn attach<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        container: String,
    ) -> BoxFuture<'a, Result<Io, VmmError>>;
    fn logs<'a>(
        &'a self,
        id: &'a MachineId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<LogLine>, VmmError>>;
    fn signal<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        container: Option<String>,
        signal: String,
    ) -> BoxFuture<'a, Result<(), VmmError>>;
    fn processes<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
    ) -> BoxFuture<'a, Result<Vec<ProcessStat>, VmmError>>;
    fn statistics<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
    ) -> BoxFuture<'a, Result<Statistics, VmmError>>;
    fn copy<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        copy: vmm::Copy,
    ) -> BoxFuture<'a, Result<Io, VmmError>>;
}

impl<V: Vmm, N: Network, I: Images> Reach for Host<V, N, I> {
    fn drive(self: Arc<Self>, machine: Machine, effects: Vec<Effect>) {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let reachable = Arc::new(AtomicU64::new(0));
        let driven = Driven {
            requests,
            reachable: Arc::clone(&reachable),
        };
        self.core.drivers().insert(machine.id.clone(), driven);
        let core = Arc::clone(&self.core);
        core.tasks
            .spawn(Driver::new(self, machine, inbox, reachable, effects).run());
    }

    fn images_present(&self, images: Vec<ImageRef>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            for image in &images {
                if !self.images.present(image).await {
                    return false;
                }
            }
            true
        })
    }

    fn exec<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<Io, VmmError>> {
        Box::pin(self.vmm.exec(id, boot, request))
    }

    fn attach<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        container: String,
    ) -> BoxFuture<'a, Result<Io, VmmError>> {
        Box::pin(self.vmm.attach(id, boot, container))
    }

    fn logs<'a>(
        &'a self,
        id: &'a MachineId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<LogLine>, VmmError>> {
        Box::pin(self.vmm.logs(id, query))
    }

    fn signal<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        container: Option<String>,
        signal: String,
    ) -> BoxFuture<'a, Result<(), VmmError>> {
        Box::pin(self.vmm.signal(id, boot, container, signal))
    }

    fn processes<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
    ) -> BoxFuture<'a, Result<Vec<ProcessStat>, VmmError>> {
        Box::pin(self.vmm.processes(id, boot))
    }

    fn statistics<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
    ) -> BoxFuture<'a, Result<Statistics, VmmError>> {
        Box::pin(self.vmm.statistics(id, boot))
    }

    fn copy<'a>(
        &'a self,
        id: &'a MachineId,
        boot: BootId,
        copy: vmm::Copy,
    ) -> BoxFuture<'a, Result<Io, VmmError>> {
        Box::pin(self.vmm.copy(id, boot, copy))
    }
}

impl<V: Vmm, N: Network, I: Images> Live for Host<V, N, I> {
    fn freeze<'a>(
        &'a self,
        machine: &'a MachineId,
        volume: &'a VolumeId,
    ) -> BoxFuture<'a, Result<Option<Frozen>, VmmError>> {
        Box::pin(async move {
            let Some(boot) = self.core.reachable(machine) else {
                return Ok(None);
            };
            self.vmm.freeze(machine, boot, volume).await.map(Some)
        })
    }

    fn grow<'a>(
        &'a self,
        machine: &'a MachineId,
        volume: &'a VolumeId,
        bytes: u64,
    ) -> BoxFuture<'a, Result<bool, VmmError>> {
        Box::pin(async move {
            let Some(boot) = self.core.reachable(machine) else {
                return Ok(false);
            };
            let grown = self.vmm.grow(machine, boot, volume, bytes).await;
            grown.map(|()| true)
        })
    }
}

impl fmt::Debug for dyn Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reach")
    }
}
