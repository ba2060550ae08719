//! The shim's side of `shim.sock`: one request per connection.
//!
//! A connection begins with a [`Request`]; the answer is an [`Answer`], and if that is `Ok` and
//! the request asks for something that goes on, frames follow. Shims outlive workers and get
//! requests of newer ones: a request that is not understood is refused.

use std::path::PathBuf;
use std::time::Duration;

use guest::signal;
use guest::wire::host::{Connection, FromProcess, Input, Output};
use guest::wire::{SMALL_FRAME_BYTES_MAX, WireError, read_frame, write_frame};
use serde::{Deserialize, Serialize};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;
use types::IsolationClass;
use types::api::LogQuery;
use types::guest::{ExecRequest, Frame, FrameKind, HostMessage};

use crate::Report;
use crate::spool::Reader;

pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time, over all kinds; each is a follower of something or an exec.
const CONNECTIONS_MAX: usize = 256;

/// First frame of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered with reports, as messages.
    Reports { after: u64 },
    Stop {
        signal: Option<String>,
        grace_ms: u64,
    },
    /// Accepted when the machine is about to stand still.
    Suspend,
    /// Answered with the frames of the guest's exec stream.
    Exec(ExecRequest),
    /// Answered with the frames of the guest's attach stream.
    Attach { container: String },
    /// Answered with log frames, each a `LogLine`.
    Logs { container: String, query: LogQuery },
    Signal {
        container: Option<String>,
        signal: String,
    },
    /// Answered with a message: each of the machine's processes.
    Processes,
    /// Answered with a message: what the machine uses.
    Statistics,
    /// Answered with the frames of a process that unpacks its standard input.
    PutFiles { container: String, path: String },
    /// Answered with the frames of a process that packs to its standard output.
    GetFiles { container: String, path: String },
    /// Answered with the frames of a process that says when the volume stands still, and lets it go
    /// on when its standard input is closed.
    FreezeVolume { volume: String },
    /// The volume's file has `bytes` now. Answered with a message, nothing, when the machine's file
    /// system has as well.
    GrowVolume { volume: String, bytes: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Ok,
    Refused { reason: String },
}

/// A suspension that was asked for, and where to say whether it begins.
pub(crate) type Suspend = oneshot::Sender<Result<(), String>>;

/// A disk that is to have another size, and where to say whether it has.
#[derive(Debug)]
pub(crate) struct Resize {
    pub(crate) volume: String,
    pub(crate) bytes: u64,
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// What connections share.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `None` until the body has been started.
    pub(crate) guest: watch::Receiver<Option<Connection>>,
    pub(crate) reports: watch::Receiver<Vec<Report>>,
    pub(crate) suspends: mpsc::Sender<Suspend>,
    pub(crate) resizes: mpsc::Sender<Resize>,
    /// Messages for the guest's control stream.
    pub(crate) messages: mpsc::Sender<HostMessage>,
    pub(crate) class: IsolationClass,
    pub(crate) containers: Vec<String>,
    pub(crate) logs: PathBuf,
    pub(crate) written: watch::Receiver<u64>,
    /// Becomes true when the boot is over and everything was written.
    pub(crate) over: watch::Receiver<bool>,
}

impl Server {
    /// Accepts connections until it is dropped. `open` is held by each of them.
    pub(crate) async fn run(self, listener: UnixListener, open: mpsc::Sender<()>) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // One sender is here and one where all of them are waited for.
            if open.strong_count() > CONNECTIONS_MAX {
                continue;
            }
            let (this, open) = (self.clone(), open.clone());
            tokio::spawn(async move {
                let _open = open;
                // The peer has left; there is nobody to tell.
                let _ = this.answer(stream).await;
            });
        }
    }

    async fn answer(self, stream: UnixStream) -> Result<(), WireError> {
        let (mut reader, mut writer) = stream.into_split();
        let first = read_frame(&mut reader, REQUEST_BYTES_MAX);
        let first = timeout(REQUEST_TIMEOUT, first).await;
        let Some(first) = first.map_err(|_| WireError::Silent)?? else {
            return Ok(());
        };
        let request = match first.parse::<Request>() {
            Ok(request) => request,
            Err(error) => return refuse(&mut writer, error.to_string()).await,
        };
        match request {
            Request::Reports { after } => {
                accept(&mut writer).await?;
                self.reports(&mut reader, &mut writer, after).await
            }
            Request::Stop { signal, grace_ms } => {
                let stop = HostMessage::Stop { signal, grace_ms };
                self.pass_on(&mut writer, stop).await
            }
            Request::Signal { container, signal } => {
                if let Some(reason) = self.wrong_signal(container.as_deref(), &signal) {
                    return refuse(&mut writer, reason).await;
                }
                let signal = HostMessage::Signal { container, signal };
                self.pass_on(&mut writer, signal).await
            }
            Request::Suspend => {
                if self.guest.borrow().is_none() {
                    return refuse(&mut writer, "the machine is not ready".into()).await;
                }
                let (answer, begun) = oneshot::channel();
                // Nobody is there to receive it, or to answer, when the boot is over.
                let _ = self.suspends.send(answer).await;
                match begun.await {
                    Ok(Ok(())) => accept(&mut writer).await,
                    Ok(Err(reason)) => refuse(&mut writer, reason).await,
                    Err(_) => refuse(&mut writer, "the boot is over".into()).await,
                }
            }
            Request::Logs { container, query } => {
                accept(&mut writer).await?;
                self.logs(&mut reader, &mut writer, &container, &query)
                    .await
            }
            Request::Exec(_)
            | Request::Attach { .. }
            | Request::Processes
            | Request::Statistics
            | Request::PutFiles { .. }
            | Request::GetFiles { .. }
            | Request::FreezeVolume { .. }
            | Request::GrowVolume { .. } => {
                let Some(guest) = self.guest.borrow().clone() else {
                    return refuse(&mut writer, "the machine is not ready".into()).await;
                };
                self.ask(guest, request, reader, writer).await
            }
        }
    }

    /// What is answered by the guest.
    async fn ask(
        &self,
        guest: Connection,
        request: Request,
        reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
    ) -> Result<(), WireError> {
        match request {
            Request::Exec(request)
                if request.machine && self.class == IsolationClass::Container =>
            {
                let reason = "a machine of class container has nothing beside its containers; \
                              name one of them";
                refuse(&mut writer, reason.into()).await
            }
            Request::Exec(request) => relay(guest.exec(request).await, reader, writer).await,
            Request::Attach { container } => {
                relay(guest.attach(&container).await, reader, writer).await
            }
            Request::PutFiles { container, path } => {
                relay(guest.put_files(&container, &path).await, reader, writer).await
            }
            Request::GetFiles { container, path } => {
                relay(guest.get_files(&container, &path).await, reader, writer).await
            }
            Request::FreezeVolume { volume } => {
                relay(guest.freeze(&volume).await, reader, writer).await
            }
            Request::GrowVolume { volume, bytes } => {
                match self.resize(volume.clone(), bytes).await {
                    Ok(()) => tell(&mut writer, guest.grow(&volume, bytes).await).await,
                    Err(reason) => refuse(&mut writer, reason).await,
                }
            }
            Request::Processes => tell(&mut writer, guest.processes().await).await,
            Request::Statistics => tell(&mut writer, guest.statistics().await).await,
            Request::Reports { .. }
            | Request::Stop { .. }
            | Request::Signal { .. }
            | Request::Suspend
            | Request::Logs { .. } => refuse(&mut writer, "this is not for the guest".into()).await,
        }
    }

    /// Tells the body of a disk's new size.
    async fn resize(&self, volume: String, bytes: u64) -> Result<(), String> {
        let (answer, done) = oneshot::channel();
        let resize = Resize {
            volume,
            bytes,
            answer,
        };
        // Nobody is there to receive it, or to answer, when the boot is over.
        let _ = self.resizes.send(resize).await;
        let over = |_| Err("the boot is over".to_owned());
        done.await.unwrap_or_else(over)
    }

    async fn pass_on(
        &self,
        writer: &mut OwnedWriteHalf,
        message: HostMessage,
    ) -> Result<(), WireError> {
        match self.messages.send(message).await {
            Ok(()) => accept(writer).await,
            Err(_) => refuse(writer, "the boot is over".into()).await,
        }
    }

    /// Why a signal cannot be sent.
    fn wrong_signal(&self, container: Option<&str>, signal: &str) -> Option<String> {
        if signal::parse(signal).is_none() {
            return Some(format!("`{signal}` is no signal"));
        }
        let container = container?;
        let is_known = self.containers.iter().any(|known| known == container);
        (!is_known).then(|| format!("the machine has no container `{container}`"))
    }

    async fn reports(
        mut self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        mut after: u64,
    ) -> Result<(), WireError> {
        loop {
            let new: Vec<Report> = {
                let all = self.reports.borrow_and_update();
                let known = usize::try_from(after).unwrap_or(usize::MAX);
                all.get(known..).unwrap_or_default().to_vec()
            };
            for report in new {
                after = report.seq;
                write_frame(writer, &Frame::message(&report)).await?;
                if report.event.is_last() {
                    return Ok(());
                }
            }
            tokio::select! {
                changed = self.reports.changed() => if changed.is_err() { return Ok(()) },
                () = gone(reader) => return Ok(()),
            }
        }
    }

    async fn logs(
        mut self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        container: &str,
        query: &LogQuery,
    ) -> Result<(), WireError> {
        let read = |source| WireError::Read { source };
        let mut log = Reader::open(&self.logs, container, query).map_err(read)?;
        loop {
            self.written.mark_unchanged();
            let over = *self.over.borrow();
            let batch = log.next().map_err(read)?;
            for line in &batch.lines {
                write_frame(writer, &Frame::data(FrameKind::Log, line.encode())).await?;
            }
            if !batch.is_end {
                continue;
            }
            if over || !query.follow {
                return Ok(());
            }
            tokio::select! {
                _ = self.written.changed() => {}
                _ = self.over.changed() => {}
                () = gone(reader) => return Ok(()),
            }
        }
    }
}

async fn accept(writer: &mut OwnedWriteHalf) -> Result<(), WireError> {
    write_frame(writer, &Frame::message(&Answer::Ok)).await
}

/// Passes on the guest's answer to a question.
async fn tell<T: Serialize>(
    writer: &mut OwnedWriteHalf,
    answer: Result<T, WireError>,
) -> Result<(), WireError> {
    match answer {
        Ok(answer) => {
            accept(writer).await?;
            write_frame(writer, &Frame::message(&answer)).await
        }
        Err(error) => refuse(writer, types::chain(&error)).await,
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, reason: String) -> Result<(), WireError> {
    write_frame(writer, &Frame::message(&Answer::Refused { reason })).await
}

/// Returns when the peer has closed its side. Nothing is expected from it.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut byte = [0];
    let _ = tokio::io::AsyncReadExt::read(reader, &mut byte).await;
}

/// Carries frames between a worker and a process in the guest until either side ends.
async fn relay(
    streams: Result<(Input, Output), WireError>,
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) -> Result<(), WireError> {
    let (mut input, mut output) = match streams {
        Ok(streams) => streams,
        Err(error) => return refuse(&mut writer, types::chain(&error)).await,
    };
    accept(&mut writer).await?;
    let inward = tokio::spawn(async move {
        while let Ok(Some(frame)) = read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await {
            let sent = match frame.kind {
                FrameKind::Stdin => input.stdin(&frame.payload).await,
                FrameKind::CloseStdin => input.close_stdin().await,
                FrameKind::Resize => match frame.parse() {
                    Ok(size) => input.resize(size).await,
                    Err(_) => break,
                },
                FrameKind::Message | FrameKind::Stdout | FrameKind::Stderr | FrameKind::Log => {
                    break;
                }
            };
            if sent.is_err() {
                // The process no longer reads; its output goes on.
                let () = gone_frames(&mut reader).await;
                break;
            }
        }
        input.hang_up().await;
    });
    while let Some(piece) = output.next().await? {
        let (frame, last) = match piece {
            FromProcess::Stdout(bytes) => (Frame::data(FrameKind::Stdout, bytes), false),
            FromProcess::Stderr(bytes) => (Frame::data(FrameKind::Stderr, bytes), false),
            FromProcess::End(end) => (Frame::message(&end), true),
        };
        write_frame(&mut writer, &frame).await?;
        if last {
            break;
        }
    }
    inward.abort();
    Ok(())
}

/// Reads and forgets until the peer has closed its side.
async fn gone_frames(reader: &mut OwnedReadHalf) {
    while let Ok(Some(_)) = read_frame(reader, SMALL_FRAME_BYTES_MAX).await {}
}
