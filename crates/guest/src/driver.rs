//! Performs what the supervisor decides: one task per machine, and one per run of a container.
//!
//! Reports, logs and the exit leave through one bounded queue, so the host sees what a container
//! wrote before it sees its exit. When the queue is full the containers wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use types::guest::{
    ContainerReport, ContainerSpec, Frame, FrameKind, GuestMessage, HealthReport, LogChunk,
    MachineSpec,
};
use types::machine::ExitEvent;

use crate::output::pump;
use crate::probe;
use crate::process::{self, Inlet, Outputs};
use crate::reaper::{Exit, ExitStatus, Reaper};
use crate::runtime::{Alive, Process, Runtime, RuntimeError};
use crate::supervisor::{Effect, Event, Machine, Now};

/// Events that wait for the supervisor: each container has at most a few under way.
const EVENTS_MAX: usize = 64;

/// Pieces of output that a slow attachment may be behind before it loses some.
const ATTACH_PIECES_MAX: usize = 256;

/// What goes to the host on the control stream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Frame),
    Exited(ExitEvent),
}

/// What the machine's task is asked.
pub(crate) enum Request {
    Event(Event),
    /// A new connection: say again how everything is.
    Resend,
}

/// A machine whose supervision has begun.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) spec: MachineSpec,
    pub(crate) requests: mpsc::Sender<Request>,
    /// In the order of the specification; `None` while the container does not run.
    live: Vec<Mutex<Option<Live>>>,
}

/// A run of a container that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) pid: i32,
    pub(crate) inlet: Inlet,
    pub(crate) output: broadcast::Sender<Piece>,
}

/// What an attachment sees.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Output(FrameKind, Bytes),
    End(ExitStatus),
}

impl Running {
    /// The container of that name and its run, if one is under way.
    pub(crate) fn container(&self, name: &str) -> Option<(&ContainerSpec, Option<Live>)> {
        let at = self.spec.containers.iter().position(|c| c.name == name)?;
        Some((&self.spec.containers[at], self.live(at).clone()))
    }

    /// The containers that run.
    pub(crate) fn alive(&self) -> Vec<Alive> {
        let all = self.spec.containers.iter().enumerate();
        let alive = all.filter_map(|(at, spec)| {
            let main = self.live(at).as_ref()?.pid;
            let container = spec.name.clone();
            Some(Alive { container, main })
        });
        alive.collect()
    }

    fn live(&self, at: usize) -> std::sync::MutexGuard<'_, Option<Live>> {
        // Only ever replaced as a whole.
        self.live[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every task of a machine needs.
struct Context<R> {
    runtime: Arc<R>,
    reaper: Reaper,
    running: Arc<Running>,
    outbox: mpsc::Sender<Outgoing>,
}

impl<R> Clone for Context<R> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            reaper: self.reaper.clone(),
            running: self.running.clone(),
            outbox: self.outbox.clone(),
        }
    }
}

/// Begins supervision.
pub(crate) fn start<R: Runtime>(
    machine: Machine,
    spec: MachineSpec,
    runtime: Arc<R>,
    reaper: Reaper,
    outbox: mpsc::Sender<Outgoing>,
) -> Arc<Running> {
    let (requests, inbox) = mpsc::channel(EVENTS_MAX);
    let running = Arc::new(Running {
        live: spec.containers.iter().map(|_| Mutex::default()).collect(),
        spec,
        requests,
    });
    let context = Context {
        runtime,
        reaper,
        running: running.clone(),
        outbox,
    };
    let driver = Driver {
        reports: vec![None; running.live.len()],
        health: BTreeMap::new(),
        exit: None,
        context,
        machine,
        epoch: Instant::now(),
    };
    tokio::spawn(driver.run(inbox));
    running
}

struct Driver<R> {
    context: Context<R>,
    machine: Machine,
    epoch: Instant,
    /// The last report of each container.
    reports: Vec<Option<ContainerReport>>,
    /// The last report of each check, by name.
    health: BTreeMap<String, HealthReport>,
    exit: Option<ExitEvent>,
}

impl<R: Runtime> Driver<R> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        self.send(GuestMessage::Ready).await;
        self.apply(Event::Tick).await;
        loop {
            let deadline = self.machine.next_deadline();
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until((self.epoch + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                request = inbox.recv() => request,
                () = tick => Some(Request::Event(Event::Tick)),
            };
            match request {
                Some(Request::Event(event)) => self.apply(event).await,
                Some(Request::Resend) => self.resend().await,
                None => return,
            }
        }
    }

    async fn apply(&mut self, event: Event) {
        let now = Now {
            elapsed: self.epoch.elapsed(),
            unix: Timestamp::now(),
        };
        for effect in self.machine.apply(now, event) {
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        let context = self.context.clone();
        match effect {
            Effect::Start { container, run } => {
                tokio::spawn(run_container(context, container, run));
            }
            Effect::Signal {
                container,
                pid,
                signal,
            } => {
                let spec = self.context.running.spec.containers[container].clone();
                spawn_logged("signal", move || context.runtime.signal(&spec, pid, signal));
            }
            Effect::Kill { container, pid } => {
                let spec = self.context.running.spec.containers[container].clone();
                spawn_logged("kill", move || context.runtime.kill(&spec, pid));
            }
            Effect::Report(report) => {
                let mut names = self.context.running.spec.containers.iter();
                if let Some(at) = names.position(|c| c.name == report.container) {
                    self.reports[at] = Some(report.clone());
                }
                self.send(GuestMessage::Container(report)).await;
            }
            Effect::Probe { check, round } => {
                tokio::spawn(async move {
                    let Context {
                        runtime,
                        reaper,
                        running,
                        ..
                    } = &context;
                    let spec = &running.spec.checks[check];
                    let outcome = probe::run(running, runtime, reaper, spec).await;
                    let probed = Event::Probed {
                        check,
                        round,
                        outcome,
                    };
                    // The machine's task ends only with the guest.
                    let _ = running.requests.send(Request::Event(probed)).await;
                });
            }
            Effect::Health(report) => {
                self.health.insert(report.check.clone(), report.clone());
                self.send(GuestMessage::Health(report)).await;
            }
            Effect::End(exit) => {
                self.exit = Some(exit.clone());
                self.queue(Outgoing::Exited(exit)).await;
            }
        }
    }

    async fn resend(&self) {
        for report in self.reports.iter().flatten() {
            self.send(GuestMessage::Container(report.clone())).await;
        }
        for report in self.health.values() {
            self.send(GuestMessage::Health(report.clone())).await;
        }
        self.send(GuestMessage::Ready).await;
        if let Some(exit) = &self.exit {
            self.queue(Outgoing::Exited(exit.clone())).await;
        }
    }

    async fn send(&self, message: GuestMessage) {
        self.queue(Outgoing::Frame(Frame::message(&message))).await;
    }

    async fn queue(&self, outgoing: Outgoing) {
        // The other end lives as long as the guest does.
        let _ = self.context.outbox.send(outgoing).await;
    }
}

fn spawn_logged<F>(what: &'static str, call: F)
where
    F: FnOnce() -> Result<(), RuntimeError> + Send + 'static,
{
    spawn_blocking(move || {
        if let Err(error) = call() {
            tracing::warn!(what, error = error.reason(), "container was not told");
        }
    });
}

/// One run of a container, from its start to its last byte of output.
async fn run_container<R: Runtime>(context: Context<R>, container: usize, run: u32) {
    let requests = context.running.requests.clone();
    let event = match start_container(&context, container, run).await {
        Err(error) => Event::StartFailed {
            container,
            run,
            reason: error.reason(),
        },
        Ok((exit, live, outputs)) => {
            let pid = live.pid;
            *context.running.live(container) = Some(live.clone());
            let started = Event::Started {
                container,
                run,
                pid,
            };
            // The machine's task ends only with the guest.
            let _ = requests.send(Request::Event(started)).await;
            see_off(&context, container, run, exit, live, outputs).await
        }
    };
    let _ = requests.send(Request::Event(event)).await;
}

async fn start_container<R: Runtime>(
    context: &Context<R>,
    container: usize,
    run: u32,
) -> Result<(Exit, Live, Outputs), RuntimeError> {
    let this = context.clone();
    let process = blocking("start container", move || {
        let machine = &this.running.spec;
        let spec = &machine.containers[container];
        this.runtime.start(&this.reaper, machine, spec, run)
    })
    .await?;
    let Process { pid, exit, io } = process;
    let spec = &context.running.spec.containers[container];
    let opened = process::open(io, spec.stdin);
    let (inlet, outputs) = opened.map_err(|source| {
        // It runs, but nobody could hear it.
        if let Err(error) = context.runtime.kill(spec, pid) {
            tracing::warn!(error = error.reason(), "container without output stays");
        }
        RuntimeError::new("read the container's output", source)
    })?;
    let (output, _) = broadcast::channel(ATTACH_PIECES_MAX);
    Ok((exit, Live { pid, inlet, output }, outputs))
}

async fn see_off<R: Runtime>(
    context: &Context<R>,
    container: usize,
    run: u32,
    mut exit: Exit,
    live: Live,
    outputs: Outputs,
) -> Event {
    let over = CancellationToken::new();
    let name = &context.running.spec.containers[container].name;
    let mut pumps = JoinSet::new();
    for (kind, fd) in outputs {
        let (outbox, output, name) = (context.outbox.clone(), live.output.clone(), name.clone());
        pumps.spawn(pump(fd, over.clone(), move |bytes| {
            let chunk = log_chunk(&name, run, kind, &bytes);
            // Nobody may be attached.
            let _ = output.send(Piece::Output(kind, bytes));
            let outbox = outbox.clone();
            async move { outbox.send(Outgoing::Frame(chunk.to_frame())).await.is_ok() }
        }));
    }
    let status = exit.wait().await;
    *context.running.live(container) = None;
    let this = context.clone();
    let end = spawn_blocking(move || {
        let spec = &this.running.spec.containers[container];
        this.runtime.ended(spec, run, status)
    })
    .await
    .unwrap_or_default();
    over.cancel();
    while pumps.join_next().await.is_some() {}
    let _ = live.output.send(Piece::End(status));
    Event::Exited {
        container,
        run,
        status,
        oom_killed: end.oom_killed,
    }
}

fn log_chunk(container: &str, run: u32, kind: FrameKind, bytes: &[u8]) -> LogChunk {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    LogChunk {
        container: container.to_owned(),
        run,
        stderr: kind == FrameKind::Stderr,
        unix_ns: now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)),
        bytes: bytes.to_vec(),
    }
}

/// Calls the runtime on a thread made for that.
pub(crate) async fn blocking<T, F>(doing: &'static str, call: F) -> Result<T, RuntimeError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, RuntimeError> + Send + 'static,
{
    match spawn_blocking(call).await {
        Ok(result) => result,
        Err(panic) => Err(RuntimeError::new(doing, panic)),
    }
}
