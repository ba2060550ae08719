//! The guest's end of the protocol: control, exec and attach streams for one machine.
//!
//! A [`Guest`] outlives its connections: after a restore from a snapshot the next one goes on
//! where the last one broke off, and begins with the state of everything.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;
use types::guest::{
    FRAME_BYTES_MAX, Frame, FrameKind, GuestMessage, HostMessage, MachineSpec, Open, Resume,
    VERSION,
};
use types::machine::ExitEvent;

use crate::driver::{self, Outgoing, Request, Running, blocking};
use crate::reaper::Reaper;
use crate::runtime::{Alive, Runtime, RuntimeError};
use crate::supervisor::{Event, Machine};
use crate::wire::{
    Accepted, Acceptor, SMALL_FRAME_BYTES_MAX, Stream, WireError, read_frame, version_is_supported,
    write_frame,
};
use crate::{copy, inspect, session, signal, volume};

/// Frames that wait for the host: with 32 KiB of log in each, 4 MiB.
const OUTBOX_FRAMES_MAX: usize = 128;

/// For a host that opened a stream and is slow to say what for, or whose last connection still
/// holds the control stream, or which has the exit and does not hang up.
const PATIENCE: Duration = Duration::from_secs(5);

const NOT_STARTED: &str = "the machine has not started";

/// How a connection ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The machine's last container has ended and the host was told.
    Exited(ExitEvent),
    /// The machine goes on; serve the next connection.
    Disconnected,
}

/// One machine, from before its start to its exit. Clones share it.
#[derive(Debug)]
pub struct Guest<R> {
    inner: Arc<Inner<R>>,
}

#[derive(Debug)]
struct Inner<R> {
    runtime: Arc<R>,
    reaper: Reaper,
    running: OnceLock<Arc<Running>>,
    outbox: mpsc::Sender<Outgoing>,
    /// Held by the control stream.
    outgoing: Mutex<Outbox>,
    told: watch::Sender<Option<ExitEvent>>,
}

/// The receiving end of the queue to the host.
#[derive(Debug)]
struct Outbox {
    queue: mpsc::Receiver<Outgoing>,
    /// Taken from the queue and not known to be written.
    unsent: Option<Outgoing>,
}

impl Outbox {
    /// The next that is to be sent; it stays here. May be dropped.
    async fn next(&mut self) -> Option<&Outgoing> {
        if self.unsent.is_none() {
            self.unsent = self.queue.recv().await;
        }
        self.unsent.as_ref()
    }
}

impl<R> Clone for Guest<R> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

impl<R: Runtime> Guest<R> {
    pub fn new(runtime: R, reaper: Reaper) -> Self {
        let (outbox, queue) = mpsc::channel(OUTBOX_FRAMES_MAX);
        let outgoing = Mutex::new(Outbox {
            queue,
            unsent: None,
        });
        let (told, _) = watch::channel(None);
        let inner = Arc::new(Inner {
            runtime: Arc::new(runtime),
            reaper,
            running: OnceLock::new(),
            outbox,
            outgoing,
            told,
        });
        Self { inner }
    }

    /// Serves one connection to its end.
    pub async fn serve<S>(&self, transport: S) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut acceptor = Acceptor::new(transport);
        let mut told = self.inner.told.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.next() => accepted,
                exit = exit_of(&mut told) => {
                    // The host has it when it hangs up.
                    let _ = timeout(PATIENCE, hung_up(&mut acceptor)).await;
                    acceptor.close().await;
                    return Ended::Exited(exit);
                }
            };
            match accepted {
                Accepted::Stream(stream) => {
                    let this = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = this.stream(stream).await {
                            tracing::warn!(
                                error = types::chain(&error),
                                "stream of the host failed"
                            );
                        }
                    });
                }
                Accepted::Closed(error) => {
                    if let Some(error) = error {
                        tracing::warn!(%error, "connection to the host failed");
                    }
                    // It may have hung up because it was told.
                    let exit = told.borrow().clone();
                    return exit.map_or(Ended::Disconnected, Ended::Exited);
                }
            }
        }
    }

    async fn stream(&self, stream: Stream) -> Result<(), WireError> {
        let (mut reader, writer) = tokio::io::split(stream);
        let open = timeout(PATIENCE, read_frame(&mut reader, SMALL_FRAME_BYTES_MAX));
        let Some(open) = open.await.map_err(|_| WireError::Silent)?? else {
            return Ok(());
        };
        match parse(&open)? {
            Open::Control { version, resume } => {
                self.control(reader, writer, version, resume).await
            }
            Open::Exec(request) => {
                let running = self.inner.running.get();
                let started =
                    session::start(running, &self.inner.runtime, &self.inner.reaper, request);
                session::exec(reader, writer, started.await).await
            }
            Open::Attach { container } => {
                let live = session::live(self.inner.running.get(), &container);
                session::attach(reader, writer, live).await
            }
            Open::PutFiles { container, path } => {
                let target = self.place(&container, path).await;
                copy::put(reader, writer, target).await
            }
            Open::GetFiles { container, path } => {
                let source = self.place(&container, path).await;
                copy::get(reader, writer, source).await
            }
            Open::Processes => {
                let list = |runtime: &R, alive: &[Alive]| runtime.processes(alive);
                let all = self.ask("list processes", list).await;
                answer(writer, &all.map(inspect::fit)).await
            }
            Open::Statistics => {
                let count = |runtime: &R, alive: &[Alive]| runtime.statistics(alive);
                answer(writer, &self.ask("read statistics", count).await).await
            }
            Open::Freeze { volume: name } => {
                let find = move |runtime: &R, _: &[Alive]| runtime.volume(&name);
                let directory = self.ask("find the volume", find).await;
                volume::freeze(reader, writer, directory).await
            }
            Open::Grow {
                volume: name,
                bytes,
            } => {
                let grow = move |runtime: &R, _: &[Alive]| {
                    let directory = runtime.volume(&name)?;
                    let grown = volume::grow(&directory, bytes);
                    grown.map_err(|source| RuntimeError::new("let the volume grow", source))
                };
                answer(writer, &self.ask("let the volume grow", grow).await).await
            }
        }
    }

    /// Asks the runtime about a machine that was started.
    async fn ask<T, F>(&self, doing: &'static str, question: F) -> Result<T, String>
    where
        T: Send + 'static,
        F: FnOnce(&R, &[Alive]) -> Result<T, RuntimeError> + Send + 'static,
    {
        let running = self.inner.running.get().ok_or(NOT_STARTED)?;
        let (runtime, alive) = (self.inner.runtime.clone(), running.alive());
        let answer = blocking(doing, move || question(&runtime, &alive)).await;
        answer.map_err(|error| error.reason())
    }

    /// A path in a container, for copies.
    async fn place(&self, container: &str, path: String) -> Result<copy::Place, String> {
        let running = self.inner.running.get().ok_or(NOT_STARTED)?;
        let found = running.container(container);
        let (spec, _) = found.ok_or_else(|| session::no_container(container))?;
        let (runtime, spec) = (self.inner.runtime.clone(), spec.clone());
        let place = blocking("find the container's files", move || {
            copy::Place::find(runtime.root(&spec)?, &spec.user, path)
        });
        place.await.map_err(|error| error.reason())
    }

    async fn control(
        &self,
        reader: ReadHalf<Stream>,
        mut writer: WriteHalf<Stream>,
        version: u16,
        resume: Option<Resume>,
    ) -> Result<(), WireError> {
        let outbox = timeout(PATIENCE, self.inner.outgoing.lock());
        let mut outbox = outbox.await.map_err(|_| WireError::Busy)?;
        send(&mut writer, &GuestMessage::Hello { version: VERSION }).await?;
        if !version_is_supported(version) {
            let error = WireError::Version { version };
            let reason = error.to_string();
            send(&mut writer, &GuestMessage::Refused { reason }).await?;
            return Err(error);
        }
        if let Some(resume) = resume
            && let Err(reason) = self.resume(resume).await
        {
            return send(&mut writer, &GuestMessage::Refused { reason }).await;
        }
        if let Some(running) = self.inner.running.get() {
            // The machine's task lives as long as `running`.
            let _ = running.requests.send(Request::Resend).await;
        }
        let this = self.clone();
        let mut listening = tokio::spawn(async move { this.listen(reader).await });
        loop {
            let next = tokio::select! {
                next = outbox.next() => next,
                heard = &mut listening => return heard.unwrap_or(Err(WireError::Closed)),
            };
            match next {
                None => return Ok(()),
                Some(Outgoing::Frame(frame)) => write_frame(&mut writer, frame).await?,
                Some(Outgoing::Exited(exit)) => {
                    let exit = exit.clone();
                    send(&mut writer, &GuestMessage::Exited { exit: exit.clone() }).await?;
                    let closed = writer.shutdown().await;
                    closed.map_err(|source| WireError::Write { source })?;
                    self.inner.told.send_replace(Some(exit));
                    return Ok(());
                }
            }
            outbox.unsent = None;
        }
    }

    /// Hears the host out.
    async fn listen(&self, mut reader: ReadHalf<Stream>) -> Result<(), WireError> {
        while let Some(frame) = read_frame(&mut reader, FRAME_BYTES_MAX).await? {
            match parse(&frame)? {
                HostMessage::Start(spec) => {
                    if let Err(reason) = self.start(*spec).await {
                        let refused = Frame::message(&GuestMessage::Refused { reason });
                        // The other end lives as long as this guest.
                        let _ = self.inner.outbox.send(Outgoing::Frame(refused)).await;
                    }
                }
                HostMessage::Stop { signal, grace_ms } => self.stop(signal, grace_ms).await,
                HostMessage::Signal { container, signal } => {
                    self.signal(container.as_deref(), &signal).await;
                }
            }
        }
        Ok(())
    }

    async fn start(&self, spec: MachineSpec) -> Result<(), String> {
        if self.inner.running.get().is_some() {
            return Err("the machine was started already".to_owned());
        }
        let machine = Machine::new(&spec).map_err(|refused| refused.to_string())?;
        let runtime = self.inner.runtime.clone();
        let spec = blocking("prepare the machine", move || {
            runtime.prepare(&spec)?;
            Ok(spec)
        });
        let spec = spec.await.map_err(|error| error.reason())?;
        let (runtime, reaper) = (self.inner.runtime.clone(), self.inner.reaper.clone());
        let outbox = self.inner.outbox.clone();
        self.inner
            .running
            .get_or_init(|| driver::start(machine, spec, runtime, reaper, outbox));
        Ok(())
    }

    async fn resume(&self, resume: Resume) -> Result<(), String> {
        if self.inner.running.get().is_none() {
            return Err(NOT_STARTED.to_owned());
        }
        let entropy = STANDARD.decode(&resume.entropy);
        let entropy = entropy.map_err(|error| format!("the entropy is not base64: {error}"))?;
        let runtime = self.inner.runtime.clone();
        let resumed = blocking("resume", move || runtime.resume(resume.unix_ms, &entropy));
        resumed.await.map_err(|error| error.reason())
    }

    /// The host has checked both names; what is wrong all the same is logged.
    async fn signal(&self, container: Option<&str>, signal: &str) {
        let (Some(running), Some(number)) = (self.inner.running.get(), signal::parse(signal))
        else {
            tracing::warn!(signal, "signal is unknown, or the machine was not started");
            return;
        };
        let (alive, spec) = (running.alive(), &running.spec);
        let wanted = |name: &str| container.is_none_or(|container| container == name);
        for Alive { container, main } in alive.iter().filter(|one| wanted(&one.container)) {
            let spec = spec.containers.iter().find(|spec| spec.name == *container);
            let Some(spec) = spec.cloned() else { continue };
            let (runtime, main) = (self.inner.runtime.clone(), *main);
            let sent = blocking("send a signal", move || runtime.signal(&spec, main, number));
            if let Err(error) = sent.await {
                tracing::warn!(error = error.reason(), "container was not signalled");
            }
        }
    }

    async fn stop(&self, signal: Option<String>, grace_ms: u64) {
        let Some(running) = self.inner.running.get() else {
            tracing::warn!("stop of a machine that was not started");
            return;
        };
        let number = signal.as_deref().map(signal::parse);
        if number == Some(None) {
            tracing::warn!(signal, "unknown signal; using each container's own");
        }
        let event = Event::Stop {
            signal: number.flatten(),
            grace: Duration::from_millis(grace_ms),
        };
        // The machine's task lives as long as `running`.
        let _ = running.requests.send(Request::Event(event)).await;
    }
}

/// Waits for the end of the connection; new streams are dropped.
async fn hung_up<T: AsyncRead + AsyncWrite + Unpin>(acceptor: &mut Acceptor<T>) {
    while let Accepted::Stream(stream) = acceptor.next().await {
        drop(stream);
    }
}

/// Waits until the host has been told.
async fn exit_of(told: &mut watch::Receiver<Option<ExitEvent>>) -> ExitEvent {
    if let Ok(Some(exit)) = told.wait_for(Option::is_some).await.as_deref() {
        return exit.clone();
    }
    // The guest is gone, and so is whoever waits here.
    std::future::pending().await
}

fn parse<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, WireError> {
    let malformed = |source| WireError::Malformed { source };
    match frame.kind {
        FrameKind::Message => frame.parse().map_err(malformed),
        kind @ (FrameKind::Stdin
        | FrameKind::Stdout
        | FrameKind::Stderr
        | FrameKind::CloseStdin
        | FrameKind::Resize
        | FrameKind::Log) => Err(WireError::Unexpected { kind }),
    }
}

fn send<'a>(
    writer: &'a mut WriteHalf<Stream>,
    message: &GuestMessage,
) -> impl Future<Output = Result<(), WireError>> + use<'a> {
    let frame = Frame::message(message);
    async move { write_frame(writer, &frame).await }
}

/// Answers a question, and closes the stream.
async fn answer<T: Serialize>(
    mut writer: WriteHalf<Stream>,
    answer: &Result<T, String>,
) -> Result<(), WireError> {
    write_frame(&mut writer, &Frame::message(answer)).await?;
    let closed = writer.shutdown().await;
    closed.map_err(|source| WireError::Write { source })
}
