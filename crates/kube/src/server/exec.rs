//! `exec` and `attach` over WebSocket, subprotocols v5 and v4.
//!
//! Each binary message begins with a channel number: 0 standard input, 1 output, 2 error, 3 the
//! final Status, 4 terminal sizes; in v5 `255 <channel>` closes a channel, which is how standard
//! input ends.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::debug;

use super::body::{self, Body};
use super::query::Query;
use super::{Server, codec, pods};
use crate::object;
use crate::status::Status;
use crate::streams::{ExecInput, ExecIo, ExecOutput, ExecRequest, PodStreams};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Newest first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// kubectl sends 32 KiB at a time.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

pub(super) async fn handle(
    server: &Arc<Server>,
    pod: Value,
    is_attach: bool,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let exec = parse(&pod, is_attach, query)?;
    check_phase(&pod)?;
    let (protocol, accept) = handshake(&request)?;
    let streams = server.streams.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    let mut stopping = server.stopping.clone();
    tokio::spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(%error, "client did not upgrade"),
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let io_stream = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io_stream, Role::Server, Some(config)).await;
        tokio::select! {
            outcome = run(socket, &*streams, &pod, exec) => {
                if let Err(error) = outcome {
                    debug!(%error, "exec connection broke");
                }
            }
            () = super::stopped(&mut stopping) => {}
        }
    });
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

pub(super) fn parse(pod: &Value, attach: bool, query: &Query) -> Result<ExecRequest, Status> {
    let command: Vec<_> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() && !attach {
        return Err(Status::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let tty = query.flag("tty");
    let exec = ExecRequest {
        container: pods::container(pod, query.get("container"))?,
        command,
        attach,
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !exec.stdin && !exec.stdout && !exec.stderr {
        return Err(Status::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    Ok(exec)
}

fn check_phase(pod: &Value) -> Result<(), Status> {
    let phase = object::text(pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        let message =
            format!("cannot exec into a container in a completed pod; current phase is {phase}");
        return Err(Status::bad_request(message));
    }
    if object::text(pod, &["spec", "nodeName"]).is_empty() {
        let message = format!("pod {} does not have a host assigned", object::name(pod));
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// The subprotocol and the accept key, or why there is no WebSocket.
fn handshake(request: &Request<Incoming>) -> Result<(&'static str, HeaderValue), Status> {
    let upgrade = codec::header(request, UPGRADE).to_lowercase();
    if upgrade.starts_with("spdy") {
        return Err(Status::bad_request(
            "this server speaks WebSocket for exec and attach, not SPDY: use kubectl 1.30 or newer \
             (1.29 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)",
        ));
    }
    if upgrade != "websocket" {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<_> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let protocol = PROTOCOLS.into_iter().find(|known| offered.contains(known));
    let protocol = protocol.ok_or_else(|| {
        Status::bad_request(format!(
            "no subprotocol in common; this server speaks {PROTOCOLS:?}"
        ))
    })?;
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Status::bad_request("Sec-WebSocket-Key is not valid"))?;
    Ok((protocol, accept))
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
type SocketError = tokio_tungstenite::tungstenite::Error;

/// Asks the provider after the upgrade: a client that gets an HTTP error instead tries SPDY, and
/// what it tells the user is our refusal of that.
async fn run(
    mut socket: Socket,
    streams: &dyn PodStreams,
    pod: &Value,
    exec: ExecRequest,
) -> Result<(), SocketError> {
    match streams.exec(pod, exec.clone()).await {
        Ok(io) => relay(socket, io, &exec).await,
        Err(refusal) => {
            let text = refusal.to_json().to_string();
            socket.send(frame(ERROR, text.as_bytes())).await?;
            socket.close(Some(normal_close())).await
        }
    }
}

async fn relay(socket: Socket, io: ExecIo, exec: &ExecRequest) -> Result<(), SocketError> {
    let (mut sink, mut source) = socket.split();
    let ExecIo { input, mut output } = io;
    // Some clients wait for the first frame before they send.
    if exec.stdout || exec.stderr {
        let lowest = if exec.stdout { STDOUT } else { STDERR };
        sink.send(frame(lowest, &[])).await?;
    }
    // Its own task, because waiting for room in `input` must not hold up output or be dropped half
    // way.
    let stdin = exec.stdin;
    let upstream = tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(data) => {
                    let Some(event) = parse_message(&data, stdin) else {
                        continue;
                    };
                    // A process that has ended takes no more input; its end is yet to be told.
                    let _ = input.send(event).await;
                }
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    });
    let abort = upstream.abort_handle();
    let status = tokio::select! {
        status = downstream(&mut sink, &mut output, exec) => Some(status?),
        _ = upstream => None,
    };
    abort.abort();
    if let Some(status) = status {
        sink.send(frame(ERROR, status.to_string().as_bytes()))
            .await?;
        sink.send(Message::Close(Some(normal_close()))).await?;
    }
    sink.close().await
}

fn normal_close() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }
}

/// Forwards output until the process has ended, and returns the final Status.
async fn downstream(
    sink: &mut futures::stream::SplitSink<Socket, Message>,
    output: &mut tokio::sync::mpsc::Receiver<ExecOutput>,
    exec: &ExecRequest,
) -> Result<Value, SocketError> {
    while let Some(event) = output.recv().await {
        match event {
            ExecOutput::Stdout(data) if exec.stdout => sink.send(frame(STDOUT, &data)).await?,
            ExecOutput::Stderr(data) if exec.stderr => sink.send(frame(STDERR, &data)).await?,
            ExecOutput::Stdout(_) | ExecOutput::Stderr(_) => {}
            ExecOutput::Exit { code } => return Ok(exit_status(code)),
            ExecOutput::Failed(message) => return Ok(failure(&message)),
        }
    }
    Ok(failure("the connection to the container was lost"))
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

pub(super) fn parse_message(data: &Bytes, stdin: bool) -> Option<ExecInput> {
    let (&channel, rest) = data.split_first()?;
    match channel {
        STDIN if stdin && !rest.is_empty() => Some(ExecInput::Stdin(data.slice(1..))),
        RESIZE => {
            let size: Value = serde_json::from_slice(rest).ok()?;
            let side = |name: &str| {
                size[name]
                    .as_u64()
                    .and_then(|side| u16::try_from(side).ok())
            };
            Some(ExecInput::Resize {
                width: side("Width")?,
                height: side("Height")?,
            })
        }
        CLOSE if rest == [STDIN] => Some(ExecInput::CloseStdin),
        // Output channels are ours, and unknown ones are for versions to come.
        _ => None,
    }
}

fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {message}"),
        "details": {"causes": [{"message": message}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(data: &'static [u8]) -> Option<ExecInput> {
        parse_message(&Bytes::from_static(data), true)
    }

    #[test]
    fn messages_are_read_by_channel() {
        assert_eq!(
            parsed(b"\x00ls\n"),
            Some(ExecInput::Stdin(Bytes::from_static(b"ls\n")))
        );
        assert_eq!(parsed(b"\xff\x00"), Some(ExecInput::CloseStdin));
        assert_eq!(
            parsed(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(ExecInput::Resize {
                width: 80,
                height: 24
            })
        );
        assert_eq!(parsed(b"\x04{\"Width\":-1}"), None);
        assert_eq!(parsed(b"\x01x"), None);
        assert_eq!(parsed(b""), None);
    }

    #[test]
    fn an_exit_code_is_told_as_a_cause() {
        assert_eq!(exit_status(0)["status"], "Success");
        assert_eq!(exit_status(7)["details"]["causes"][0]["message"], "7");
    }
}
