//! What the API server needs from whoever runs pods, to serve `logs`, `exec` and `attach`.
//!
//! The server speaks the WebSocket protocol with the client; behind this trait are bytes, window
//! sizes and exit codes. Channels are bounded on both sides, so a slow reader slows the writer.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::status::Status;

/// Room in each direction of an exec. A message is at most a few tens of KiB, so a stalled client
/// holds less than a megabyte.
pub const EXEC_CHANNEL_MAX: usize = 16;

/// Streams into and out of running pods.
pub trait PodStreams: Send + Sync + 'static {
    /// The log of one container, oldest line first. It ends with the log, or never with `follow`.
    /// The API server has checked that the container exists; `limit_bytes` is applied by it.
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Status>>;

    /// Runs a command in a container, or attaches to its main process.
    fn exec<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecIo, Status>>;
}

/// Chunks of a log; an error ends the answer there.
pub type LogStream = BoxStream<'static, Result<Bytes, Status>>;

/// Which part of which log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub container: String,
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Each line begins with the time at which it was written, RFC 3339 with nanoseconds.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<jiff::Timestamp>,
}

/// A command to run, or a process to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub container: String,
    /// Empty for an attachment.
    pub command: Vec<String>,
    pub attach: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal there is no separate standard error.
    pub tty: bool,
}

/// A running exec. Dropping `input` without [`ExecInput::CloseStdin`] means that the client is
/// gone.
#[derive(Debug)]
pub struct ExecIo {
    pub input: mpsc::Sender<ExecInput>,
    pub output: mpsc::Receiver<ExecOutput>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    Stdin(Bytes),
    CloseStdin,
    /// The client's terminal has this size, in characters.
    Resize {
        width: u16,
        height: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The process has ended; nothing follows.
    Exit {
        code: i32,
    },
    /// The process could not be run or was lost; nothing follows.
    Failed(String),
}
