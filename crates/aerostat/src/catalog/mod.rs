//! The catalog: what the workers said about their machines, for everybody who reads.
//!
//! It is a copy. On one host the worker publishes into it in the same step that records a change,
//! so it is as late as the last acknowledged write; with several hosts it may be later.
//!
//! Each machine stands in it once, under the revision of its last change. A watch walks along the
//! revisions, so it needs no buffer of its own: who is slow sees several changes of a machine as
//! one, and never misses the last. Only destroyed machines are forgotten in the end; a watch from
//! before such a loss is [`Gone`] and must list again.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch as signal;
use types::machine::{Machine, MachineState};
use types::{AppName, MachineId, NetworkId};

pub use watch::{Filter, Gone, NotReached, Subscription};

/// Destroyed machines that are still shown, so that whoever waits for the end of one sees it.
pub const DESTROYED_MAX: usize = 1000;

/// A machine as its worker published it, and where it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub app: AppName,
    pub network: NetworkId,
    /// `machine.revision` is the revision of this statement.
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
}

#[derive(Debug, Default)]
struct Rows {
    machines: BTreeMap<MachineId, Arc<Entry>>,
    by_revision: BTreeMap<u64, MachineId>,
    by_app: BTreeMap<AppName, BTreeSet<MachineId>>,
    /// Destroyed machines by the revision of their end, oldest first.
    destroyed: BTreeMap<u64, MachineId>,
    /// Newest revision known.
    revision: u64,
    /// Newest revision of an end that has been forgotten.
    floor: u64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    pub fn new() -> Self {
        let shared = Shared {
            rows: Mutex::default(),
            revision: signal::Sender::new(0),
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

    /// Takes a worker's statement. Statements come in the order of their revisions; an older one
    /// than what is known of that machine is ignored.
    pub fn publish(&self, entry: Entry) {
        let revision = {
            let mut rows = self.rows();
            rows.publish(entry);
            rows.revision
        };
        self.shared.revision.send_replace(revision);
    }

    /// Begins where an earlier process ended: `revision` is the last one it gave out, and ends of
    /// machines up to `floor` are forgotten.
    pub fn resume(&self, revision: u64, floor: u64) {
        {
            let mut rows = self.rows();
            rows.revision = rows.revision.max(revision);
            rows.floor = rows.floor.max(floor);
        }
        self.shared.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
    }

    /// Newest revision.
    pub fn revision(&self) -> u64 {
        self.rows().revision
    }

    /// The machine with this id, also for a while after it was destroyed.
    pub fn get(&self, id: &MachineId) -> Option<Arc<Entry>> {
        self.rows().machines.get(id).cloned()
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
            Filter::All => rows.machines.values().cloned().collect(),
            Filter::App(app) => {
                let ids = rows.by_app.get(app).into_iter().flatten();
                ids.filter_map(|id| rows.machines.get(id))
                    .cloned()
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
        self.machine.state == MachineState::Started && !self.machine.config.dns.skip_registration
    }
}

impl Rows {
    fn publish(&mut self, entry: Entry) {
        let (id, revision) = (entry.machine.id.clone(), entry.machine.revision);
        if let Some(known) = self.machines.get(&id) {
            if known.machine.revision >= revision {
                return;
            }
            self.by_revision.remove(&known.machine.revision);
        }
        self.revision = self.revision.max(revision);
        self.by_revision.insert(revision, id.clone());
        self.by_app
            .entry(entry.app.clone())
            .or_default()
            .insert(id.clone());
        if entry.machine.state == MachineState::Destroyed {
            self.destroyed.insert(revision, id.clone());
        }
        self.machines.insert(id, Arc::new(entry));
        while self.destroyed.len() > DESTROYED_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((revision, id)) = self.destroyed.pop_first() else {
            return;
        };
        self.floor = self.floor.max(revision);
        self.by_revision.remove(&revision);
        let Some(entry) = self.machines.remove(&id) else {
            return;
        };
        if let Some(ids) = self.by_app.get_mut(&entry.app) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_app.remove(&entry.app);
            }
        }
    }
}

#[cfg(test)]
mod tests;
