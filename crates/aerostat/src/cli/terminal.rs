//! Standard streams of this process, connected to a command in a machine.

use std::io::{self, Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use client::{ExecInput, ExecIo, ExecOutput};
use nix::sys::termios::{self, SetArg, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use types::api::{ExecStatus, TerminalSize};

use super::{CommandEnded, output};

/// Bytes of standard input that are read at once.
const READ_BYTES: usize = 16 << 10;

/// The terminal in raw mode until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> nix::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The process is about to end; there is nobody to tell.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Size of this process's terminal, if it has one.
pub(super) fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(TerminalSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}

/// Connects both sides until the command ends; its exit code becomes ours.
pub(super) async fn relay(mut io: ExecIo, stdin: bool, tty: bool) -> anyhow::Result<()> {
    let raw = if tty && stdin {
        Some(Raw::enter().context("--tty needs a terminal; leave it away in scripts")?)
    } else {
        None
    };
    if stdin {
        read_stdin(io.input.clone());
    } else {
        let _ = io.input.send(ExecInput::CloseStdin).await;
    }
    if tty {
        tokio::spawn(follow_size(io.input.clone()));
    }
    let mut status = ExecStatus::Failed {
        message: "the connection was lost".into(),
    };
    while let Some(message) = io.output.recv().await {
        match message {
            ExecOutput::Stdout(bytes) => output::write(&bytes)?,
            ExecOutput::Stderr(bytes) => output::write_error(&bytes)?,
            ExecOutput::End(end) => status = end,
        }
    }
    drop(raw);
    match status {
        ExecStatus::Exited { exit_code: 0 } => Ok(()),
        ExecStatus::Exited { exit_code } => {
            Err(CommandEnded(u8::try_from(exit_code).unwrap_or(u8::MAX)).into())
        }
        ExecStatus::Failed { message } => {
            anyhow::bail!("the command did not run to its end: {message}")
        }
    }
}

/// Reads on a thread of its own: a blocking read cannot be given up, and must not keep the
/// process alive.
fn read_stdin(input: mpsc::Sender<ExecInput>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let message = match io::stdin().read(&mut buffer) {
                Ok(0) | Err(_) => ExecInput::CloseStdin,
                Ok(length) => ExecInput::Stdin(Bytes::copy_from_slice(&buffer[..length])),
            };
            let last = message == ExecInput::CloseStdin;
            if input.blocking_send(message).is_err() || last {
                return;
            }
        }
    });
}

async fn follow_size(input: mpsc::Sender<ExecInput>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() {
        let Some(size) = size() else { return };
        if input.send(ExecInput::Resize(size)).await.is_err() {
            return;
        }
    }
}
