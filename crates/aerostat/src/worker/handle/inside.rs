//! What somebody does inside of a machine that runs: processes, files, signals, logs.
//!
//! Nothing here changes the machine, so nothing goes through its driver or asks for its lease,
//! except a signal, which may well end it.

use tokio::sync::mpsc;
use types::api::{LogLine, LogQuery, ProcessStat};
use types::guest::{ExecRequest, Statistics};
use types::{BootId, MachineId};

use super::super::check::check_signal;
use super::super::refused::Refused;
use super::Handle;

impl Handle {
    /// Runs a process beside a container's own. An empty container is the first.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if the machine is not started, [`Refused::NoContainer`],
    /// [`Refused::Vmm`].
    pub async fn exec(&self, id: &MachineId, mut request: ExecRequest) -> Result<vmm::Io, Refused> {
        if !request.machine {
            request.container = self.container(id, &request.container)?;
        }
        let boot = self.boot(id, "exec in")?;
        self.reach
            .exec(id, boot, request)
            .await
            .map_err(|source| vmm_refused(id, source))
    }

    /// Connects to the standard streams of a container; an empty one is the first.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub async fn attach(&self, id: &MachineId, container: &str) -> Result<vmm::Io, Refused> {
        let container = self.container(id, container)?;
        let boot = self.boot(id, "attach to")?;
        self.reach
            .attach(id, boot, container)
            .await
            .map_err(|source| vmm_refused(id, source))
    }

    /// What a container wrote; the first if the query names none. Works on stopped machines too.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::NoContainer`], [`Refused::Vmm`].
    pub async fn logs(
        &self,
        id: &MachineId,
        mut query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, Refused> {
        let container = self.container(id, query.container.as_deref().unwrap_or_default())?;
        query.container = Some(container);
        self.reach
            .logs(id, query)
            .await
            .map_err(|source| vmm_refused(id, source))
    }

    /// Sends a signal to the first process of a container, or of each.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if there is no such signal, [`Refused::LeaseHeld`],
    /// [`Refused::WrongState`] if the machine does not run, [`Refused::NoContainer`],
    /// [`Refused::Vmm`].
    pub async fn signal(
        &self,
        id: &MachineId,
        container: Option<String>,
        signal: String,
    ) -> Result<(), Refused> {
        check_signal("signal", &signal)?;
        let container = match container.as_deref() {
            None | Some("") => None,
            Some(name) => Some(self.container(id, name)?),
        };
        self.admitted(id, "signal").await?;
        let boot = self.boot(id, "signal")?;
        let sent = self.reach.signal(id, boot, container, signal).await;
        sent.map_err(|source| vmm_refused(id, source))
    }

    /// The machine's processes.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if the machine does not run, [`Refused::Vmm`].
    pub async fn processes(&self, id: &MachineId) -> Result<Vec<ProcessStat>, Refused> {
        let boot = self.boot(id, "list the processes of")?;
        let processes = self.reach.processes(id, boot).await;
        processes.map_err(|source| vmm_refused(id, source))
    }

    /// What the machine uses.
    ///
    /// # Errors
    /// As [`Self::processes`].
    pub async fn statistics(&self, id: &MachineId) -> Result<Statistics, Refused> {
        let boot = self.boot(id, "measure")?;
        let statistics = self.reach.statistics(id, boot).await;
        statistics.map_err(|source| vmm_refused(id, source))
    }

    /// Copies files into or out of a container, as a tar archive on the streams. An empty
    /// container is the first.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub async fn copy(&self, id: &MachineId, copy: vmm::Copy) -> Result<vmm::Io, Refused> {
        let copy = match copy {
            vmm::Copy::Into { container, path } => vmm::Copy::Into {
                container: self.container(id, &container)?,
                path,
            },
            vmm::Copy::OutOf { container, path } => vmm::Copy::OutOf {
                container: self.container(id, &container)?,
                path,
            },
        };
        let boot = self.boot(id, "copy files of")?;
        let copied = self.reach.copy(id, boot, copy).await;
        copied.map_err(|source| vmm_refused(id, source))
    }

    fn boot(&self, id: &MachineId, verb: &'static str) -> Result<BootId, Refused> {
        let state = self.entry(id)?.machine.state;
        self.core
            .reachable(id)
            .ok_or(Refused::WrongState { verb, state })
    }

    /// The container of that name, or the first for an empty name.
    fn container(&self, id: &MachineId, name: &str) -> Result<String, Refused> {
        let entry = self.entry(id)?;
        let mut containers = entry
            .machine
            .containers
            .iter()
            .map(|container| &container.name);
        let found = if name.is_empty() {
            containers.next()
        } else {
            containers.find(|known| *known == name)
        };
        found.cloned().ok_or_else(|| {
            let known = entry
                .machine
                .containers
                .iter()
                .map(|container| container.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            Refused::NoContainer {
                id: id.clone(),
                container: name.to_owned(),
                known,
            }
        })
    }
}

fn vmm_refused(id: &MachineId, source: vmm::VmmError) -> Refused {
    Refused::Vmm {
        id: id.clone(),
        source,
    }
}
