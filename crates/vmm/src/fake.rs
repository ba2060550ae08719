//! A [`Vmm`] for tests of those who use one: boots happen in memory, as scripted.
//!
//! Clones share their machines, as the shims of a host outlive its worker: a test "restarts" the
//! worker by giving a clone to the next one. An exec echoes its input and exits with 0; files are kept
//! by the path that they were copied to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use types::api::{LogLine, LogQuery, ProcessStat};
use types::guest::{
    ContainerReport, ContainerReportState, ContainerStatistics, ExecEnd, ExecRequest, Statistics,
};
use types::machine::ExitEvent;
use types::{BootId, IsolationClass, MachineId, VolumeId};

use crate::{BootSpec, Copy, Frozen, Input, Io, Output, Report, ReportEvent, Vmm, VmmError};

/// What the next boots do.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Script {
    /// Become ready at once, with every container started.
    #[default]
    Ready,
    /// Stay silent until the test calls [`FakeVmm::report`].
    Hang,
    /// `boot` returns, and then the boot fails.
    Fail { reason: String },
    /// `boot` itself returns [`VmmError::ShimFailed`].
    Refuse { reason: String },
}

#[derive(Debug, Clone, Default)]
pub struct FakeVmm {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    script: Script,
    ignore_stop: bool,
    boots: BTreeMap<(MachineId, BootId), Boot>,
    kept: BTreeMap<MachineId, Vec<LogLine>>,
    stops: Vec<(MachineId, BootId, Option<String>, Duration)>,
    signals: Vec<(MachineId, Option<String>, String)>,
    /// Archives by machine, container and path.
    files: BTreeMap<(MachineId, String, String), Vec<u8>>,
    specs: Vec<BootSpec>,
    /// Volumes that were held still, and whether they go on again.
    frozen: Vec<(VolumeId, bool)>,
    /// Volumes that grew while they were used, and to how many bytes.
    grown: Vec<(VolumeId, u64)>,
    /// Whether they can.
    grows: bool,
    /// Machines of which something is saved.
    suspended: BTreeSet<MachineId>,
}

fn is_ready(report: &Report) -> bool {
    report.event == ReportEvent::Ready
}

#[derive(Debug)]
struct Boot {
    spec: BootSpec,
    reports: watch::Sender<Vec<Report>>,
}

impl Boot {
    fn is_over(&self) -> bool {
        self.reports
            .borrow()
            .last()
            .is_some_and(|report| report.event.is_last())
    }

    fn push(&self, event: ReportEvent) {
        if !self.is_over() {
            self.reports.send_modify(|reports| {
                let seq = reports.len() as u64 + 1;
                reports.push(Report { seq, event });
            });
        }
    }
}

impl FakeVmm {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What boots do from now on.
    pub fn script(&self, script: Script) {
        self.state().script = script;
    }

    /// Whether `stop` is noted but not followed, so that the machine goes on.
    pub fn ignore_stop(&self, ignore: bool) {
        self.state().ignore_stop = ignore;
    }

    /// Adds a report to a machine's newest boot. After the boot's end nothing is added.
    pub fn report(&self, machine: &MachineId, event: ReportEvent) {
        let state = self.state();
        if let Some((_, boot)) = state.boots.iter().rfind(|((id, _), _)| id == machine) {
            boot.push(event);
        }
    }

    /// Ends a machine's newest boot.
    pub fn exit(&self, machine: &MachineId, exit: ExitEvent) {
        self.report(machine, ReportEvent::Exited { exit });
    }

    /// A line for a machine's log.
    pub fn log(&self, machine: &MachineId, line: LogLine) {
        self.state()
            .kept
            .entry(machine.clone())
            .or_default()
            .push(line);
    }

    /// Every call of `stop`.
    pub fn stops(&self) -> Vec<(MachineId, BootId, Option<String>, Duration)> {
        self.state().stops.clone()
    }

    /// Every signal that was sent: the machine, the container if one was named, the signal.
    pub fn signals(&self) -> Vec<(MachineId, Option<String>, String)> {
        self.state().signals.clone()
    }

    /// Every specification that was ever booted.
    pub fn specs(&self) -> Vec<BootSpec> {
        self.state().specs.clone()
    }

    /// Machines of which something is saved.
    pub fn suspended(&self) -> Vec<MachineId> {
        self.state().suspended.iter().cloned().collect()
    }

    /// Boots that have not ended.
    pub fn alive(&self) -> Vec<(MachineId, BootId)> {
        let state = self.state();
        let alive = state.boots.iter().filter(|(_, boot)| !boot.is_over());
        alive.map(|(key, _)| key.clone()).collect()
    }

    fn alive_spec(&self, machine: &MachineId, boot: BootId) -> Result<BootSpec, VmmError> {
        let gone = || VmmError::Gone {
            machine: machine.clone(),
            boot,
        };
        let state = self.state();
        let found = state.boots.get(&(machine.clone(), boot));
        let found = found.filter(|found| !found.is_over());
        Ok(found.ok_or_else(gone)?.spec.clone())
    }

    fn echo(&self, machine: &MachineId, boot: BootId, container: &str) -> Result<Io, VmmError> {
        let spec = self.alive_spec(machine, boot)?;
        let end = if spec.spec.containers.iter().any(|c| c.name == container) {
            ExecEnd::Exited { exit_code: 0 }
        } else {
            let reason = format!("no container `{container}`");
            ExecEnd::Failed { reason }
        };
        let (input, mut inputs) = mpsc::channel(16);
        let (outputs, output) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Input::Stdin(bytes)) = inputs.recv().await {
                let _ = outputs.send(Output::Stdout(bytes)).await;
            }
            let _ = outputs.send(Output::End(end)).await;
        });
        Ok(Io { input, output })
    }
}

impl FakeVmm {
    /// Keeps whatever comes until the end of input; it can be had again under the same path.
    fn put(&self, key: (MachineId, String, String)) -> Io {
        let (input, mut inputs) = mpsc::channel(16);
        let (outputs, output) = mpsc::channel(16);
        let this = self.clone();
        tokio::spawn(async move {
            let mut archive = Vec::new();
            let end = loop {
                match inputs.recv().await {
                    Some(Input::Stdin(bytes)) => archive.extend_from_slice(&bytes),
                    Some(Input::Resize(_)) => {}
                    Some(Input::CloseStdin) => {
                        this.state().files.insert(key, archive);
                        break ExecEnd::Exited { exit_code: 0 };
                    }
                    None => {
                        let reason = "the archive was cut off".to_owned();
                        break ExecEnd::Failed { reason };
                    }
                }
            };
            let _ = outputs.send(Output::End(end)).await;
        });
        Io { input, output }
    }

    fn get(&self, key: &(MachineId, String, String)) -> Io {
        let archive = self.state().files.get(key).cloned();
        let (input, _) = mpsc::channel(1);
        let (outputs, output) = mpsc::channel(2);
        let end = match archive {
            Some(archive) => {
                let _ = outputs.try_send(Output::Stdout(archive.into()));
                ExecEnd::Exited { exit_code: 0 }
            }
            None => {
                let reason = format!("cannot read {}: No such file or directory", key.2);
                ExecEnd::Failed { reason }
            }
        };
        let _ = outputs.try_send(Output::End(end));
        Io { input, output }
    }
}

impl FakeVmm {
    /// Volumes that were held still, in this order, and whether they go on again.
    pub fn frozen(&self) -> Vec<(VolumeId, bool)> {
        self.state().frozen.clone()
    }

    /// Volumes that grew while they were used, and to how many bytes.
    pub fn grown(&self) -> Vec<(VolumeId, u64)> {
        self.state().grown.clone()
    }

    /// From now on volumes can grow while they are used. They only say so.
    pub fn let_volumes_grow(&self) {
        self.state().grows = true;
    }

    fn is_alive(&self, machine: &MachineId, boot: BootId) -> Result<(), VmmError> {
        let key = (machine.clone(), boot);
        let state = self.state();
        match state.boots.get(&key) {
            Some(boot) if !boot.is_over() => Ok(()),
            Some(_) | None => {
                let machine = machine.clone();
                Err(VmmError::Gone { machine, boot })
            }
        }
    }
}

impl Vmm for FakeVmm {
    async fn freeze(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
    ) -> Result<Frozen, VmmError> {
        self.is_alive(machine, boot)?;
        let number = {
            let mut state = self.state();
            state.frozen.push((volume.clone(), false));
            state.frozen.len() - 1
        };
        let (input, mut inputs) = mpsc::channel(1);
        let (outputs, output) = mpsc::channel(2);
        let this = self.clone();
        tokio::spawn(async move {
            let _ = outputs.send(Output::Stdout("frozen".into())).await;
            let _ = inputs.recv().await;
            this.state().frozen[number].1 = true;
            let end = ExecEnd::Exited { exit_code: 0 };
            let _ = outputs.send(Output::End(end)).await;
        });
        Frozen::begin(machine, Io { input, output }).await
    }

    async fn grow(
        &self,
        machine: &MachineId,
        boot: BootId,
        volume: &VolumeId,
        bytes: u64,
    ) -> Result<(), VmmError> {
        self.is_alive(machine, boot)?;
        let mut state = self.state();
        if !state.grows {
            let (machine, reason) = (machine.clone(), "this guest cannot".to_owned());
            return Err(VmmError::Refused { machine, reason });
        }
        state.grown.push((volume.clone(), bytes));
        Ok(())
    }

    async fn boot(&self, spec: BootSpec) -> Result<(), VmmError> {
        let mut state = self.state();
        state.specs.push(spec.clone());
        let key = (spec.machine.clone(), spec.boot);
        if state.boots.contains_key(&key) {
            return Ok(());
        }
        let boot = Boot {
            spec: spec.clone(),
            reports: watch::Sender::new(Vec::new()),
        };
        let class = spec.isolation;
        if spec.resume && class == IsolationClass::Container {
            return Err(VmmError::CannotSuspend { class });
        }
        let script = state.script.clone();
        if let Script::Refuse { reason } = script {
            let machine = spec.machine;
            return Err(VmmError::ShimFailed { machine, reason });
        }
        // Whatever becomes of this boot: nobody else goes on from what was saved.
        let was_saved = state.suspended.remove(&spec.machine);
        match script {
            _ if spec.resume && !was_saved => boot.push(ReportEvent::Failed {
                reason: "nothing is saved of this machine".to_owned(),
            }),
            Script::Refuse { .. } => {}
            Script::Fail { reason } => boot.push(ReportEvent::Failed { reason }),
            Script::Hang => {}
            Script::Ready => {
                boot.push(ReportEvent::Ready);
                for (container, pid) in spec.spec.containers.iter().zip(2..) {
                    boot.push(ReportEvent::Container(ContainerReport {
                        container: container.name.clone(),
                        run: 0,
                        state: ContainerReportState::Started { pid, unix_ms: 1 },
                    }));
                }
            }
        }
        state.kept.entry(key.0.clone()).or_default();
        state.boots.insert(key, boot);
        Ok(())
    }

    async fn reports(
        &self,
        machine: &MachineId,
        boot: BootId,
        after: u64,
    ) -> Result<mpsc::Receiver<Report>, VmmError> {
        let gone = || VmmError::Gone {
            machine: machine.clone(),
            boot,
        };
        let key = (machine.clone(), boot);
        let found = self.state().boots.get(&key).map(|b| b.reports.subscribe());
        let mut reports = found.ok_or_else(gone)?;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut after = after;
            loop {
                let new = reports.borrow_and_update().clone();
                for report in new
                    .into_iter()
                    .filter(|r| r.seq > after)
                    .collect::<Vec<_>>()
                {
                    after = report.seq;
                    let last = report.event.is_last();
                    if sender.send(report).await.is_err() || last {
                        return;
                    }
                }
                tokio::select! {
                    changed = reports.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }

    async fn stop(
        &self,
        machine: &MachineId,
        boot: BootId,
        signal: Option<String>,
        grace: Duration,
    ) -> Result<(), VmmError> {
        self.alive_spec(machine, boot)?;
        let mut state = self.state();
        let key = (machine.clone(), boot);
        state.stops.push((machine.clone(), boot, signal, grace));
        if let Some(boot) = state.boots.get(&key).filter(|_| !state.ignore_stop) {
            let exit = ExitEvent {
                requested_stop: true,
                ..ExitEvent::default()
            };
            boot.push(ReportEvent::Exited { exit });
        }
        Ok(())
    }

    async fn kill(&self, machine: &MachineId, boot: BootId) -> Result<(), VmmError> {
        self.state().boots.remove(&(machine.clone(), boot));
        Ok(())
    }

    async fn exec(
        &self,
        machine: &MachineId,
        boot: BootId,
        request: ExecRequest,
    ) -> Result<Io, VmmError> {
        self.echo(machine, boot, &request.container)
    }

    async fn attach(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: String,
    ) -> Result<Io, VmmError> {
        self.echo(machine, boot, &container)
    }

    async fn signal(
        &self,
        machine: &MachineId,
        boot: BootId,
        container: Option<String>,
        signal: String,
    ) -> Result<(), VmmError> {
        self.alive_spec(machine, boot)?;
        let mut state = self.state();
        state.signals.push((machine.clone(), container, signal));
        Ok(())
    }

    async fn suspend(&self, machine: &MachineId, boot: BootId) -> Result<(), VmmError> {
        let class = self.alive_spec(machine, boot)?.isolation;
        if class == IsolationClass::Container {
            return Err(VmmError::CannotSuspend { class });
        }
        let mut state = self.state();
        let key = (machine.clone(), boot);
        let found = state.boots.get(&key);
        let ready = |boot: &Boot| boot.reports.borrow().iter().any(is_ready);
        if !found.is_some_and(ready) {
            return Err(VmmError::Refused {
                machine: machine.clone(),
                reason: "the machine is not ready".to_owned(),
            });
        }
        state.suspended.insert(machine.clone());
        if let Some(boot) = state.boots.get(&key) {
            boot.push(ReportEvent::Suspended);
        }
        Ok(())
    }

    async fn discard_suspended(&self, machine: &MachineId) -> Result<(), VmmError> {
        self.state().suspended.remove(machine);
        Ok(())
    }

    async fn processes(
        &self,
        machine: &MachineId,
        boot: BootId,
    ) -> Result<Vec<ProcessStat>, VmmError> {
        let spec = self.alive_spec(machine, boot)?;
        let containers = spec.spec.containers.into_iter().zip(2..);
        let processes = containers.map(|(container, pid)| ProcessStat {
            pid,
            command: container.command.join(" "),
            directory: container.working_dir,
            rss: 1 << 20,
            container: container.name,
            ..ProcessStat::default()
        });
        Ok(processes.collect())
    }

    async fn statistics(&self, machine: &MachineId, boot: BootId) -> Result<Statistics, VmmError> {
        let spec = self.alive_spec(machine, boot)?;
        let containers = spec.spec.containers.into_iter().map(|container| {
            let usage = ContainerStatistics {
                memory_bytes: 1 << 20,
                processes: 1,
                ..ContainerStatistics::default()
            };
            (container.name, usage)
        });
        let containers: BTreeMap<_, _> = containers.collect();
        let count = u32::try_from(containers.len()).unwrap_or(u32::MAX);
        Ok(Statistics {
            memory_bytes: u64::from(count) << 20,
            memory_limit_bytes: u64::from(spec.guest.memory_mb) << 20,
            processes: count,
            containers,
            ..Statistics::default()
        })
    }

    async fn copy(&self, machine: &MachineId, boot: BootId, copy: Copy) -> Result<Io, VmmError> {
        self.alive_spec(machine, boot)?;
        match copy {
            Copy::Into { container, path } => Ok(self.put((machine.clone(), container, path))),
            Copy::OutOf { container, path } => Ok(self.get(&(machine.clone(), container, path))),
        }
    }

    async fn logs(
        &self,
        machine: &MachineId,
        _query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, VmmError> {
        let lines = self.state().kept.get(machine).cloned().unwrap_or_default();
        let (sender, receiver) = mpsc::channel(lines.len().max(1));
        for line in lines {
            let _ = sender.try_send(line);
        }
        Ok(receiver)
    }

    async fn forget(&self, machine: &MachineId) -> Result<(), VmmError> {
        let mut state = self.state();
        state.kept.remove(machine);
        state.suspended.remove(machine);
        Ok(())
    }

    async fn present(&self) -> Result<Vec<(MachineId, Option<BootId>)>, VmmError> {
        let state = self.state();
        let mut present: BTreeMap<MachineId, Option<BootId>> =
            state.kept.keys().map(|id| (id.clone(), None)).collect();
        present.extend(
            state
                .boots
                .keys()
                .map(|(id, boot)| (id.clone(), Some(*boot))),
        );
        Ok(present.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
