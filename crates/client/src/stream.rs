//! Exec, attach and logs: WebSockets whose messages are described at `types::api::channel`.
//!
//! The upgrade is an ordinary request of ours, so that a refusal is read whole, as everywhere
//! else. Afterwards one task owns the socket and the caller holds the ends of bounded channels.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use types::api::{ExecStatus, LogLine, LogQuery, TerminalSize, channel};
use types::{AppName, MachineId};

use crate::transport::Call;
use crate::{Client, Error};

/// Messages on their way: enough to keep the socket busy, few enough that a slow reader is felt
/// by the writer in the machine.
const MESSAGES_MAX: usize = 16;
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// How long the server may take to say goodbye after its last message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecParams {
    /// May stay empty when the machine has one container.
    pub container: Option<String>,
    /// Program and arguments. Attach ignores it.
    pub command: Vec<String>,
    pub stdin: bool,
    pub tty: bool,
    /// Size of the terminal at the start.
    pub size: Option<TerminalSize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    Stdin(Bytes),
    CloseStdin,
    Resize(TerminalSize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExecOutput {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Last, always: also when the connection was lost.
    End(ExecStatus),
}

/// Both ends of a running exec or attach. Dropping `input` closes standard input; dropping
/// `output` ends the stream, and with it an exec.
#[derive(Debug)]
pub struct ExecIo {
    pub input: mpsc::Sender<ExecInput>,
    pub output: mpsc::Receiver<ExecOutput>,
}

/// Lines of a log as they come; an error is the last item.
pub type Logs = mpsc::Receiver<Result<LogLine, Error>>;

impl Client {
    /// Runs a command beside a container's own process.
    pub async fn exec_stream(
        &self,
        app: &AppName,
        id: &MachineId,
        params: &ExecParams,
    ) -> Result<ExecIo, Error> {
        let mut call = exec_call(app, id, "exec/stream", params);
        for word in &params.command {
            call = call.query("command", word);
        }
        Ok(relay(self.upgrade(call).await?))
    }

    /// Connects to a container's own process. `End` tells how that process ended.
    pub async fn attach(
        &self,
        app: &AppName,
        id: &MachineId,
        params: &ExecParams,
    ) -> Result<ExecIo, Error> {
        Ok(relay(
            self.upgrade(exec_call(app, id, "attach", params)).await?,
        ))
    }

    /// What a container wrote. Ends when the log ends, which with `follow` it does only when the
    /// container has ended for good.
    pub async fn logs(
        &self,
        app: &AppName,
        id: &MachineId,
        query: &LogQuery,
    ) -> Result<Logs, Error> {
        let call = Call::get(format!("/v1/apps/{app}/machines/{id}/logs"))
            .query_if("container", query.container.as_ref())
            .query_if("tail", query.tail)
            .query_if("since_ms", query.since_ms)
            .query("follow", query.follow)
            .query("previous", query.previous);
        let socket = self.upgrade(call).await?;
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(read_logs(socket, self.address(), sender));
        Ok(receiver)
    }

    /// Opens a WebSocket.
    async fn upgrade(&self, call: Call) -> Result<Socket, Error> {
        let key = generate_key();
        let call = call
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", key.clone());
        let response = self.open(&call).await?;
        if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(&call, response).await);
        }
        let accepted = response.headers().get("sec-websocket-accept");
        if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
            return Err(self.unreadable(&call, "it accepts some other WebSocket"));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|source| self.unreadable(&call, source))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let stream = TokioIo::new(upgraded);
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
    }
}

fn exec_call(app: &AppName, id: &MachineId, verb: &str, params: &ExecParams) -> Call {
    Call::get(format!("/v1/apps/{app}/machines/{id}/{verb}"))
        .query_if("container", params.container.as_ref())
        .query("stdin", params.stdin)
        .query("tty", params.tty)
        .query_if("width", params.size.map(|size| size.width))
        .query_if("height", params.size.map(|size| size.height))
}

/// Starts the two tasks that carry an exec: each owns one half of the socket, so that neither
/// direction ever waits for the other.
fn relay(socket: Socket) -> ExecIo {
    let (input, input_receiver) = mpsc::channel(MESSAGES_MAX);
    let (output_sender, output) = mpsc::channel(MESSAGES_MAX);
    let (sink, stream) = socket.split();
    let writer = tokio::spawn(write_input(sink, input_receiver));
    tokio::spawn(async move {
        read_output(stream, output_sender).await;
        // The server has said how it ended, or nobody listens: input has no taker any more.
        // Dropping both halves closes the connection, which ends the exec on the other side.
        writer.abort();
    });
    ExecIo { input, output }
}

async fn write_input(
    mut sink: futures::stream::SplitSink<Socket, Message>,
    mut input: mpsc::Receiver<ExecInput>,
) {
    loop {
        let message = match input.recv().await {
            Some(ExecInput::Stdin(bytes)) => message(channel::STDIN, &bytes),
            Some(ExecInput::Resize(size)) => resize(size),
            Some(ExecInput::CloseStdin) => message(channel::CLOSE_STDIN, &[]),
            None => {
                // An error here is also seen, and told, by the reading half.
                let _ = sink.send(message(channel::CLOSE_STDIN, &[])).await;
                return std::future::pending().await;
            }
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

fn resize(size: TerminalSize) -> Message {
    let json = serde_json::to_vec(&size).expect("a terminal size is JSON");
    message(channel::RESIZE, &json)
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

async fn read_output(
    mut stream: futures::stream::SplitStream<Socket>,
    output: mpsc::Sender<ExecOutput>,
) {
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = output.closed() => return,
        };
        let item = match message {
            Some(Ok(Message::Binary(bytes))) => parse_output(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Text(_))) => lost("the Machines API sent text in a binary stream"),
            Some(Ok(Message::Close(_))) | None => lost("the Machines API closed the connection"),
            Some(Err(error)) => lost(&format!("the connection broke: {error}")),
        };
        let last = matches!(item, ExecOutput::End(_));
        if output.send(item).await.is_err() {
            return;
        }
        if last {
            // Lets the closing handshake finish, so that the server does not see a reset.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, stream.next()).await;
            return;
        }
    }
}

fn parse_output(mut bytes: Bytes) -> ExecOutput {
    if bytes.is_empty() {
        return lost("the Machines API sent an empty message");
    }
    let kind = bytes.split_to(1)[0];
    match kind {
        channel::STDOUT => ExecOutput::Stdout(bytes),
        channel::STDERR => ExecOutput::Stderr(bytes),
        channel::STATUS => match serde_json::from_slice(&bytes) {
            Ok(status) => ExecOutput::End(status),
            Err(_) => lost("the Machines API sent a status that cannot be read"),
        },
        _ => lost("the Machines API sent a message on an unknown channel"),
    }
}

fn lost(message: &str) -> ExecOutput {
    let message = message.to_owned();
    ExecOutput::End(ExecStatus::Failed { message })
}

async fn read_logs(
    mut socket: Socket,
    address: String,
    lines: mpsc::Sender<Result<LogLine, Error>>,
) {
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = lines.closed() => return,
        };
        let line = match message {
            Some(Ok(Message::Binary(bytes))) => match LogLine::decode(&bytes) {
                Some(line) => Ok(line),
                None => Err(Error::Answer {
                    request: "the log".into(),
                    address: address.clone(),
                    source: "a message is no line".into(),
                }),
            },
            Some(Ok(
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Text(_),
            )) => {
                continue;
            }
            Some(Ok(Message::Close(_))) | None => return,
            Some(Err(tungstenite::Error::ConnectionClosed)) => return,
            Some(Err(source)) => Err(Error::Stream {
                address: address.clone(),
                source: Box::new(source),
            }),
        };
        let last = line.is_err();
        if lines.send(line).await.is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_told_apart_by_its_first_byte() {
        let parse = |bytes: &'static [u8]| parse_output(Bytes::from_static(bytes));
        assert_eq!(
            parse(b"\x01hi"),
            ExecOutput::Stdout(Bytes::from_static(b"hi"))
        );
        assert_eq!(parse(b"\x02"), ExecOutput::Stderr(Bytes::new()));
        assert_eq!(
            parse(b"\x03{\"result\":\"exited\",\"exit_code\":3}"),
            ExecOutput::End(ExecStatus::Exited { exit_code: 3 })
        );
        for bad in [&b""[..], b"\x09x", b"\x03{"] {
            assert!(matches!(
                parse(bad),
                ExecOutput::End(ExecStatus::Failed { .. })
            ));
        }
    }
}
