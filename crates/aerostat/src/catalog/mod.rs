//! The catalog: what the workers of the fleet said about their machines, for everybody who reads.
//!
//! ```text
//!  worker ── publish ──► rows ◄── take (verified) ── replication ◄──► other hosts
//!                         │  ▲
//!   list, watch, wait ◄───┘  └── set_host_status ── members
//! ```
//!
//! It is a copy. The worker of this host publishes into it in the same step that records a change,
//! so of its machines it is as late as the last acknowledged write; of others it may be later.
//!
//! Each machine stands in it once, under the revision of its last change here. A watch walks along
//! the revisions, so it needs no buffer of its own: who is slow sees several changes of a machine
//! as one, and never misses the last. Only destroyed machines are forgotten in the end; a watch
//! from before such a loss, or from an earlier life of this process, is [`Gone`] and must list
//! again.

mod backends;
mod codec;
mod disk;
pub mod members;
mod origins;
pub mod replication;
mod rows;
mod watch;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch as signal;
use types::fleet::HostStatus;
use types::machine::{Machine, MachineState};
use types::service::Service;
use types::{AppName, HostId, MachineId, NetworkId};

pub use codec::fuzz_catalog;
pub use disk::{CatalogError, Disk};
pub use rows::Position;
pub use watch::{Filter, Gone, NotReached, Subscription};
pub use words::{Capacity, Word};

use rows::Rows;
use words::Words;

/// Destroyed machines that are still shown, so that whoever waits for the end of one sees it.
pub const DESTROYED_MAX: usize = 1000;

/// A machine as its worker published it, and where it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Whose worker owns it.
    pub host: HostId,
    pub app: AppName,
    pub network: NetworkId,
    /// `machine.revision` is the version of this statement, given by its worker. `host_status` is
    /// what this host thinks of the other one.
    pub machine: Machine,
}

/// Machines of one app, or of all, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// A watch from here on misses nothing.
    pub revision: u64,
    pub entries: Vec<Arc<Entry>>,
}

/// The readers' and the worker's end of the catalog. Clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rows: Mutex<Rows>,
    revision: signal::Sender<u64>,
    words: Mutex<Words>,
    life: u64,
    services: signal::Sender<Arc<Vec<Service>>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// An empty catalog that is kept nowhere.
    pub fn new() -> Self {
        Self::of(Rows::default(), 0)
    }

    fn of(rows: Rows, life: u64) -> Self {
        let shared = Shared {
            revision: signal::Sender::new(rows.revision),
            rows: Mutex::new(rows),
            words: Mutex::default(),
            life,
            services: signal::Sender::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.shared
            .rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Words> {
        self.shared
            .words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rows, and wakes readers if there is something new for them.
    fn change<T>(&self, f: impl FnOnce(&mut Rows) -> T) -> T {
        let (result, revision) = {
            let mut rows = self.rows();
            let result = f(&mut rows);
            (result, rows.revision)
        };
        self.shared.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
        result
    }

    /// Takes a statement of this host's worker. Statements come in the order of their versions; an
    /// older one than what is known of that machine is ignored.
    pub fn publish(&self, entry: Entry) {
        self.change(|rows| rows.publish(entry));
    }

    /// `host` is this one. Its worker goes on where an earlier process ended: `version` is the
    /// last one it gave out, and ends of machines up to `floor` are forgotten. Before the first
    /// [`Self::publish`].
    pub fn resume(&self, host: HostId, version: u64, floor: u64) {
        self.change(|rows| rows.resume(host, version, floor));
    }

    /// Grows with each start of this host's catalog that is kept on disk.
    pub fn life(&self) -> u64 {
        self.shared.life
    }

    /// Newest revision.
    pub fn revision(&self) -> u64 {
        self.rows().revision
    }

    /// How far the rows of `host` are known; `None` if nothing is.
    pub fn position(&self, host: HostId) -> Option<Position> {
        self.rows().origins.get(&host).map(|origin| origin.position)
    }

    /// What this host thinks of `host`. Of itself it always thinks well.
    pub fn host_status(&self, host: HostId) -> HostStatus {
        self.rows().status(host)
    }

    /// Shows the machines of `host` with this status from now on. For readers that is a change of
    /// each of them; names no longer lead to machines of a host that is unreachable.
    pub fn set_host_status(&self, host: HostId, status: HostStatus) {
        self.change(|rows| rows.set_status(host, status));
    }

    /// How long ago `host` was heard of, by the clock of this host; `None`: not in this life.
    pub fn word_age(&self, host: HostId) -> Option<Duration> {
        self.heard().age(host, Instant::now())
    }

    /// The last word of each host that has been heard of, this one included.
    pub fn words(&self) -> Vec<Word> {
        self.heard().all().map(|heard| heard.word.clone()).collect()
    }

    /// Replaces the services that readers see.
    pub fn set_services(&self, services: Arc<Vec<Service>>) {
        self.shared.services.send_replace(services);
    }

    /// Services of the fleet: what they are now, and when they change.
    pub fn services(&self) -> signal::Receiver<Arc<Vec<Service>>> {
        self.shared.services.subscribe()
    }

    /// The machine with this id, also for a while after it was destroyed.
    pub fn get(&self, id: &MachineId) -> Option<Arc<Entry>> {
        let rows = self.rows();
        rows.machines.get(id).map(|row| Arc::clone(&row.entry))
    }

    /// Machines of `filter` that are not destroyed.
    pub fn list(&self, filter: &Filter) -> Snapshot {
        let mut snapshot = self.list_with_destroyed(filter);
        snapshot
            .entries
            .retain(|entry| entry.machine.state != MachineState::Destroyed);
        snapshot
    }

    /// The same with the destroyed machines that are still known.
    pub fn list_with_destroyed(&self, filter: &Filter) -> Snapshot {
        let rows = self.rows();
        let entries = match filter {
            Filter::All => {
                let rows = rows.machines.values();
                rows.map(|row| Arc::clone(&row.entry)).collect()
            }
            Filter::App(app) => {
                let ids = rows.by_app.get(app).into_iter().flatten();
                ids.filter_map(|id| rows.machines.get(id))
                    .map(|row| Arc::clone(&row.entry))
                    .collect()
            }
        };
        Snapshot {
            revision: rows.revision,
            entries,
        }
    }

    /// Started machines of `app` as seen from `network`, for DNS: none if the app lives in
    /// another network or its machines asked not to be registered.
    pub fn started(&self, app: &AppName, network: NetworkId) -> Vec<Arc<Entry>> {
        let mut entries = self.list(&Filter::App(app.clone())).entries;
        entries.retain(|entry| entry.network == network && entry.is_named());
        entries
    }

    /// The started machine `id` as seen from `network`, for DNS.
    pub fn started_machine(&self, id: &MachineId, network: NetworkId) -> Option<Arc<Entry>> {
        self.get(id)
            .filter(|entry| entry.network == network && entry.is_named())
    }

    /// Started machines of every app in `network`, for DNS (`_apps`, `_instances`).
    pub fn started_in(&self, network: NetworkId) -> Vec<Arc<Entry>> {
        let mut entries = self.list(&Filter::All).entries;
        entries.retain(|entry| entry.network == network && entry.is_named());
        entries
    }
}

impl Entry {
    /// Whether names lead to this machine.
    fn is_named(&self) -> bool {
        self.machine.state == MachineState::Started
            && !self.machine.config.dns.skip_registration
            && self.machine.host_status != HostStatus::Unreachable.as_str()
    }
}

#[cfg(test)]
pub(crate) mod tests;
