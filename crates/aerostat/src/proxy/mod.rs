//! Private VIPs: services answered on every host for its own machines.
//!
//! ```text
//!  services, machines (catalog) -> table: VIP, port, backends (pure)
//!        -> reconcile: VIPs on `lo` of the host's namespace, a listener for each port
//!
//!  a machine's connection to fdaa:<net>:0:1::N
//!        -> balance: least connections, the failed ones last (pure)
//!        -> dialled from this host's own address in that network; the next one if it fails
//!        -> relay: spliced both ways, half-close kept
//!        -> one line when it is over
//! ```
//!
//! A VIP never leaves its host: each host has all of them, so that a connection goes to its backend
//! over the mesh once at most. Backends see this host as their client; the guards let only their
//! own network reach the VIP, and nothing outside of it is dialled.

mod balance;
mod connection;
mod front;
mod pipes;
mod relay;
mod table;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net::{HostNet, NetError, Sockets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::service::{Service, Target};
use types::{HostId, MachineId, NetworkId};

use crate::catalog::{Catalog, Filter, Subscription};
use crate::drain::Drain;

use front::Front;
use pipes::Pipes;
use table::{Table, bound, table};
use upstream::Registry;

/// Connections that may be open on this host. Each holds two sockets and, while its bytes wait for
/// a slow reader, four ends of pipes. Further ones are reset.
const CONNECTIONS_MAX: usize = 8192;

/// Of these, to services of one network: no tenant can take all.
const CONNECTIONS_PER_NETWORK_MAX: usize = CONNECTIONS_MAX / 2;

/// Descriptors that all connections and some thousand listeners need, with room for the rest of
/// the process.
const DESCRIPTORS: u64 = 65_536;

/// Changes are gathered for so long: a deployment that rolls out is many.
const GATHER: Duration = Duration::from_millis(20);

/// What could not be done is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Time for open connections once the process is to end; less than it waits for its tasks.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub struct Config {
    pub host: HostId,
    pub net: HostNet,
    /// Of the host's namespace.
    pub sockets: Sockets,
}

/// What listeners and connections share.
#[derive(Debug)]
struct Shared {
    host: HostId,
    sockets: Sockets,
    pipes: Arc<Pipes>,
    drain: Drain,
    /// Resets every connection.
    reset: CancellationToken,
    connections: Arc<Semaphore>,
    networks: Mutex<HashMap<NetworkId, Arc<Semaphore>>>,
}

/// Answers the VIPs of the catalog's services until `drain`; then open connections get some
/// seconds to end.
///
/// VIPs stay on the host when this ends, so that connections are refused rather than lost. Those
/// of an earlier process that no service has are removed.
pub async fn run(config: Config, catalog: Catalog, drain: Drain) {
    raise_descriptors();
    let stop = drain.token();
    let shared = Arc::new(Shared {
        host: config.host,
        sockets: config.sockets,
        pipes: Arc::default(),
        drain,
        reset: CancellationToken::new(),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        networks: Mutex::default(),
    });
    let mut sources = Sources::new(catalog);
    let mut proxy = Proxy {
        net: config.net,
        shared: Arc::clone(&shared),
        present: None,
        fronts: BTreeMap::new(),
        registry: Registry::default(),
    };
    let answering = async {
        loop {
            let table = sources.table();
            let is_whole = proxy.reconcile(&table).await;
            tokio::select! {
                () = sources.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(RETRY), if !is_whole => {}
            }
        }
    };
    // What is half done when it is dropped is made whole by the next process.
    stop.run_until_cancelled(answering).await;
    let open = CONNECTIONS_MAX - shared.connections.available_permits();
    info!(open, "connections to services get time to end");
    let room = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let all_over = shared.connections.acquire_many(room);
    if tokio::time::timeout(DRAIN_TIMEOUT, all_over).await.is_err() {
        shared.reset.cancel();
    }
}

/// Raises what this process may open; as far as it may, if that is less.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = soft.max(DESCRIPTORS);
        let set = |soft, hard| setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map(|()| soft);
        // Root may raise the hard limit as well.
        set(wanted, hard.max(wanted)).or_else(|_| set(soft.max(wanted.min(hard)), hard))
    });
    match raised {
        Ok(max) if max >= DESCRIPTORS => {}
        Ok(max) => warn!(
            max,
            "few descriptors: fewer connections to services fit than usual"
        ),
        Err(error) => warn!(%error, "cannot raise the number of descriptors"),
    }
}

/// Where the table comes from.
struct Sources {
    catalog: Catalog,
    services: watch::Receiver<Arc<Vec<Service>>>,
    machines: Subscription,
    /// Machines that stand behind some service; changes of others are of no interest.
    watched: BTreeSet<MachineId>,
    /// Networks with more ports than are answered; said when they change.
    crowded: BTreeSet<NetworkId>,
}

impl Sources {
    fn new(catalog: Catalog) -> Self {
        Self {
            services: catalog.services(),
            machines: from_now_on(&catalog),
            watched: BTreeSet::new(),
            crowded: BTreeSet::new(),
            catalog,
        }
    }

    fn table(&mut self) -> Table {
        let services = Arc::clone(&self.services.borrow_and_update());
        let targets = services.iter().flat_map(|service| &service.spec.backends);
        let ids = targets.filter_map(|backend| match &backend.target {
            Target::Machine(id) => Some(id.clone()),
            Target::Address(_) => None,
        });
        self.watched = ids.collect();
        let mut table = table(&services, |network, target| {
            self.catalog.backend(network, target)
        });
        let crowded = bound(&mut table);
        for network in crowded.difference(&self.crowded) {
            warn!(%network, "more ports of services than are answered for one network");
        }
        self.crowded = crowded;
        table
    }

    /// May be dropped at any time: what was not waited for is found by the next `table`.
    async fn changed(&mut self) {
        tokio::select! {
            changed = self.services.changed() => {
                if changed.is_err() {
                    // The catalog is gone, and with it whoever would change anything.
                    std::future::pending::<()>().await;
                }
            }
            () = changed(&mut self.machines, &self.catalog, &self.watched) => {}
        }
    }
}

async fn changed(machines: &mut Subscription, catalog: &Catalog, watched: &BTreeSet<MachineId>) {
    loop {
        match machines.next().await {
            Ok(entry) if watched.contains(&entry.machine.id) => return,
            Ok(_) => {}
            Err(_gone) => {
                *machines = from_now_on(catalog);
                return;
            }
        }
    }
}

fn from_now_on(catalog: &Catalog) -> Subscription {
    loop {
        // Fails only if a thousand machines are destroyed between the two calls.
        if let Ok(machines) = catalog.subscribe(Filter::All, Some(catalog.revision())) {
            return machines;
        }
    }
}

/// What is on this host, made to be as the table says.
struct Proxy {
    net: HostNet,
    shared: Arc<Shared>,
    /// VIPs that `lo` has; unknown at first.
    present: Option<BTreeSet<Ipv6Addr>>,
    fronts: BTreeMap<Ipv6Addr, Front>,
    registry: Registry,
}

impl Proxy {
    /// Whether everything is as it should be.
    async fn reconcile(&mut self, table: &Table) -> bool {
        let mut is_whole = self.addresses(table).await;
        for (vip, wanted) in table {
            if self
                .present
                .as_ref()
                .is_none_or(|present| !present.contains(vip))
            {
                continue;
            }
            let front = self.fronts.entry(*vip);
            let front = front.or_insert_with(|| Front::new(*vip, &self.shared));
            let answered = front.answer(&self.shared, &mut self.registry, wanted).await;
            is_whole &= answered.is_ok();
        }
        self.registry.prune();
        is_whole
    }

    /// Gives `lo` the VIPs of `table`, and takes others away once nobody is connected to them.
    async fn addresses(&mut self, table: &Table) -> bool {
        let Some(mut present) = self.present().await else {
            return false;
        };
        let mut is_whole = true;
        let gone: Vec<_> = present
            .iter()
            .filter(|vip| !table.contains_key(vip))
            .copied()
            .collect();
        for vip in gone {
            if let Some(front) = self.fronts.remove(&vip) {
                front.end().await;
            }
            match self.in_namespace(move |net| net.remove_vip(vip)).await {
                Ok(()) => drop(present.remove(&vip)),
                Err(error) => {
                    is_whole = false;
                    warn!(%vip, error = %types::chain(&error), "cannot remove a VIP");
                }
            }
        }
        let new: Vec<_> = table
            .keys()
            .filter(|vip| !self.fronts.contains_key(vip))
            .collect();
        for vip in new.into_iter().copied() {
            // Also those of an earlier process, for what belongs to them in their network.
            match self.in_namespace(move |net| net.ensure_vip(vip)).await {
                Ok(()) => drop(present.insert(vip)),
                Err(error) => {
                    is_whole = false;
                    warn!(%vip, error = %types::chain(&error), "cannot add a VIP");
                }
            }
        }
        self.present = Some(present);
        is_whole
    }

    async fn present(&mut self) -> Option<BTreeSet<Ipv6Addr>> {
        if let Some(present) = self.present.take() {
            return Some(present);
        }
        match self.in_namespace(|net| net.vips()).await {
            Ok(vips) => Some(vips.into_iter().collect()),
            Err(error) => {
                warn!(error = %types::chain(&error), "cannot list this host's VIPs");
                None
            }
        }
    }

    /// Runs `f`, which blocks.
    async fn in_namespace<T: Send + 'static>(
        &self,
        f: impl FnOnce(&HostNet) -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let net = self.net.clone();
        match tokio::task::spawn_blocking(move || f(&net)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
