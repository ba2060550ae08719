//! Exec and attach: one stream of the host, connected to a process.

use std::sync::Arc;

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use types::guest::{ExecEnd, ExecRequest, Frame, FrameKind};

use crate::driver::{Live, Piece, Running, blocking};
use crate::output::pump;
use crate::process::{self, Inlet, Outputs};
use crate::reaper::{Exit, Reaper};
use crate::runtime::{Process, Runtime, RuntimeError};
use crate::signal;
use crate::wire::{SMALL_FRAME_BYTES_MAX, Stream, WireError, read_frame, write_frame};

/// Frames of output that wait for the host; the process waits behind them.
const FRAMES_MAX: usize = 4;

const SIGKILL: i32 = 9;

/// A process beside a container's own, and its streams.
pub(crate) struct Started {
    pub(crate) exit: Exit,
    inlet: Inlet,
    pub(crate) outputs: Outputs,
}

/// The run of a container that is under way.
///
/// # Errors
/// Why there is none, for the host.
pub(crate) fn live(running: Option<&Arc<Running>>, container: &str) -> Result<Live, String> {
    let running = running.ok_or("the machine has not started")?;
    match running.container(container) {
        None => Err(no_container(container)),
        Some((_, None)) => {
            let others = running.alive();
            let others: Vec<&str> = others.iter().map(|one| one.container.as_str()).collect();
            Err(not_running(container, &others))
        }
        Some((_, Some(live))) => Ok(live),
    }
}

/// Whoever named none meant the first, which may have been there to prepare the others.
fn not_running(container: &str, others: &[&str]) -> String {
    match others {
        [] => format!("container `{container}` is not running"),
        others => format!(
            "container `{container}` is not running; those that run are {}",
            others.join(", ")
        ),
    }
}

pub(crate) fn no_container(name: &str) -> String {
    format!("the machine has no container `{name}`")
}

/// Starts what an exec asks for.
///
/// # Errors
/// Why it does not run, for the host.
pub(crate) async fn start<R: Runtime>(
    running: Option<&Arc<Running>>,
    runtime: &Arc<R>,
    reaper: &Reaper,
    request: ExecRequest,
) -> Result<Started, String> {
    if request.command.is_empty() {
        return Err("there is no command to run".to_owned());
    }
    let container = if request.machine {
        None
    } else {
        let main = live(running, &request.container)?.pid;
        let found = running.and_then(|running| running.container(&request.container));
        let (spec, _) = found.ok_or_else(|| no_container(&request.container))?;
        Some((spec.clone(), main))
    };
    let stdin = request.stdin;
    let (runtime, reaper) = (runtime.clone(), reaper.clone());
    let process = blocking("start process", move || match container {
        Some((spec, main)) => runtime.exec(&reaper, &spec, main, &request),
        None => runtime.exec_beside(&reaper, &request),
    });
    let Process { pid, exit, io } = process.await.map_err(|error| error.reason())?;
    let (inlet, outputs) = process::open(io, stdin).map_err(|source| {
        kill_session(pid);
        RuntimeError::new("read the process's output", source).reason()
    })?;
    Ok(Started {
        exit,
        inlet,
        outputs,
    })
}

/// Connects a process to the host's stream until it ends; kills it if the host hangs up.
pub(crate) async fn exec(
    reader: ReadHalf<Stream>,
    mut writer: WriteHalf<Stream>,
    started: Result<Started, String>,
) -> Result<(), WireError> {
    let Started {
        mut exit,
        inlet,
        outputs,
    } = match started {
        Ok(started) => started,
        Err(reason) => return finish(writer, ExecEnd::Failed { reason }).await,
    };
    let pid = exit.pid();
    let over = CancellationToken::new();
    let (frames, mut queue) = mpsc::channel(FRAMES_MAX);
    for (kind, fd) in outputs {
        let frames = frames.clone();
        tokio::spawn(pump(fd, over.clone(), move |bytes| {
            let frames = frames.clone();
            async move { frames.send(Frame::data(kind, bytes)).await.is_ok() }
        }));
    }
    drop(frames);
    let mut input = tokio::spawn(take_input(reader, inlet));
    let mut status = None;
    let mut is_drained = false;
    let outcome = loop {
        if let (true, Some(status)) = (is_drained, status) {
            break Ok(status);
        }
        tokio::select! {
            ended = exit.wait(), if status.is_none() => {
                status = Some(ended);
                over.cancel();
            }
            frame = queue.recv(), if !is_drained => match frame {
                Some(frame) => if let Err(error) = write_frame(&mut writer, &frame).await {
                    break Err(error);
                },
                None => is_drained = true,
            },
            _ = &mut input => break Err(WireError::Closed),
        }
    };
    input.abort();
    match outcome {
        Ok(status) => {
            let exit_code = status.shell_code();
            finish(writer, ExecEnd::Exited { exit_code }).await
        }
        Err(error) => {
            if status.is_none() {
                kill_session(pid);
            }
            tracing::debug!(%error, pid, "exec without a host was killed");
            Ok(())
        }
    }
}

/// Connects a container's main process to the host's stream until the run ends or the host hangs
/// up, which changes nothing for the container.
pub(crate) async fn attach(
    reader: ReadHalf<Stream>,
    mut writer: WriteHalf<Stream>,
    live: Result<Live, String>,
) -> Result<(), WireError> {
    let live = match live {
        Ok(live) => live,
        Err(reason) => return finish(writer, ExecEnd::Failed { reason }).await,
    };
    let mut output = live.output.subscribe();
    let mut input = tokio::spawn(take_input(reader, live.inlet));
    drop(live.output);
    let end = loop {
        let piece = tokio::select! {
            piece = output.recv() => piece,
            _ = &mut input => return Ok(()),
        };
        match piece {
            Ok(Piece::Output(kind, bytes)) => {
                let written = write_frame(&mut writer, &Frame::data(kind, bytes)).await;
                if written.is_err() {
                    break None;
                }
            }
            Ok(Piece::End(status)) => {
                let exit_code = status.shell_code();
                break Some(ExecEnd::Exited { exit_code });
            }
            // Too slow: what is missing is in the logs.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => {
                let reason = "the container has ended".to_owned();
                break Some(ExecEnd::Failed { reason });
            }
        }
    };
    input.abort();
    match end {
        Some(end) => finish(writer, end).await,
        None => Ok(()),
    }
}

/// Passes on what the host sends until it hangs up or breaks the protocol.
async fn take_input(mut reader: ReadHalf<Stream>, mut inlet: Inlet) {
    while let Ok(Some(frame)) = read_frame(&mut reader, SMALL_FRAME_BYTES_MAX).await {
        match frame.kind {
            FrameKind::Stdin => inlet.stdin(frame.payload).await,
            FrameKind::CloseStdin => inlet.close_stdin().await,
            FrameKind::Resize => match frame.parse() {
                Ok(size) => inlet.resize(size),
                Err(_) => return,
            },
            FrameKind::Message | FrameKind::Stdout | FrameKind::Stderr | FrameKind::Log => return,
        }
    }
}

pub(crate) async fn finish(mut writer: WriteHalf<Stream>, end: ExecEnd) -> Result<(), WireError> {
    write_frame(&mut writer, &Frame::message(&end)).await?;
    let closed = writer.shutdown().await;
    closed.map_err(|source| WireError::Write { source })
}

/// Kills a process that leads a session, and what it started in it.
pub(crate) fn kill_session(pid: i32) {
    for target in [-pid, pid] {
        if let Err(error) = signal::send(target, SIGKILL) {
            tracing::warn!(%error, pid, "process was not killed");
        }
    }
}
