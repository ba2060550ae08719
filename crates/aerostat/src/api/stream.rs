//! Exec, attach and logs over WebSockets; the messages are described at `types::api::channel`.
//!
//! ```text
//!  caller ── reader task ──▶ Io.input          each half waits for its own side only:
//!         ◀── this task ──── Io.output         a full pipe never stops the other direction
//! ```
//!
//! The worker is asked before the upgrade, so that a refusal is an ordinary answer.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::api::{ExecStatus, LogLine, LogQuery, TerminalSize, channel};
use types::guest::{ExecEnd, ExecRequest};
use vmm::{Input, Io, Output};

use super::Api;
use super::error::ApiError;
use super::extract::{Query, Target};
use super::guard::Ends;

/// Largest message that a caller may send: a paste into a terminal, or a piece of a file.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// A caller that has gone without a word is noticed by the pings that it does not answer: the
/// kernel gives the connection up.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the caller may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What callers are told whose token ends while they listen.
const TOKEN_OVER: &str = "the token that this was opened with has expired";

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
type Sink = SplitSink<WebSocket, Message>;

/// `GET …/machines/{id}/exec/stream`
pub(super) async fn exec(
    State(api): State<Api>,
    target: Target,
    ends: Ends,
    query: Query,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = bounded(upgrade)?;
    let command = query.all("command");
    if command.first().is_none_or(String::is_empty) {
        return Err(ApiError::bad("command is missing".into()));
    }
    let request = ExecRequest {
        container: query.get("container").unwrap_or_default().to_owned(),
        command,
        env: std::collections::BTreeMap::new(),
        tty: query.flag("tty")?,
        stdin: query.flag("stdin")?,
        size: size(&query)?,
        machine: false,
    };
    let io = api.deps.worker.exec(&target.id, request).await?;
    let drain = api.drain.clone();
    Ok(upgrade.on_upgrade(move |socket| relay(socket, io, drain, ends)))
}

/// `GET …/machines/{id}/attach`
pub(super) async fn attach(
    State(api): State<Api>,
    target: Target,
    ends: Ends,
    query: Query,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = bounded(upgrade)?;
    let size = size(&query)?;
    let container = query.get("container").unwrap_or_default();
    let io = api.deps.worker.attach(&target.id, container).await?;
    if let Some(size) = size {
        // If nobody takes it, the stream has ended and says so by itself.
        let _ = io.input.send(Input::Resize(size)).await;
    }
    let drain = api.drain.clone();
    Ok(upgrade.on_upgrade(move |socket| relay(socket, io, drain, ends)))
}

/// `GET …/machines/{id}/logs`
pub(super) async fn logs(
    State(api): State<Api>,
    target: Target,
    ends: Ends,
    query: Query,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = bounded(upgrade)?;
    let wanted = LogQuery {
        container: query.get("container").map(str::to_owned),
        follow: query.flag("follow")?,
        tail: query.parse("tail", "a number of lines")?,
        since_ms: query.parse("since_ms", "milliseconds since 1970")?,
        previous: query.flag("previous")?,
    };
    let lines = api.deps.worker.logs(&target.id, wanted).await?;
    let drain = api.drain.clone();
    Ok(upgrade.on_upgrade(move |socket| send_logs(socket, lines, drain, ends)))
}

fn bounded(upgrade: Upgrade) -> Result<WebSocketUpgrade, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::NotWebSocket)?;
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX))
}

fn size(query: &Query) -> Result<Option<TerminalSize>, ApiError> {
    let width = query.parse("width", "a number of columns")?;
    let height = query.parse("height", "a number of lines")?;
    Ok(width
        .zip(height)
        .map(|(width, height)| TerminalSize { width, height }))
}

/// Carries an exec until it ends or the caller goes. Dropping the output hangs the process up.
async fn relay(socket: WebSocket, io: Io, drain: CancellationToken, ends: Ends) {
    let Io { input, mut output } = io;
    let (mut sink, stream) = socket.split();
    let mut reader = tokio::spawn(read_input(stream, input));
    let mut pings = tokio::time::interval(PING_INTERVAL);
    let status = loop {
        tokio::select! {
            item = output.recv() => match send_output(&mut sink, item, &mut output).await {
                Ok(None) => {}
                Ok(Some(status)) => break status,
                Err(_) => return reader.abort(),
            },
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return reader.abort();
                }
            }
            // The caller went away, or broke the protocol.
            _ = &mut reader => return,
            () = drain.cancelled() => {
                break ExecStatus::Failed { message: "the API is shutting down".into() };
            }
            () = ends.over() => break ExecStatus::Failed { message: TOKEN_OVER.into() },
        }
    };
    let json = serde_json::to_vec(&status).expect("a status is JSON");
    if sink.send(message(channel::STATUS, &json)).await.is_ok() {
        let _ = sink.send(Message::Close(None)).await;
        // The reader ends when the caller has answered the goodbye, or input has no taker.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut reader).await;
    }
    reader.abort();
}

/// Sends `item` and what is there behind it with one write. The status is returned, not sent.
async fn send_output(
    sink: &mut Sink,
    item: Option<Output>,
    output: &mut mpsc::Receiver<Output>,
) -> Result<Option<ExecStatus>, axum::Error> {
    let mut item = item;
    let mut status = None;
    loop {
        match item {
            Some(Output::Stdout(bytes)) => sink.feed(message(channel::STDOUT, &bytes)).await?,
            Some(Output::Stderr(bytes)) => sink.feed(message(channel::STDERR, &bytes)).await?,
            Some(Output::End(ExecEnd::Exited { exit_code })) => {
                status = Some(ExecStatus::Exited { exit_code });
            }
            Some(Output::End(ExecEnd::Failed { reason })) => {
                status = Some(ExecStatus::Failed { message: reason });
            }
            None => {
                let message = "the machine ended meanwhile".into();
                status = Some(ExecStatus::Failed { message });
            }
        }
        match output.try_recv() {
            Ok(next) if status.is_none() => item = Some(next),
            Ok(_) | Err(_) => break,
        }
    }
    sink.flush().await?;
    Ok(status)
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

/// Hands input on until the caller goes away. Input that has no taker any more is read and
/// forgotten: the process may end while the caller still types.
async fn read_input(mut stream: SplitStream<WebSocket>, input: mpsc::Sender<Input>) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => match parse_input(bytes) {
                Some(item) => {
                    let _ = input.send(item).await;
                }
                None => return,
            },
            Message::Ping(_) | Message::Pong(_) => {}
            // `Close` is answered by the socket itself.
            Message::Text(_) | Message::Close(_) => return,
        }
    }
}

/// `None` if it is no message that a caller may send.
fn parse_input(mut bytes: Bytes) -> Option<Input> {
    if bytes.is_empty() {
        return None;
    }
    let kind = bytes.split_to(1)[0];
    match kind {
        channel::STDIN => Some(Input::Stdin(bytes)),
        channel::CLOSE_STDIN => Some(Input::CloseStdin),
        channel::RESIZE => serde_json::from_slice(&bytes).ok().map(Input::Resize),
        _ => None,
    }
}

async fn send_logs(
    mut socket: WebSocket,
    mut lines: mpsc::Receiver<LogLine>,
    drain: CancellationToken,
    ends: Ends,
) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        let sent = tokio::select! {
            line = lines.recv() => match line {
                Some(line) => send_lines(&mut socket, line, &mut lines).await,
                None => break,
            },
            _ = pings.tick() => socket.send(Message::Ping(Bytes::new())).await,
            // Callers have nothing to say but goodbye.
            message = socket.recv() => match message {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Close(_)) | Err(_))
                | None => return,
            },
            () = drain.cancelled() => break,
            () = ends.over() => {
                let message = CloseFrame { code: close_code::POLICY, reason: TOKEN_OVER.into() };
                let _ = socket.send(Message::Close(Some(message))).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
    if socket.send(Message::Close(None)).await.is_ok() {
        let goodbye = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// Sends `line` and those that are there behind it with one write.
async fn send_lines(
    socket: &mut WebSocket,
    line: LogLine,
    lines: &mut mpsc::Receiver<LogLine>,
) -> Result<(), axum::Error> {
    socket.feed(Message::Binary(line.encode().into())).await?;
    while let Ok(line) = lines.try_recv() {
        socket.feed(Message::Binary(line.encode().into())).await?;
    }
    socket.flush().await
}

#[cfg(test)]
mod tests;
