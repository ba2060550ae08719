//! Starting a worker, which is recovering one: the ledger says what should be, the host says what
//! is, and every driver goes on where its predecessor was interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};
use types::{BootId, MachineId};
use vmm::{Vmm, VmmError};

use super::handle::Handle;
use super::host::{Config, Core, Host, Reach as _};
use super::ledger::{Ledger, LedgerError, Uids};
use super::machine::Machine;
use super::ports::{Images, Network, PortError};
use super::volumes::{Live, VolumesError};
use crate::catalog::Catalog;

/// Time for drivers to see that the worker shuts down; they end at their next wait.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Volumes(#[from] VolumesError),
    #[error("cannot find out which machines run on this host")]
    Present { source: VmmError },
    #[error("cannot find out which machines are attached to the network")]
    Attachments { source: PortError },
    #[error("a thread of the worker died while it opened ledger {}", path.display())]
    Died { path: PathBuf },
}

/// A running worker. Dropping it without [`Self::shutdown`] leaves its tasks running.
#[derive(Debug)]
pub struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) handle: Handle,
    pub(super) ledger: thread::JoinHandle<()>,
}

impl Worker {
    /// Opens the ledger, publishes its machines, re-adopts what runs, finishes what was half done
    /// and removes what belongs to no machine. Returns when all of that has begun.
    ///
    /// # Errors
    /// If the ledger cannot be used, or the host cannot be asked what is on it.
    pub async fn start<V: Vmm, N: Network, I: Images>(
        config: Config,
        vmm: V,
        network: N,
        images: I,
        catalog: Catalog,
    ) -> Result<Self, StartError> {
        let (path, host) = (config.ledger.clone(), config.host);
        let uids = Uids(config.uids.0, config.uids.1);
        let published = catalog.clone();
        let opened =
            tokio::task::spawn_blocking(move || Ledger::open(&path, host, uids, published));
        let died = |_| StartError::Died {
            path: config.ledger.clone(),
        };
        let (ledger, machines, thread) = opened.await.map_err(died)??;
        sweep(&vmm, &network, &machines).await?;
        let core = Arc::new(Core::new(config, ledger, catalog).await?);
        let host = Arc::new(Host {
            core: Arc::clone(&core),
            vmm,
            network,
            images,
        });
        let live: Weak<dyn Live> = Arc::downgrade(&(Arc::clone(&host) as Arc<dyn Live>));
        core.volumes.set_live(live);
        info!(machines = machines.len(), "worker started");
        let now = Timestamp::now();
        for machine in machines {
            let effects = machine.recover(now);
            Arc::clone(&host).drive(machine, effects);
        }
        // After the drivers have begun: from here on it is known which volumes are in use.
        core.volumes.recover().await.map_err(VolumesError::from)?;
        let handle = Handle::new(Arc::clone(&core), host);
        Ok(Self {
            core,
            handle,
            ledger: thread,
        })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the worker; machines go on. Returns when the ledger is closed. Handles that are still
    /// held answer with refusals.
    pub async fn shutdown(self) {
        let Self {
            core,
            handle: _,
            ledger,
        } = self;
        core.shutdown.cancel();
        core.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, core.tasks.wait())
            .await
            .is_err()
        {
            warn!(
                tasks = core.tasks.len(),
                "drivers of machines did not end in time"
            );
        }
        core.ledger.close().await;
        if tokio::task::spawn_blocking(move || ledger.join())
            .await
            .is_err()
        {
            warn!("the ledger was not closed");
        }
    }
}

/// Removes bodies and links that belong to no machine, or to no boot that its machine knows.
async fn sweep<V: Vmm, N: Network>(
    vmm: &V,
    network: &N,
    machines: &[Machine],
) -> Result<(), StartError> {
    let known: BTreeMap<&MachineId, &Machine> = machines.iter().map(|m| (&m.id, m)).collect();
    let present = vmm
        .present()
        .await
        .map_err(|source| StartError::Present { source })?;
    for (id, boot) in present {
        let machine = known.get(&id).copied();
        remove_body(vmm, &id, boot, machine).await;
    }
    let attached = machines
        .iter()
        .filter(|machine| machine.present_boot().is_some());
    let attached: BTreeSet<u32> = attached.map(|machine| machine.allocation.field).collect();
    let links = network.attachments().await;
    for field in links.map_err(|source| StartError::Attachments { source })? {
        if attached.contains(&field) {
            continue;
        }
        info!(
            field = format!("{field:08x}"),
            "removing a link that belongs to no machine"
        );
        if let Err(error) = network.detach(field).await {
            warn!(error = %types::chain(&error), "cannot remove a link");
        }
    }
    Ok(())
}

async fn remove_body<V: Vmm>(
    vmm: &V,
    id: &MachineId,
    boot: Option<BootId>,
    machine: Option<&Machine>,
) {
    let wanted = machine.and_then(Machine::present_boot);
    if let Some(boot) = boot.filter(|boot| Some(*boot) != wanted) {
        info!(machine = %id, boot = boot.0, "removing a boot that belongs to no machine");
        if let Err(error) = vmm.kill(id, boot).await {
            warn!(machine = %id, error = %types::chain(&error), "cannot remove a boot");
        }
    }
    if machine.is_none()
        && let Err(error) = vmm.forget(id).await
    {
        warn!(machine = %id, error = %types::chain(&error), "cannot forget a machine");
    }
}
