//! Rows of other hosts: what is asked for, passed on and taken in, without sockets and signatures.
//!
//! A copy of a host's rows is complete up to a position. Whoever has more sends what lies behind
//! it, in the order of versions, so that every page moves the position on by itself and nothing
//! has to be remembered about a transfer that breaks off. Since each machine is there once, under
//! its newest version, a copy that is far behind reads no more than there is.
//!
//! Ends of machines are forgotten in the end (`floor`). A copy from before that reads everything
//! from the beginning, and what is not in it has been destroyed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use types::fleet::HostStatus;
use types::machine::MachineState;
use types::{HostId, MachineId};

use super::Entry;
use super::rows::{Position, Rows, Source, Taken};

/// What a row that nobody has signed yet is counted as.
const UNSIGNED_BYTES: usize = 16 << 10;

/// A statement on its way out.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Signed(Bytes),
    /// Of this host.
    Unsigned(Arc<Entry>),
}

/// A page before what is missing in it has been signed.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) epoch: u64,
    pub(super) after: u64,
    pub(super) floor: u64,
    pub(super) head: u64,
    pub(super) more: bool,
    pub(super) items: Vec<Item>,
}

/// Verified statements of one host, in the order of their versions, and where they begin.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) origin: HostId,
    /// Everything between here and the last statement is in it.
    pub(super) after: Position,
    /// Ends of machines up to here are missing in it.
    pub(super) floor: u64,
    pub(super) statements: Vec<(Entry, Bytes)>,
    /// Version of the last statement that was verified; `None`: there is none.
    pub(super) last: Option<u64>,
    /// Whether everything that came was what it should be.
    pub(super) complete: bool,
    /// Part of reading everything: the position moves when that is finished.
    pub(super) whole: bool,
}

/// What taking statements in has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Statements about machines that are another host's.
    pub(super) foreign: usize,
    /// Something lies between what was known and what has come.
    pub(super) gap: bool,
}

impl Rows {
    /// Rows of `host` behind `after`, as far as they fit into `bytes_max` (one always does). From
    /// the beginning if the ends of machines behind `after` are forgotten, unless that is `whole`
    /// already. `None`: nothing is known of that host.
    pub(super) fn page(
        &self,
        host: HostId,
        after: Position,
        whole: bool,
        bytes_max: usize,
    ) -> Option<Draft> {
        let origin = self.origins.get(&host)?;
        let Position { epoch, version } = origin.position;
        let goes_on = after.epoch == epoch && (whole || after.version >= origin.floor);
        let mut draft = Draft {
            epoch,
            after: if goes_on { after.version } else { 0 },
            floor: origin.floor,
            head: version,
            more: false,
            items: Vec::new(),
        };
        if draft.after >= version {
            return Some(draft);
        }
        let mut bytes = 0;
        for id in origin.by_version.range(draft.after + 1..=version) {
            let row = self.machines.get(id.1);
            let Some(row) = row.filter(|row| row.position().epoch == epoch) else {
                continue;
            };
            let item = match &row.source {
                Source::Signed(signed)
                | Source::Own {
                    signed: Some(signed),
                } => Item::Signed(signed.clone()),
                Source::Own { signed: None } => Item::Unsigned(Arc::clone(&row.entry)),
                Source::Inferred => continue,
            };
            bytes += match &item {
                Item::Signed(signed) => signed.len(),
                Item::Unsigned(_) => UNSIGNED_BYTES,
            };
            if bytes > bytes_max && !draft.items.is_empty() {
                draft.more = true;
                break;
            }
            draft.items.push(item);
        }
        Some(draft)
    }

    /// Keeps the signature of an own row, if it is still that row.
    pub(super) fn keep_signed(&mut self, id: &MachineId, position: Position, bytes: Bytes) {
        if let Some(row) = self.machines.get_mut(id)
            && row.position() == position
            && let Source::Own { signed } = &mut row.source
        {
            *signed = Some(bytes);
        }
    }

    /// Takes in what another host's statements say.
    pub(super) fn merge(&mut self, arrived: Arrived) -> Merged {
        let Arrived {
            origin: host,
            after,
            floor,
            statements,
            last,
            complete: _,
            whole,
        } = arrived;
        let mut merged = Merged::default();
        if self.own == Some(host) {
            return merged;
        }
        let known = self.origins.entry(host).or_default().position;
        let Some(last) = last else {
            merged.gap = after > known;
            return merged;
        };
        if after.epoch < known.epoch {
            return merged;
        }
        self.begin_epoch(host, after.epoch);
        // What is complete cannot be added to. Such a statement comes late or is played back, and
        // its machine may have ended so long ago that nothing is known of it here any more.
        let known = self.origins.entry(host).or_default().position;
        let complete = if whole { 0 } else { known.version };
        for (entry, signed) in statements {
            if entry.machine.revision <= complete {
                continue;
            }
            match self.take(entry, after.epoch, signed) {
                Taken::New | Taken::Known => {}
                Taken::Foreign => merged.foreign += 1,
            }
        }
        let origin = self.origins.entry(host).or_default();
        if !whole {
            merged.gap = after > origin.position || after.version < floor;
            if !merged.gap {
                origin.position.version = origin.position.version.max(last);
            }
        }
        self.mark_origin(host);
        self.settle(host);
        merged
    }

    /// All rows of `host` have been read: the `last` one, and as far as whoever sent them knows
    /// (`goal`). They are about the machines `named`.
    ///
    /// Behind the last row there may have been ends of machines that are forgotten. How far that
    /// goes is believed as far as the host itself has said.
    pub(super) fn finish_whole(
        &mut self,
        host: HostId,
        last: Position,
        goal: u64,
        named: &BTreeSet<MachineId>,
    ) {
        let Some(origin) = self.origins.get_mut(&host) else {
            return;
        };
        let Position { epoch, version } = last;
        if origin.position.epoch != epoch || self.own == Some(host) {
            return;
        }
        let said = match origin.heard {
            heard if heard.epoch == epoch => heard.version,
            _ => 0,
        };
        let version = goal.min(version.max(said));
        let upto = Position { epoch, version };
        origin.position = origin.position.max(upto);
        // It has not seen the ends of machines that it infers: whoever reads from here and is
        // further behind has to read everything too.
        origin.floor = origin.floor.max(version);
        origin.older = false;
        self.mark_origin(host);
        self.end_unnamed(host, upto, named);
    }

    /// The host itself says how far its rows go.
    pub(super) fn hear_head(&mut self, host: HostId, head: Position) {
        if self.own == Some(host) {
            return;
        }
        self.begin_epoch(host, head.epoch);
        let origin = self.origins.entry(host).or_default();
        origin.heard = origin.heard.max(head);
        self.settle(host);
    }

    fn begin_epoch(&mut self, host: HostId, epoch: u64) {
        let origin = self.origins.entry(host).or_default();
        if epoch > origin.position.epoch {
            origin.position = Position { epoch, version: 0 };
            origin.floor = 0;
            origin.older = !origin.by_version.is_empty();
            self.mark_origin(host);
        }
    }

    /// Ends what is left of an older epoch when everything of the newer one is known. Not before:
    /// its machines may well be the same.
    fn settle(&mut self, host: HostId) {
        let Some(origin) = self.origins.get_mut(&host) else {
            return;
        };
        let Position { epoch, .. } = origin.position;
        let complete = origin.heard.epoch == epoch && origin.position >= origin.heard;
        if !origin.older || !complete || epoch == 0 {
            return;
        }
        origin.older = false;
        let upto = Position {
            epoch: epoch - 1,
            version: u64::MAX,
        };
        self.end_unnamed(host, upto, &BTreeSet::new());
    }

    /// Shows machines of `host` as destroyed that stand at or below `upto` and are not `named`.
    fn end_unnamed(&mut self, host: HostId, upto: Position, named: &BTreeSet<MachineId>) {
        let gone = self.machines.iter().filter(|(id, row)| {
            row.entry.host == host
                && row.position() <= upto
                && row.entry.machine.state != MachineState::Destroyed
                && !named.contains(*id)
        });
        let gone: Vec<(Entry, u64)> = gone
            .map(|(_, row)| (Entry::clone(&row.entry), row.position().epoch))
            .collect();
        for (mut entry, epoch) in gone {
            entry.machine.state = MachineState::Destroyed;
            self.put(entry, epoch, Source::Inferred);
        }
    }

    /// The host has left the fleet: its machines are gone with it.
    pub(super) fn forget_host(&mut self, host: HostId) {
        if self.own == Some(host) {
            return;
        }
        self.set_status(host, HostStatus::Unreachable);
        let end = Position {
            epoch: u64::MAX,
            version: u64::MAX,
        };
        self.end_unnamed(host, end, &BTreeSet::new());
        self.origins.remove(&host);
        self.mark_origin(host);
    }

    /// Others know this host's rows from a life that it has forgotten, up to `epoch`: what it says
    /// from now on stands above that.
    pub(super) fn renew_epoch(&mut self, epoch: u64) {
        let Some(own) = self.own else {
            return;
        };
        let origin = self.origins.entry(own).or_default();
        origin.position.epoch = origin.position.epoch.max(epoch.saturating_add(1));
        let epoch = origin.position.epoch;
        for row in self.machines.values_mut() {
            if row.entry.host == own {
                row.set_epoch(epoch);
            }
        }
        self.mark_origin(own);
    }
}

#[cfg(test)]
mod tests;
