//! The standard streams of one process, set up for tokio.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;
use types::api::TerminalSize;
use types::guest::FrameKind;

use crate::fd::Fd;
use crate::output::{Stdin, feed};
use crate::runtime::ProcessIo;
use crate::stdio;

/// Output to be pumped, with the kind of frame it makes.
pub(crate) type Outputs = Vec<(FrameKind, Fd)>;

/// What goes to a process: standard input and the size of its terminal.
#[derive(Debug, Clone)]
pub(crate) struct Inlet {
    stdin: Option<mpsc::Sender<Stdin>>,
    controller: Option<Fd>,
}

/// Takes the streams of a process apart. Without `stdin`, nothing reaches its terminal.
pub(crate) fn open(io: ProcessIo, stdin: bool) -> io::Result<(Inlet, Outputs)> {
    match io {
        ProcessIo::Pipes {
            stdin: pipe,
            stdout,
            stderr,
        } => {
            let outputs = vec![
                (FrameKind::Stdout, Fd::new(stdout)?),
                (FrameKind::Stderr, Fd::new(stderr)?),
            ];
            let stdin = pipe.filter(|_| stdin).map(Fd::new).transpose()?.map(feed);
            let controller = None;
            Ok((Inlet { stdin, controller }, outputs))
        }
        ProcessIo::Pty { controller } => {
            let controller = Fd::new(controller)?;
            let outputs = vec![(FrameKind::Stdout, controller.clone())];
            let stdin = stdin.then(|| feed(controller.clone()));
            let controller = Some(controller);
            Ok((Inlet { stdin, controller }, outputs))
        }
    }
}

impl Inlet {
    /// Waits for room. Bytes for a process without standard input are dropped.
    pub(crate) async fn stdin(&mut self, bytes: Vec<u8>) {
        if let Some(stdin) = &self.stdin
            && stdin.send(Stdin::Bytes(Bytes::from(bytes))).await.is_err()
        {
            self.stdin = None;
        }
    }

    /// A terminal has no end of input: it stays open for its other users.
    pub(crate) async fn close_stdin(&mut self) {
        if self.controller.is_none()
            && let Some(stdin) = self.stdin.take()
        {
            // The process may have closed it first.
            let _ = stdin.send(Stdin::Close).await;
        }
    }

    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(controller) = &self.controller
            && let Err(error) = stdio::resize(controller, size)
        {
            tracing::warn!(%error, "terminal was not resized");
        }
    }
}
