//! What is known of every machine, and in which order it became known: the catalog without locks,
//! files or clocks.
//!
//! Two numbers, which mean different things:
//!
//! - The *version* of a row is its worker's (`machine.revision`, from the ledger): it says which of
//!   two statements about a machine is the newer one, wherever they are compared.
//! - The *revision* of a change is this host's: it counts what happened to this copy, in the order
//!   in which it happened here, and watches go along it.
//!
//! An *epoch* stands above the versions of a host. It grows when a host has lost its ledger and
//! begins to count anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use types::fleet::HostStatus;
use types::machine::MachineState;
use types::{AppName, HostId, MachineId};

use super::{DESTROYED_MAX, Entry};

/// How far a copy of a host's rows goes. Orders as newer and older.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: u64,
    pub version: u64,
}

/// Where a row comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// This host's worker. Signed when somebody first asks for it.
    Own { signed: Option<Bytes> },
    /// Another host, in these signed bytes.
    Signed(Bytes),
    /// Nobody: the machine is missing where it should have been, so it has been destroyed.
    Inferred,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) entry: Arc<Entry>,
    epoch: u64,
    pub(super) source: Source,
    /// Of its last change here.
    revision: u64,
}

impl Row {
    pub(super) fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            version: self.entry.machine.revision,
        }
    }

    /// The same row in another epoch has to be signed again.
    pub(super) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.source = Source::Own { signed: None };
    }

    fn is_destroyed(&self) -> bool {
        self.entry.machine.state == MachineState::Destroyed
    }
}

/// What is known of one host's rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    /// Everything up to here is known.
    pub(super) position: Position,
    /// Version of the newest end of a machine that has been forgotten here.
    pub(super) floor: u64,
    /// How far the host itself has said that its rows go.
    pub(super) heard: Position,
    /// Whether there may be rows of an older epoch.
    pub(super) older: bool,
    /// Rows that the host has said (not inferred ones).
    pub(super) by_version: BTreeMap<u64, MachineId>,
}

/// What is not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) machines: BTreeSet<MachineId>,
    pub(super) origins: BTreeSet<HostId>,
}

/// What became of a statement of another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    /// As new or newer is known.
    Known,
    /// The machine is another host's.
    Foreign,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) machines: BTreeMap<MachineId, Row>,
    pub(super) by_revision: BTreeMap<u64, MachineId>,
    pub(super) by_app: BTreeMap<AppName, BTreeSet<MachineId>>,
    /// Destroyed machines by the revision of their end, oldest first.
    destroyed: BTreeMap<u64, MachineId>,
    pub(super) origins: BTreeMap<HostId, Origin>,
    statuses: BTreeMap<HostId, HostStatus>,
    /// This host, as soon as its worker has said so.
    pub(super) own: Option<HostId>,
    /// The epoch of own rows if there is no earlier one.
    pub(super) epoch_new: u64,
    /// Newest revision.
    pub(super) revision: u64,
    /// Newest revision that nobody can go on from.
    pub(super) floor: u64,
    /// `None`: nothing is kept on disk.
    pub(super) dirty: Option<Dirty>,
}

impl Rows {
    /// Takes a statement of a worker of this process.
    pub(super) fn publish(&mut self, entry: Entry) {
        let origin = self.origins.entry(entry.host).or_default();
        let position = Position {
            epoch: origin.position.epoch,
            version: entry.machine.revision,
        };
        let known = self.machines.get(&entry.machine.id);
        if known.is_some_and(|row| row.entry.host == entry.host && row.position() >= position) {
            return;
        }
        origin.position = origin.position.max(position);
        self.mark_origin(entry.host);
        self.put(entry, position.epoch, Source::Own { signed: None });
    }

    /// Takes a statement of another host, whose signature has been verified. Says nothing about
    /// what other rows are known.
    pub(super) fn take(&mut self, entry: Entry, epoch: u64, signed: Bytes) -> Taken {
        let host = entry.host;
        if let Some(known) = self.machines.get(&entry.machine.id) {
            let position = Position {
                epoch,
                version: entry.machine.revision,
            };
            if known.entry.host != host && !known.is_destroyed() {
                return Taken::Foreign;
            }
            // What was only inferred gives way to the host's own statement.
            let inferred = matches!(known.source, Source::Inferred);
            let newest = known.position() > position || (known.position() == position && !inferred);
            if known.entry.host == host && newest {
                return Taken::Known;
            }
        }
        self.statuses.entry(host).or_insert(HostStatus::Unknown);
        self.put(entry, epoch, Source::Signed(signed));
        Taken::New
    }

    pub(super) fn put(&mut self, entry: Entry, epoch: u64, source: Source) {
        let id = entry.machine.id.clone();
        self.detach(&id);
        if !matches!(source, Source::Inferred) {
            let origin = self.origins.entry(entry.host).or_default();
            origin.by_version.insert(entry.machine.revision, id.clone());
        }
        self.show(entry, epoch, source);
        while self.destroyed.len() > DESTROYED_MAX {
            self.forget_oldest();
        }
    }

    /// Makes the row what readers see, under a new revision.
    fn show(&mut self, mut entry: Entry, epoch: u64, source: Source) {
        if let Some(status) = self.statuses.get(&entry.host) {
            entry.machine.host_status = status.as_str().to_owned();
        }
        self.revision += 1;
        let (revision, id) = (self.revision, entry.machine.id.clone());
        self.by_revision.insert(revision, id.clone());
        self.by_app
            .entry(entry.app.clone())
            .or_default()
            .insert(id.clone());
        if entry.machine.state == MachineState::Destroyed {
            self.destroyed.insert(revision, id.clone());
        }
        if Some(entry.host) != self.own
            && let Some(dirty) = &mut self.dirty
        {
            dirty.machines.insert(id.clone());
        }
        let row = Row {
            entry: Arc::new(entry),
            epoch,
            source,
            revision,
        };
        self.machines.insert(id, row);
    }

    /// Takes the row out of every order.
    fn detach(&mut self, id: &MachineId) -> Option<Row> {
        let row = self.machines.remove(id)?;
        self.by_revision.remove(&row.revision);
        self.destroyed.remove(&row.revision);
        if let Some(ids) = self.by_app.get_mut(&row.entry.app) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_app.remove(&row.entry.app);
            }
        }
        if let Some(origin) = self.origins.get_mut(&row.entry.host) {
            let version = row.entry.machine.revision;
            if origin.by_version.get(&version) == Some(id) {
                origin.by_version.remove(&version);
            }
        }
        Some(row)
    }

    fn forget_oldest(&mut self) {
        let Some((revision, id)) = self.destroyed.pop_first() else {
            return;
        };
        self.floor = self.floor.max(revision);
        let Some(row) = self.detach(&id) else {
            return;
        };
        if !matches!(row.source, Source::Inferred)
            && let Some(origin) = self.origins.get_mut(&row.entry.host)
            && origin.position.epoch == row.epoch
        {
            origin.floor = origin.floor.max(row.entry.machine.revision);
            self.mark_origin(row.entry.host);
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.machines.insert(id);
        }
    }

    pub(super) fn mark_origin(&mut self, host: HostId) {
        if let Some(dirty) = &mut self.dirty {
            dirty.origins.insert(host);
        }
    }

    /// Own rows begin where an earlier process ended: `version` is the last one it gave out, and
    /// ends of machines up to `floor` are forgotten.
    pub(super) fn resume(&mut self, host: HostId, version: u64, floor: u64) {
        self.own = Some(host);
        self.statuses.remove(&host);
        let before = self.origins.remove(&host).map(|origin| origin.position);
        let epoch = match before {
            None => self.epoch_new,
            // The ledger is not the one that this host has told the others about.
            Some(before) if version < before.version => (before.epoch + 1).max(self.epoch_new),
            Some(before) => before.epoch,
        };
        let origin = self.origins.entry(host).or_default();
        origin.position = Position { epoch, version };
        origin.floor = origin.floor.max(floor);
        self.mark_origin(host);
    }

    pub(super) fn status(&self, host: HostId) -> HostStatus {
        match self.statuses.get(&host) {
            Some(status) => *status,
            None if self.own == Some(host) => HostStatus::Ok,
            None => HostStatus::Unknown,
        }
    }

    /// Shows the machines of `host` with `status` from now on. This host is always well in its
    /// own eyes.
    pub(super) fn set_status(&mut self, host: HostId, status: HostStatus) {
        if self.own == Some(host) || self.statuses.insert(host, status) == Some(status) {
            return;
        }
        let Some(origin) = self.origins.get(&host) else {
            return;
        };
        let ids: Vec<MachineId> = origin.by_version.values().cloned().collect();
        for id in ids {
            let row = self.machines.get(&id);
            let shown = row.is_some_and(|row| {
                row.is_destroyed() || row.entry.machine.host_status == status.as_str()
            });
            if !shown {
                self.show_again(&id);
            }
        }
    }

    /// Nothing changed but what this host thinks of the row's host.
    fn show_again(&mut self, id: &MachineId) {
        let Some(row) = self.machines.remove(id) else {
            return;
        };
        self.by_revision.remove(&row.revision);
        self.show(Arc::unwrap_or_clone(row.entry), row.epoch, row.source);
    }
}
