//! The worker's durable memory: machines, what happened to them, and what they were given.
//!
//! One thread owns the database. A change and its events are one transaction with a revision of
//! its own; when it is on disk, and before anybody hears of it, the machine is published, so the
//! catalog sees revisions in order and only durable ones. Nobody else writes machine rows.

mod schema;
mod tables;
mod versions;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use types::machine::{Event, Machine as Shown, MachineConfig, MachineState};
use types::{AppName, HostId, MachineId, VersionId};

use super::crash::{self, Moment};
use super::machine::Machine;
use super::ports::Allocation;
use super::volumes::{TableError, VolumeRefused};
use crate::catalog::{Catalog, Entry};
use tables::Tables;
pub(crate) use tables::Uids;
pub(crate) use versions::Retired;

/// Room for every machine that changes at the same moment. The sender waits when it is full: a
/// driver has nothing better to do than to get its change on disk.
const JOBS_MAX: usize = 256;

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {doing} ledger {}", path.display())]
    Sqlite {
        doing: &'static str,
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot make ledger {}", path.display())]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("ledger {} was written by a newer version of aerostat (schema {found}, not {known})", path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("machine {machine} in the ledger cannot be read")]
    Row {
        machine: String,
        source: serde_json::Error,
    },
    /// A machine cannot have a volume that it names.
    #[error(transparent)]
    Volume(Box<VolumeRefused>),
    #[error("cannot record which volumes a machine has")]
    Volumes {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the ledger is closed")]
    Closed,
}

impl From<TableError> for LedgerError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Refused(refused) => Self::Volume(Box::new(refused)),
            error @ (TableError::Sqlite(_) | TableError::Row(_)) => Self::Volumes {
                source: Box::new(error),
            },
        }
    }
}

/// Why a machine was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("machine name is taken by {id}")]
    NameTaken { id: MachineId },
    #[error("machine id is taken")]
    IdTaken,
    #[error("no more {what}")]
    Exhausted { what: &'static str },
    /// The one that was created with the same key, and its revision.
    #[error("the machine was created before")]
    Exists(Box<Machine>, u64),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A machine that is to be created. `build` makes it out of what it is given.
pub(crate) struct Draft {
    pub(crate) id: MachineId,
    pub(crate) app: AppName,
    pub(crate) name: String,
    pub(crate) creation_key: Option<String>,
    pub(crate) build: Box<dyn FnOnce(Allocation) -> (Machine, Vec<Event>) + Send>,
}

enum Job {
    Create(
        Draft,
        oneshot::Sender<Result<(Machine, Shown), CreateError>>,
    ),
    Commit(
        Box<Machine>,
        Vec<Event>,
        Option<Retired>,
        oneshot::Sender<Result<Shown, LedgerError>>,
    ),
    Events(
        MachineId,
        usize,
        oneshot::Sender<Result<Vec<Event>, LedgerError>>,
    ),
    /// What volumes need of the database.
    With(Box<dyn FnOnce(&mut rusqlite::Connection) + Send>),
    Versions(
        MachineId,
        oneshot::Sender<Result<Vec<(VersionId, MachineConfig)>, LedgerError>>,
    ),
    /// What is queued behind it is answered with [`LedgerError::Closed`].
    Close,
}

/// The way to the ledger's thread. Clones share it; the last one dropped closes the database.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    jobs: mpsc::Sender<Job>,
}

impl Ledger {
    /// Opens (or makes) the ledger at `path`, publishes what it holds, and returns the machines
    /// that are not destroyed. Blocks.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub(crate) fn open(
        path: &Path,
        host: HostId,
        uids: Uids,
        catalog: Catalog,
    ) -> Result<(Self, Vec<Machine>, thread::JoinHandle<()>), LedgerError> {
        let mut tables = Tables::open(path, uids)?;
        let mut alive = Vec::new();
        let (revision, floor) = tables.revisions()?;
        catalog.resume(host, revision, floor);
        for (machine, revision) in tables.machines()? {
            catalog.publish(entry(host, &machine, machine.show(revision)));
            if machine.shown_state() != MachineState::Destroyed {
                alive.push(machine);
            }
        }
        let (jobs, mut queue) = mpsc::channel(JOBS_MAX);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                if let ControlFlow::Break(()) = perform(&mut tables, host, &catalog, job) {
                    break;
                }
            }
        };
        let spawned = thread::Builder::new().name("ledger".into()).spawn(work);
        let path = path.to_owned();
        let thread = spawned.map_err(|source| LedgerError::Create { path, source })?;
        Ok((Self { jobs }, alive, thread))
    }

    /// Gives the machine its allocation and records it with its first event.
    pub(crate) async fn create(&self, draft: Draft) -> Result<(Machine, Shown), CreateError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Create(draft, reply)).await;
        sent.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Records the machine as it is now, what happened, and the configuration that it had until
    /// now. Durable when it returns.
    pub(crate) async fn commit(
        &self,
        machine: Machine,
        events: Vec<Event>,
        retired: Option<Retired>,
    ) -> Result<Shown, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .jobs
            .send(Job::Commit(Box::new(machine), events, retired, reply))
            .await;
        sent.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Runs `f` on the database, between the changes of machines.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut rusqlite::Connection) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::With(Box::new(move |connection| {
            // Whoever asked may have gone away.
            let _ = reply.send(f(connection));
        }));
        let sent = self.jobs.send(job).await;
        sent.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)
    }

    /// Closes the ledger after what has been asked of it so far.
    pub(crate) async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.jobs.send(Job::Close).await;
    }

    /// The machine's events, newest first.
    pub(crate) async fn events(
        &self,
        id: MachineId,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Events(id, limit, reply)).await;
        sent.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// The configurations that the machine had before the one it has, newest first.
    pub(crate) async fn versions(
        &self,
        id: MachineId,
    ) -> Result<Vec<(VersionId, MachineConfig)>, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Versions(id, reply)).await;
        sent.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Does one job. Whoever asked may have gone away; what was asked for happens nevertheless.
fn perform(tables: &mut Tables, host: HostId, catalog: &Catalog, job: Job) -> ControlFlow<()> {
    let publish = |machine: &Machine, revision| {
        let shown = machine.show(revision);
        catalog.publish(entry(host, machine, shown.clone()));
        shown
    };
    match job {
        Job::Create(draft, reply) => {
            crash::point("create", Moment::Before);
            let created = tables.create(draft);
            crash::point("create", Moment::After);
            let _ = reply.send(created.map(|(machine, revision)| {
                let shown = publish(&machine, revision);
                (machine, shown)
            }));
        }
        Job::Commit(machine, events, retired, reply) => {
            crash::point(machine.state.step(), Moment::Before);
            let committed = tables.commit(&machine, &events, retired.as_ref());
            crash::point(machine.state.step(), Moment::After);
            let _ = reply.send(committed.map(|revision| publish(&machine, revision)));
        }
        Job::Events(id, limit, reply) => {
            let _ = reply.send(tables.events(&id, limit));
        }
        Job::With(f) => f(tables.connection()),
        Job::Versions(id, reply) => {
            let _ = reply.send(tables.versions(&id));
        }
        Job::Close => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

fn entry(host: HostId, machine: &Machine, shown: Shown) -> Entry {
    Entry {
        host,
        app: machine.app.clone(),
        network: machine.network,
        machine: shown,
    }
}

#[cfg(test)]
mod tests;
