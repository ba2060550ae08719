//! One boot, from the start of its body to its last report.
//!
//! The class-specific part is behind [`Body`]; what follows is the same for all of them: talk to
//! the guest, write down what it says, pass stops on, and put an end to it in time.

use std::time::Duration;

use guest::wire::host::{Connection, ControlReceiver, ControlSender, FromGuest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};
use types::IsolationClass;
use types::guest::{ContainerReportState, GuestMessage, HostMessage};
use types::machine::ExitEvent;

use super::server::{Server, Stop};
use super::{Failure, ShimSpec};
use crate::ReportEvent;
use crate::container::Containers;
use crate::paths::{BootDir, Paths};
use crate::qemu::Vm;
use crate::report_log::ReportLog;
use crate::spool::{FILE_BYTES_MAX, Spool};

/// Messages and log chunks between the task that reads and the one that writes them down.
const GUEST_EVENTS_MAX: usize = 64;
/// Stops that wait to be passed on: the worker sends one, and perhaps a shorter one.
const STOPS_MAX: usize = 4;
/// A guest that reads takes a message at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// From the loss of the body to the end of what it said before.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connections may take to get the last lines and reports.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What runs the containers.
pub(super) enum Body {
    Vm(Vm),
    Containers(Containers),
}

impl Body {
    /// Starts the body and returns its end of the guest protocol's transport.
    async fn start(
        dir: &BootDir,
        paths: &Paths,
        spec: &mut ShimSpec,
    ) -> Result<(Self, Transport), Failure> {
        match spec.boot.isolation {
            IsolationClass::Microvm | IsolationClass::Emulated => {
                let (vm, stream) = Vm::start(paths, spec)?;
                Ok((Self::Vm(vm), Transport::Connected(stream)))
            }
            IsolationClass::Container => {
                let (containers, stream) = Containers::start(dir, paths, spec)?;
                Ok((Self::Containers(containers), Transport::Connected(stream)))
            }
        }
    }

    /// Returns, with the reason, when the body has ended by itself. May be dropped.
    async fn lost(&mut self) -> String {
        match self {
            Self::Vm(vm) => vm.lost().await,
            Self::Containers(containers) => containers.lost().await,
        }
    }

    /// Takes the body away. `exited`: the guest has said that it is done. Returns the end of what
    /// it told outside the protocol, for people who look for a reason.
    async fn finish(self, exited: bool) -> String {
        match self {
            Self::Vm(vm) => vm.finish(exited).await,
            Self::Containers(containers) => {
                containers.finish().await;
                String::new()
            }
        }
    }
}

/// The way to the guest.
pub(super) enum Transport {
    Connected(UnixStream),
}

impl Transport {
    /// Waits until the guest can be reached, for as long as that takes. May be dropped.
    async fn connect(self) -> Result<UnixStream, Failure> {
        match self {
            Self::Connected(stream) => Ok(stream),
        }
    }
}

/// How a boot ended.
enum End {
    Exited(ExitEvent),
    Failed(String),
}

impl End {
    fn with_last_words(self, words: &str) -> Self {
        match self {
            Self::Failed(reason) if !words.is_empty() => {
                Self::Failed(format!("{reason}; its console ends with: {words}"))
            }
            Self::Failed(_) | Self::Exited(_) => self,
        }
    }
}

pub(super) async fn run(
    dir: &BootDir,
    paths: &Paths,
    mut spec: ShimSpec,
    reports: ReportLog,
    listener: UnixListener,
) {
    let boot = &spec.boot;
    info!(machine = %boot.machine, boot = boot.boot.0, "boot begins");
    let logs = paths.logs(&boot.machine);
    let spool = Spool::new(logs.clone(), boot.boot, FILE_BYTES_MAX);
    let (stops, stop_requests) = mpsc::channel(STOPS_MAX);
    let (connected, guest) = watch::channel(None);
    let (over, is_over) = watch::channel(false);
    let server = Server {
        guest,
        reports: reports.subscribe(),
        stops,
        logs,
        written: spool.subscribe(),
        over: is_over,
    };
    let (open, mut all_closed) = mpsc::channel(1);
    let accepting = tokio::spawn(server.run(listener, open));
    let deadline = Instant::now() + spec.boot.boot_timeout;
    let mut record = Record { reports, spool };
    let started = Body::start(dir, paths, &mut spec).await;
    let end = match started {
        Err(error) => End::Failed(types::chain(error.as_ref())),
        Ok((mut body, transport)) => {
            let mut follower = Follower {
                spec: &spec,
                record: &mut record,
                stop_requests,
                deadline,
            };
            let end = match follower.reach(&mut body, transport).await {
                Err(end) => end,
                Ok(stream) => {
                    let connection = Connection::new(stream);
                    connected.send_replace(Some(connection.clone()));
                    let end = follower.follow(&mut body, &connection).await;
                    connected.send_replace(None);
                    end
                }
            };
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
    record: &'a mut Record,
    stop_requests: mpsc::Receiver<Stop>,
    /// For `Ready`.
    deadline: Instant,
}

impl Follower<'_> {
    async fn reach(&self, body: &mut Body, transport: Transport) -> Result<UnixStream, End> {
        tokio::select! {
            stream = transport.connect() => {
                stream.map_err(|error| End::Failed(types::chain(error.as_ref())))
            }
            reason = body.lost() => Err(End::Failed(reason)),
            () = sleep_until(self.deadline) => Err(self.late()),
        }
    }

    async fn follow(&mut self, body: &mut Body, connection: &Connection) -> End {
        let greeting = async {
            let (mut sender, receiver) = connection.control().await?;
            let start = HostMessage::Start(Box::new(self.spec.boot.spec.clone()));
            sender.send(&start).await?;
            Ok::<_, guest::wire::WireError>((sender, receiver))
        };
        let greeted = tokio::select! {
            greeted = greeting => greeted,
            reason = body.lost() => return End::Failed(reason),
            () = sleep_until(self.deadline) => return self.late(),
        };
        match greeted {
            Ok((sender, receiver)) => {
                let events = read(receiver);
                self.listen(body, sender, events).await
            }
            Err(error) => End::Failed(types::chain(&error)),
        }
    }

    fn late(&self) -> End {
        let limit = self.spec.boot.boot_timeout;
        End::Failed(format!("the machine was not ready within {limit:?}"))
    }

    async fn listen(
        &mut self,
        body: &mut Body,
        mut sender: ControlSender,
        mut events: mpsc::Receiver<FromGuest>,
    ) -> End {
        let mut is_ready = false;
        let mut lost: Option<(String, Instant)> = None;
        loop {
            let lost_until = lost.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(FromGuest::Log(chunk)) => self.log(&chunk),
                    Some(FromGuest::Message(message)) => {
                        is_ready |= matches!(message, GuestMessage::Ready);
                        if let Some(end) = self.message(message) {
                            return end;
                        }
                    }
                    None => {
                        return End::Failed(match lost {
                            Some((reason, _)) => reason,
                            None => why_silent(body).await,
                        });
                    }
                },
                Some(stop) = self.stop_requests.recv() => pass_on(&mut sender, stop).await,
                reason = body.lost(), if lost.is_none() => {
                    lost = Some((reason, Instant::now() + LAST_WORDS_TIMEOUT));
                }
                () = sleep_until(lost_until.unwrap_or(self.deadline)), if lost_until.is_some() => {
                    let reason = lost.map(|(reason, _)| reason).unwrap_or_default();
                    return End::Failed(reason);
                }
                () = sleep_until(self.deadline), if !is_ready => return self.late(),
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
                if matches!(report.state, ContainerReportState::Started { .. })
                    && let Err(error) = self.record.spool.begin(&report.container, report.run)
                {
                    warn!(%error, "cannot begin log");
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

async fn pass_on(sender: &mut ControlSender, stop: Stop) {
    let Stop { signal, grace_ms } = stop;
    let message = HostMessage::Stop { signal, grace_ms };
    match timeout(SEND_TIMEOUT, sender.send(&message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = types::chain(&error), "stop was not passed on"),
        Err(_) => warn!("guest does not take a stop"),
    }
}
