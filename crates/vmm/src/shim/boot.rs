//! One boot, from the start of its body to its last report.
//!
//! The class-specific part is behind [`Body`]; what follows is the same for all of them: talk to
//! the guest, write down what it says, pass stops on, and put an end to it in time.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use guest::wire::host::{Connection, ControlReceiver, ControlSender, FromGuest};
use nix::fcntl::Flock;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, error, info, warn};
use types::IsolationClass;
use types::guest::{ContainerReportState, GuestMessage, HostMessage, Resume};
use types::machine::ExitEvent;

use super::server::{Resize, Server, Suspend};
use super::watchdog::{INTERVAL, SILENT_TICKS_MAX, Step, Watchdog};
use super::{Failure, ShimSpec, volumes};
use crate::container::{Ahead, Containers};
use crate::firecracker::{Firecracker, Vsock};
use crate::paths::{BootDir, Paths};
use crate::qemu::Vm;
use crate::report_log::ReportLog;
use crate::shim::through_dir;
use crate::spool::{FILE_BYTES_MAX, Spool};
use crate::{BootSpec, ReportEvent, VmmError};

/// Messages and log chunks between the task that reads and the one that writes them down.
const GUEST_EVENTS_MAX: usize = 64;
/// Messages that wait to be passed on: stops and signals, which the worker sends one at a time.
const MESSAGES_MAX: usize = 4;
/// A guest that reads takes a message at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// From the loss of the body to the end of what it said before.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);
/// A machine that stands still says nothing new; this is for what is on its way.
const QUIET: Duration = Duration::from_millis(20);
/// For a guest that goes on to notice that it lost its host, at first and at most.
const SETTLE: Duration = Duration::from_millis(15);
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// A guest that goes on says hello at once, unless its host is busy; doubled each time. One that
/// takes the connection for its last one ends it itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
const ENTROPY_BYTES: usize = 64;
/// How long connections may take to get the last lines and reports.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What runs the containers.
pub(super) enum Body {
    Vm(Box<Vm>),
    Firecracker(Box<Firecracker>),
    Containers(Containers),
}

impl Body {
    /// Starts the body and returns its end of the guest protocol's transport.
    async fn start(
        dir: &BootDir,
        paths: &Paths,
        spec: &mut ShimSpec,
        ahead: Option<Ahead>,
    ) -> Result<(Self, Transport), Failure> {
        match spec.boot.isolation {
            IsolationClass::Microvm if spec.firecracker.is_some() => {
                let (vm, vsock) = Firecracker::start(dir, paths, spec).await?;
                Ok((Self::Firecracker(Box::new(vm)), Transport::Vsock(vsock)))
            }
            IsolationClass::Microvm | IsolationClass::Emulated => {
                let vm = Vm::start(dir, paths, spec).await?;
                Ok((Self::Vm(Box::new(vm)), Transport::Socket(dir.control())))
            }
            IsolationClass::Container => {
                let ahead = ahead.ok_or("nothing was made ahead")?;
                let (containers, stream) = Containers::start(dir, spec, ahead)?;
                Ok((Self::Containers(containers), Transport::Pair(Some(stream))))
            }
        }
    }

    /// Returns, with the reason, when the body has ended by itself. May be dropped.
    async fn lost(&mut self) -> String {
        match self {
            Self::Vm(vm) => vm.lost().await,
            Self::Firecracker(vm) => vm.lost().await,
            Self::Containers(containers) => containers.lost().await,
        }
    }

    /// Lets the machine stand still.
    async fn pause(&mut self) -> Result<(), Failure> {
        match self {
            Self::Vm(vm) => vm.pause().await,
            Self::Firecracker(vm) => vm.pause().await,
            Self::Containers(_) => Err(cannot_suspend()),
        }
    }

    /// Saves the machine that stands still. When this returns, what is needed to go on is on disk.
    async fn save(&mut self, paths: &Paths, boot: &BootSpec) -> Result<(), Failure> {
        match self {
            Self::Vm(vm) => vm.save(paths, boot).await,
            Self::Firecracker(vm) => vm.save(paths, boot).await,
            Self::Containers(_) => Err(cannot_suspend()),
        }
    }

    /// Lets the machine see the new size of a disk, whose file has it already.
    async fn resize(&mut self, disk: &str, bytes: u64) -> Result<(), Failure> {
        match self {
            Self::Vm(vm) => vm.resize(disk, bytes).await,
            Self::Firecracker(_) => {
                Err("this version does not tell Firecracker of new sizes; restart it".into())
            }
            // The guest's side looks at the file itself.
            Self::Containers(_) => Ok(()),
        }
    }

    /// Takes the body away. `exited`: the guest has said that it is done. Returns the end of what
    /// it told outside the protocol, for people who look for a reason.
    async fn finish(self, exited: bool) -> String {
        match self {
            Self::Vm(vm) => vm.finish(exited).await,
            Self::Firecracker(vm) => vm.finish(exited).await,
            Self::Containers(containers) => {
                containers.finish().await;
                String::new()
            }
        }
    }
}

fn cannot_suspend() -> Failure {
    let class = IsolationClass::Container;
    VmmError::CannotSuspend { class }.into()
}

/// The way to the guest.
pub(super) enum Transport {
    /// Can be had once.
    Pair(Option<UnixStream>),
    Socket(PathBuf),
    /// Nobody may listen yet.
    Vsock(Vsock),
}

impl Transport {
    /// Waits until the guest can be reached, for as long as that takes. May be dropped.
    async fn connect(&mut self) -> Result<UnixStream, Failure> {
        match self {
            Self::Pair(stream) => Ok(stream.take().ok_or("the guest was reached already")?),
            Self::Socket(path) => {
                let stream = through_dir(path, std::os::unix::net::UnixStream::connect)?;
                stream.set_nonblocking(true)?;
                Ok(UnixStream::from_std(stream)?)
            }
            Self::Vsock(vsock) => Ok(vsock.connect().await),
        }
    }
}

/// How a boot ended.
enum End {
    Exited(ExitEvent),
    Failed(String),
    Suspended,
}

impl End {
    fn with_last_words(self, words: &str) -> Self {
        match self {
            Self::Failed(reason) if !words.is_empty() => {
                Self::Failed(format!("{reason}; its console ends with: {words}"))
            }
            Self::Failed(_) | Self::Exited(_) | Self::Suspended => self,
        }
    }
}

pub(super) async fn run(
    dir: &BootDir,
    paths: &Paths,
    mut spec: ShimSpec,
    ahead: Option<Ahead>,
    reports: ReportLog,
    listener: UnixListener,
) {
    let boot = &spec.boot;
    info!(machine = %boot.machine, boot = boot.boot.0, resume = boot.resume, "boot begins");
    let logs = paths.logs(&boot.machine);
    let spool = Spool::new(logs.clone(), boot.boot, FILE_BYTES_MAX);
    let (messages, outgoing) = mpsc::channel(MESSAGES_MAX);
    let (suspends, suspend_requests) = mpsc::channel(MESSAGES_MAX);
    let (resizes, resize_requests) = mpsc::channel(MESSAGES_MAX);
    let (connected, guest) = watch::channel(None);
    let (over, is_over) = watch::channel(false);
    let server = Server {
        guest,
        reports: reports.subscribe(),
        suspends,
        resizes,
        messages,
        class: boot.isolation,
        containers: boot
            .spec
            .containers
            .iter()
            .map(|c| c.name.clone())
            .collect(),
        logs,
        written: spool.subscribe(),
        over: is_over,
    };
    let (open, mut all_closed) = mpsc::channel(1);
    let accepting = tokio::spawn(server.run(listener, open));
    let deadline = Instant::now() + spec.boot.boot_timeout;
    let mut record = Record { reports, spool };
    let started = start(dir, paths, &mut spec, ahead, deadline).await;
    let end = match started {
        Err(reason) => End::Failed(reason),
        Ok((mut body, transport, _volumes)) => {
            let mut follower = Follower {
                spec: &spec,
                paths,
                record: &mut record,
                connected: &connected,
                outgoing,
                suspend_requests,
                resize_requests,
                deadline,
            };
            let end = follower.follow(&mut body, transport).await;
            connected.send_replace(None);
            let words = body.finish(matches!(end, End::Exited(_))).await;
            end.with_last_words(&words)
        }
    };
    record.end(end);
    over.send_replace(true);
    accepting.abort();
    let _ = accepting.await;
    let _ = timeout(LEAVE_TIMEOUT, all_closed.recv()).await;
    info!("boot is over");
}

/// Starts the body in time, or says why not. Its volumes are locked until what is returned is
/// dropped. Whoever does not resume a machine that was suspended
/// gives up what was saved, since its disks are made anew.
async fn start(
    dir: &BootDir,
    paths: &Paths,
    spec: &mut ShimSpec,
    ahead: Option<Ahead>,
    deadline: Instant,
) -> Result<(Body, Transport, Vec<Flock<File>>), String> {
    let locked = volumes::lock(&spec.boot.spec.volumes).await;
    let locks = locked.map_err(|error| types::chain(error.as_ref()))?;
    if !spec.boot.resume {
        let discarded = paths.suspended(&spec.boot.machine).discard();
        discarded.map_err(|error| types::chain(&error))?;
    }
    let limit = spec.boot.boot_timeout;
    match timeout_at(deadline, Body::start(dir, paths, spec, ahead)).await {
        Ok(Ok((body, transport))) => Ok((body, transport, locks)),
        Ok(Err(error)) => Err(types::chain(error.as_ref())),
        Err(_) => Err(late(limit)),
    }
}

fn silent() -> String {
    let limit = INTERVAL * SILENT_TICKS_MAX;
    format!("the guest has not answered for {limit:?}")
}

fn late(limit: Duration) -> String {
    format!("the machine was not ready within {limit:?}")
}

/// What is written down.
struct Record {
    reports: ReportLog,
    spool: Spool,
}

impl Record {
    fn report(&mut self, event: ReportEvent) {
        // Without a record the end of this process is what tells: whoever finds no last report
        // adds one.
        if let Err(error) = self.reports.push(event) {
            error!(%error, "cannot write report");
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Exited(exit) => self.report(ReportEvent::Exited { exit }),
            End::Suspended => self.report(ReportEvent::Suspended),
            End::Failed(reason) => {
                warn!(reason, "boot failed");
                self.report(ReportEvent::Failed { reason });
            }
        }
    }
}

/// Listens to a guest.
struct Follower<'a> {
    spec: &'a ShimSpec,
    paths: &'a Paths,
    record: &'a mut Record,
    connected: &'a watch::Sender<Option<Connection>>,
    /// For the guest.
    outgoing: mpsc::Receiver<HostMessage>,
    suspend_requests: mpsc::Receiver<Suspend>,
    resize_requests: mpsc::Receiver<Resize>,
    /// For `Ready`.
    deadline: Instant,
}

/// Why a follower no longer listens.
enum Next {
    Over(End),
    Suspend,
}

impl Follower<'_> {
    async fn follow(&mut self, body: &mut Body, mut transport: Transport) -> End {
        let greeted = tokio::select! {
            greeted = greet(&mut transport, self.spec) => greeted,
            reason = body.lost() => return End::Failed(reason),
            () = sleep_until(self.deadline) => return self.late(),
        };
        let line = match greeted {
            Ok(line) => line,
            Err(error) => return End::Failed(types::chain(error.as_ref())),
        };
        info!("guest is there");
        self.connected.send_replace(Some(line.connection.clone()));
        let mut events = read(line.receiver);
        let next = self.listen(body, line.connection, line.sender, &mut events);
        match next.await {
            Next::Over(end) => end,
            Next::Suspend => self.suspend(body, &line.hang_up, events).await,
        }
    }

    fn late(&self) -> End {
        End::Failed(late(self.spec.boot.boot_timeout))
    }

    /// Why the machine cannot be suspended now, if it cannot.
    fn obstacle(&self, is_ready: bool) -> Option<String> {
        let boot = &self.spec.boot;
        match boot.isolation {
            IsolationClass::Container => Some(cannot_suspend().to_string()),
            IsolationClass::Microvm | IsolationClass::Emulated if !is_ready => {
                Some("the machine is not ready".to_owned())
            }
            IsolationClass::Microvm | IsolationClass::Emulated => {
                let suspended = self.paths.suspended(&boot.machine);
                suspended.obstacle(boot.guest.memory_mb)
            }
        }
    }

    /// Tells the body of a disk's new size.
    async fn resize(&self, body: &mut Body, resize: Resize) {
        let Resize {
            volume,
            bytes,
            answer,
        } = resize;
        let mut volumes = self.spec.boot.spec.volumes.iter();
        let resized = match volumes.find(|known| known.name == volume) {
            Some(known) => body.resize(&known.disk, bytes).await,
            None => Err(format!("the machine has no volume {volume}").into()),
        };
        // Whoever asked may have gone.
        let _ = answer.send(resized.map_err(|error| types::chain(error.as_ref())));
    }

    /// Saves the machine. What it said before it stood still is written down; that its host is gone
    /// it learns when it goes on.
    async fn suspend(
        &mut self,
        body: &mut Body,
        hang_up: &HangUp,
        mut events: mpsc::Receiver<FromGuest>,
    ) -> End {
        self.connected.send_replace(None);
        let failed = |error: Failure| {
            let reason = types::chain(error.as_ref());
            End::Failed(format!("the machine could not be suspended: {reason}"))
        };
        if let Err(error) = body.pause().await {
            return failed(error);
        }
        let mut patience = QUIET;
        loop {
            match timeout(patience, events.recv()).await {
                Ok(Some(FromGuest::Log(chunk))) => self.log(&chunk),
                Ok(Some(FromGuest::Message(message))) => {
                    if let Some(end) = self.message(message) {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(_) if patience == QUIET => {
                    hang_up.now();
                    patience = LAST_WORDS_TIMEOUT;
                }
                Err(_) => break,
            }
        }
        match body.save(self.paths, &self.spec.boot).await {
            Ok(()) => End::Suspended,
            Err(error) => failed(error),
        }
    }

    async fn listen(
        &mut self,
        body: &mut Body,
        connection: Connection,
        mut sender: ControlSender,
        events: &mut mpsc::Receiver<FromGuest>,
    ) -> Next {
        let mut is_ready = false;
        let mut watchdog = Watchdog::new(Instant::now());
        let mut questions = JoinSet::new();
        let mut lost: Option<(String, Instant)> = None;
        loop {
            let lost_until = lost.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(FromGuest::Log(chunk)) => self.log(&chunk),
                    Some(FromGuest::Message(message)) => {
                        watchdog.heard();
                        is_ready |= matches!(message, GuestMessage::Ready);
                        if let Some(end) = self.message(message) {
                            return Next::Over(end);
                        }
                    }
                    None => {
                        return Next::Over(End::Failed(match lost {
                            Some((reason, _)) => reason,
                            None => why_silent(body).await,
                        }));
                    }
                },
                Some(message) = self.outgoing.recv() => pass_on(&mut sender, &message).await,
                Some(answer) = self.suspend_requests.recv() => match self.obstacle(is_ready) {
                    // Whoever asked may have gone.
                    Some(reason) => drop(answer.send(Err(reason))),
                    None => {
                        let _ = answer.send(Ok(()));
                        return Next::Suspend;
                    }
                },
                Some(resize) = self.resize_requests.recv() => self.resize(body, resize).await,
                reason = body.lost(), if lost.is_none() => {
                    lost = Some((reason, Instant::now() + LAST_WORDS_TIMEOUT));
                }
                () = sleep_until(lost_until.unwrap_or(self.deadline)), if lost_until.is_some() => {
                    let reason = lost.map(|(reason, _)| reason).unwrap_or_default();
                    return Next::Over(End::Failed(reason));
                }
                () = sleep_until(self.deadline), if !is_ready => return Next::Over(self.late()),
                // That no question can be asked is no sign of death: another branch hears of that.
                Some(_) = questions.join_next() => watchdog.answered(),
                () = sleep_until(watchdog.due()), if is_ready => {
                    match watchdog.tick(Instant::now()) {
                        Step::Ask => {
                            let connection = connection.clone();
                            questions.spawn(async move { connection.answers().await });
                        }
                        Step::Wait => debug!("guest has not answered yet"),
                        Step::GiveUp => return Next::Over(End::Failed(silent())),
                    }
                }
            }
        }
    }

    /// Whether the container is one of this machine's; a guest may say anything.
    fn knows(&self, container: &str) -> bool {
        let mut containers = self.spec.boot.spec.containers.iter();
        containers.any(|known| known.name == container)
    }

    fn log(&mut self, chunk: &types::guest::LogChunk) {
        if self.knows(&chunk.container)
            && let Err(error) = self.record.spool.append(chunk)
        {
            warn!(%error, container = chunk.container, "log line lost");
        }
    }

    fn message(&mut self, message: GuestMessage) -> Option<End> {
        match message {
            GuestMessage::Hello { .. } => None,
            GuestMessage::Refused { reason } => Some(End::Failed(reason)),
            GuestMessage::Ready => {
                info!("ready");
                self.record.report(ReportEvent::Ready);
                None
            }
            GuestMessage::Container(report) => {
                if !self.knows(&report.container) {
                    return None;
                }
                if matches!(report.state, ContainerReportState::Started { .. }) {
                    info!(container = report.container, "container started");
                    if let Err(error) = self.record.spool.begin(&report.container, report.run) {
                        warn!(%error, "cannot begin log");
                    }
                }
                self.record.report(ReportEvent::Container(report));
                None
            }
            GuestMessage::Health(report) => {
                self.record.report(ReportEvent::Health(report));
                None
            }
            GuestMessage::Exited { exit } => Some(End::Exited(exit)),
        }
    }
}

/// A guest that has said hello.
struct Line {
    connection: Connection,
    hang_up: HangUp,
    sender: ControlSender,
    receiver: ControlReceiver,
}

/// Ends a connection also for those who still use it.
struct HangUp(std::os::unix::net::UnixStream);

impl HangUp {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let copy = stream.as_fd().try_clone_to_owned()?;
        Ok(Self(copy.into()))
    }

    fn now(&self) {
        // It fails if the other side was faster.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Waits for the guest and tells it what it needs to know. May be dropped.
async fn greet(transport: &mut Transport, spec: &ShimSpec) -> Result<Line, Failure> {
    if spec.boot.resume {
        return greet_again(transport).await;
    }
    let stream = transport.connect().await?;
    let hang_up = HangUp::of(&stream)?;
    let connection = Connection::new(stream);
    let (mut sender, receiver) = connection.control().await?;
    let start = HostMessage::Start(Box::new(spec.boot.spec.clone()));
    sender.send(&start).await?;
    Ok(Line {
        connection,
        hang_up,
        sender,
        receiver,
    })
}

/// Waits for a guest that was suspended. It has to notice first that its last connection is gone:
/// if it was too slow for that, it takes the new one for the old, and another one is tried.
async fn greet_again(transport: &mut Transport) -> Result<Line, Failure> {
    let (mut pause, mut patience) = (SETTLE, HELLO_TIMEOUT);
    loop {
        sleep(pause).await;
        let stream = transport.connect().await?;
        let hang_up = HangUp::of(&stream)?;
        let connection = Connection::new(stream);
        let heard = timeout(patience, connection.control_again(resume()?)).await;
        match heard {
            Ok(Ok((sender, receiver))) => {
                return Ok(Line {
                    connection,
                    hang_up,
                    sender,
                    receiver,
                });
            }
            Ok(Err(error)) => debug!(error = types::chain(&error), "guest is not there yet"),
            Err(_) => debug!("guest is silent"),
        }
        hang_up.now();
        pause = (pause * 2).min(SETTLE_MAX);
        patience *= 2;
    }
}

/// What a guest that was suspended cannot know.
fn resume() -> Result<Resume, Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut entropy = [0; ENTROPY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut entropy)?;
    Ok(Resume {
        unix_ms: i64::try_from(now.as_millis())?,
        entropy: base64::engine::general_purpose::STANDARD.encode(entropy),
    })
}

/// Why a guest is no longer heard. That its body has ended may be known a moment later only.
async fn why_silent(body: &mut Body) -> String {
    let silent = |_| "the connection to the guest broke".to_owned();
    timeout(LAST_WORDS_TIMEOUT, body.lost())
        .await
        .unwrap_or_else(silent)
}

/// A task of its own, because the next frame must be read to its end once it has begun.
fn read(mut receiver: ControlReceiver) -> mpsc::Receiver<FromGuest> {
    let (sender, events) = mpsc::channel(GUEST_EVENTS_MAX);
    tokio::spawn(async move {
        loop {
            match receiver.next().await {
                Ok(Some(event)) => {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    warn!(error = types::chain(&error), "guest is not heard");
                    return;
                }
            }
        }
    });
    events
}

async fn pass_on(sender: &mut ControlSender, message: &HostMessage) {
    match timeout(SEND_TIMEOUT, sender.send(message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = types::chain(&error), "message was not passed on"),
        Err(_) => warn!("guest does not take a message"),
    }
}
