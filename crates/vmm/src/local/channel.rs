//! The worker's side of `shim.sock`.

use std::io;
use std::time::Duration;

use guest::wire::host::FromProcess;
use guest::wire::{SMALL_FRAME_BYTES_MAX, WireError, read_frame, write_frame};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use types::MachineId;
use types::api::LogLine;
use types::guest::{ExecEnd, FRAME_BYTES_MAX, Frame, FrameKind};

use crate::paths::BootDir;
use crate::shim::{Answer, REQUEST_BYTES_MAX, Request, through_dir};
use crate::{Input, Io, Output, Report, VmmError};

/// A shim answers at once, unless its host has much to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Pieces of output or input, of up to 32 KiB, between a process and its user.
const PIECES_MAX: usize = 16;
/// Log lines with their headers; the writer cuts them at 64 KiB.
const LINE_BYTES_MAX: usize = 128 << 10;

/// Sends a request. `None` if there is no shim.
pub(super) async fn open(
    machine: &MachineId,
    dir: &BootDir,
    request: &Request,
) -> Result<Option<UnixStream>, VmmError> {
    let channel = |source: io::Error| VmmError::Channel {
        machine: machine.clone(),
        source,
    };
    let connected = through_dir(&dir.socket(), |path| {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
            _ => return Err(channel(error)),
        },
    };
    let frame = Frame::message(request);
    let exchange = async {
        write_frame(&mut stream, &frame).await?;
        read_frame(&mut stream, REQUEST_BYTES_MAX).await
    };
    let answer = match timeout(ANSWER_TIMEOUT, exchange).await {
        Err(_) => return Err(channel(io::ErrorKind::TimedOut.into())),
        // It left between accepting and answering.
        Ok(Ok(None) | Err(WireError::Read { .. } | WireError::Write { .. })) => return Ok(None),
        Ok(Err(error)) => return Err(channel(io::Error::other(error))),
        Ok(Ok(Some(frame))) => frame.parse::<Answer>(),
    };
    match answer.map_err(|error| channel(io::Error::other(error)))? {
        Answer::Ok => Ok(Some(stream)),
        Answer::Refused { reason } => Err(VmmError::Refused {
            machine: machine.clone(),
            reason,
        }),
    }
}

/// The next report; `None` when the shim has left. May be dropped only together with the stream.
pub(super) async fn report(stream: &mut UnixStream) -> Option<Report> {
    let frame = read_frame(stream, REQUEST_BYTES_MAX).await.ok()??;
    frame.parse().ok()
}

/// Asks for one message. `None` if there is no shim.
pub(super) async fn ask<T: DeserializeOwned>(
    machine: &MachineId,
    dir: &BootDir,
    request: &Request,
) -> Result<Option<T>, VmmError> {
    let Some(mut stream) = open(machine, dir, request).await? else {
        return Ok(None);
    };
    let channel = |source: io::Error| VmmError::Channel {
        machine: machine.clone(),
        source,
    };
    let answer = timeout(ANSWER_TIMEOUT, read_frame(&mut stream, FRAME_BYTES_MAX)).await;
    let answer = answer.map_err(|_| channel(io::ErrorKind::TimedOut.into()))?;
    let Some(answer) = answer.map_err(|error| channel(io::Error::other(error)))? else {
        return Ok(None);
    };
    let answer = answer
        .parse()
        .map_err(|error| channel(io::Error::other(error)))?;
    Ok(Some(answer))
}

/// Forwards the lines of a log.
pub(super) async fn lines(mut stream: UnixStream, sender: mpsc::Sender<LogLine>) {
    loop {
        let frame = tokio::select! {
            frame = read_frame(&mut stream, LINE_BYTES_MAX) => frame,
            () = sender.closed() => return,
        };
        let Ok(Some(frame)) = frame else { return };
        let Some(line) = LogLine::decode(&frame.payload) else {
            return;
        };
        if sender.send(line).await.is_err() {
            return;
        }
    }
}

/// Makes channels of an exec or attach stream.
pub(super) fn io(stream: UnixStream) -> Io {
    let (mut reader, mut writer) = stream.into_split();
    let (input, mut inputs) = mpsc::channel(PIECES_MAX);
    let (outputs, output) = mpsc::channel(PIECES_MAX);
    let inward = tokio::spawn(async move {
        while let Some(piece) = inputs.recv().await {
            let frame = match piece {
                Input::Stdin(bytes) => Frame::data(FrameKind::Stdin, bytes),
                Input::CloseStdin => Frame::data(FrameKind::CloseStdin, []),
                Input::Resize(size) => Frame::resize(size),
            };
            if write_frame(&mut writer, &frame).await.is_err() {
                break;
            }
        }
        // Whoever wants no more input may still want the output: keep this half open.
        std::future::pending::<()>().await;
    });
    tokio::spawn(async move {
        let copy = async {
            loop {
                let piece = match read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await {
                    Ok(Some(frame)) => FromProcess::parse(frame),
                    Ok(None) => Err(WireError::Closed),
                    Err(error) => Err(error),
                };
                let piece = match piece {
                    Ok(FromProcess::Stdout(bytes)) => Output::Stdout(bytes),
                    Ok(FromProcess::Stderr(bytes)) => Output::Stderr(bytes),
                    Ok(FromProcess::End(end)) => Output::End(end),
                    Err(error) => Output::End(ExecEnd::Failed {
                        reason: types::chain(&error),
                    }),
                };
                let last = matches!(piece, Output::End(_));
                if outputs.send(piece).await.is_err() || last {
                    return;
                }
            }
        };
        tokio::select! {
            () = copy => {}
            () = outputs.closed() => {}
        }
        inward.abort();
    });
    Io { input, output }
}
