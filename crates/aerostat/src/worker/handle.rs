//! What others may ask of a worker.

use std::time::Duration;

use tokio::sync::mpsc;
use types::api::{LogLine, LogQuery};
use types::guest::ExecRequest;
use types::machine::{Event, Machine, MachineState};
use types::{AppName, MachineId, NetworkId, VersionId};

use super::capacity::{Bid, BidRequest, Reservation};
use super::check::CheckedConfig;
use super::refused::{NoBid, Refused};

/// A new machine.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub reservation: Reservation,
    pub id: MachineId,
    pub app: AppName,
    pub network: NetworkId,
    /// Unique among the app's machines that are not destroyed.
    pub name: String,
    pub config: CheckedConfig,
    /// Whether to start it at once; else it stays `created`.
    pub launch: bool,
}

/// A new configuration for a machine.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    pub config: CheckedConfig,
    /// Whether it runs afterwards; else a running machine is stopped.
    pub launch: bool,
    /// Refuse unless this is the version now.
    pub current_version: Option<VersionId>,
}

/// How to stop; what is `None` comes from the machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRequest {
    pub signal: Option<String>,
    pub timeout: Option<Duration>,
}

/// A worker, as others know it. Clones talk to the same one.
///
/// A request returns when its change is recorded; what it causes goes on by itself. Whoever wants
/// to see it happen asks the catalog (`wait_for`, `subscribe`).
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<()>,
}

impl Handle {
    /// What this worker could do for such a machine now.
    ///
    /// # Errors
    /// Why it would not have it.
    pub async fn bid(&self, request: &BidRequest) -> Result<Bid, NoBid> {
        let _ = request;
        unimplemented!()
    }

    /// Promises room for such a machine, for a few seconds.
    ///
    /// # Errors
    /// As [`Self::bid`].
    pub async fn reserve(&self, request: &BidRequest) -> Result<Reservation, NoBid> {
        let _ = request;
        unimplemented!()
    }

    /// Creates a machine, and uses up the reservation.
    ///
    /// # Errors
    /// [`Refused::ReservationExpired`], [`Refused::NameTaken`], [`Refused::IdTaken`],
    /// [`Refused::Exhausted`].
    pub async fn create(&self, request: CreateRequest) -> Result<Machine, Refused> {
        let _ = request;
        unimplemented!()
    }

    /// Gives a machine a new configuration, and with it a new version. A running one is stopped
    /// first.
    ///
    /// # Errors
    /// [`Refused::VersionMismatch`], [`Refused::NoBid`], [`Refused::WrongState`].
    pub async fn update(&self, id: &MachineId, request: UpdateRequest) -> Result<Machine, Refused> {
        let _ = (id, request);
        unimplemented!()
    }

    /// Starts a machine; nothing happens if it is starting or started. Returns the state it was
    /// in before.
    ///
    /// # Errors
    /// [`Refused::NoBid`], [`Refused::WrongState`].
    pub async fn start(&self, id: &MachineId) -> Result<MachineState, Refused> {
        let _ = id;
        unimplemented!()
    }

    /// Stops a machine; nothing happens if it does not run. Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it is being destroyed.
    pub async fn stop(&self, id: &MachineId, request: StopRequest) -> Result<Machine, Refused> {
        let _ = (id, request);
        unimplemented!()
    }

    /// Destroys a machine and what it keeps on disk. Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it runs and `force` is not set.
    pub async fn destroy(&self, id: &MachineId, force: bool) -> Result<Machine, Refused> {
        let _ = (id, force);
        unimplemented!()
    }

    /// The machine, as its worker knows it; also for a while after it was destroyed.
    pub fn get(&self, id: &MachineId) -> Option<Machine> {
        let _ = id;
        unimplemented!()
    }

    /// Every machine of `app` that is not destroyed, and the catalog's revision of this list.
    pub fn list(&self, app: &AppName) -> (Vec<Machine>, u64) {
        let _ = app;
        unimplemented!()
    }

    /// What happened to a machine, newest first.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn events(&self, id: &MachineId, limit: usize) -> Result<Vec<Event>, Refused> {
        let _ = (id, limit);
        unimplemented!()
    }

    /// Runs a process beside a container's own. An empty container is the first.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if the machine is not started, [`Refused::NoContainer`],
    /// [`Refused::Vmm`].
    pub async fn exec(&self, id: &MachineId, request: ExecRequest) -> Result<vmm::Io, Refused> {
        let _ = (id, request);
        unimplemented!()
    }

    /// Connects to the standard streams of a container; an empty one is the first.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub async fn attach(&self, id: &MachineId, container: &str) -> Result<vmm::Io, Refused> {
        let _ = (id, container);
        unimplemented!()
    }

    /// What a container wrote; the first if the query names none. Works on stopped machines too.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::NoContainer`], [`Refused::Vmm`].
    pub async fn logs(
        &self,
        id: &MachineId,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, Refused> {
        let _ = (id, query);
        unimplemented!()
    }
}
