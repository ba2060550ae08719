//! Reading along: changes from a revision on, and waiting for a machine to become something.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as signal;
use types::machine::MachineState;
use types::{AppName, MachineId};

use super::{Catalog, Entry};

/// Which machines a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    All,
    App(AppName),
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::App(app) => *app == entry.app,
        }
    }
}

/// The revision to begin from is too old (or from another life of the catalog): list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes after revision {from} are no longer known; list again")]
pub struct Gone {
    pub from: u64,
}

/// A wait that ended without what it waited for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotReached {
    #[error("machine not found")]
    NotFound,
    /// The deadline passed; this is the machine as it was then.
    #[error("the machine was still {} at the deadline", .0.machine.state)]
    Late(Arc<Entry>),
}

/// A reader's place among the changes. Holds no buffer: it may be as slow as it likes.
#[derive(Debug)]
pub struct Subscription {
    catalog: Catalog,
    filter: Filter,
    /// Everything up to here has been seen.
    revision: u64,
    /// Ends of machines up to here are none of this reader's business: it began without them.
    begun: u64,
    changed: signal::Receiver<u64>,
}

impl Catalog {
    /// Changes after revision `from` (`None`: begins with every machine that is not destroyed).
    ///
    /// # Errors
    /// If `from` is no revision of this catalog, or changes after it are no longer known.
    pub fn subscribe(&self, filter: Filter, from: Option<u64>) -> Result<Subscription, Gone> {
        let changed = self.shared.revision.subscribe();
        let rows = self.rows();
        let (revision, begun) = match from {
            None => (0, rows.revision),
            Some(from) if from < rows.floor || from > rows.revision => return Err(Gone { from }),
            Some(from) => (from, 0),
        };
        drop(rows);
        Ok(Subscription {
            catalog: self.clone(),
            filter,
            revision,
            begun,
            changed,
        })
    }

    /// Waits until `reached` is true of the machine.
    ///
    /// # Errors
    /// If there is no such machine, or the time is over.
    pub async fn wait_for(
        &self,
        id: &MachineId,
        timeout: Duration,
        mut reached: impl FnMut(&Entry) -> bool,
    ) -> Result<Arc<Entry>, NotReached> {
        let mut changed = self.shared.revision.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            changed.borrow_and_update();
            let entry = self.get(id).ok_or(NotReached::NotFound)?;
            if reached(&entry) {
                return Ok(entry);
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(NotReached::Late(entry)),
            }
        }
    }
}

impl Subscription {
    /// Everything up to this revision has been returned by [`Self::next`]: after each change,
    /// that one's.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next change, at once if there is one. May be dropped and called again.
    ///
    /// # Errors
    /// If changes that this reader had not seen were forgotten meanwhile.
    pub async fn next(&mut self) -> Result<Arc<Entry>, Gone> {
        loop {
            self.changed.borrow_and_update();
            if let Some(entry) = self.try_next()? {
                return Ok(entry);
            }
            if self.changed.changed().await.is_err() {
                // This reader keeps the catalog, and with it the sender, alive.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next change if there is one now; `None` when this reader has caught up.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Entry>>, Gone> {
        let rows = self.catalog.rows();
        let from = self.revision;
        if rows.floor > from.max(self.begun) {
            return Err(Gone { from });
        }
        for (revision, id) in rows.by_revision.range(from + 1..) {
            let Some(entry) = rows.machines.get(id).map(|row| &row.entry) else {
                continue;
            };
            if *revision <= self.begun && entry.machine.state == MachineState::Destroyed {
                continue;
            }
            if self.filter.takes(entry) {
                self.revision = *revision;
                return Ok(Some(Arc::clone(entry)));
            }
        }
        self.revision = rows.revision;
        Ok(None)
    }
}
