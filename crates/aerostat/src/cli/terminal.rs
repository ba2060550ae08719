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

/// Size of the terminal that is standard output, if it is one.
pub(super) fn size() -> Option<TerminalSize> {
    size_of(io::stdout())
}

/// Size of the terminal that is standard error, if it is one.
pub(super) fn error_size() -> Option<TerminalSize> {
    size_of(io::stderr())
}

fn size_of(stream: impl std::os::fd::AsFd) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(TerminalSize {
        width: size.ws_col,
        height: size.ws_row,
    })
}

/// Whether somebody may leave what they are connected to, without ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detach {
    Never,
    /// Ctrl-P, then Ctrl-Q.
    OnKeys,
}

/// Ctrl-P and Ctrl-Q as a terminal in raw mode sends them.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// What the keys of one read mean. `armed` is whether the last key was Ctrl-P; that one is held
/// back until the next key says what it was for.
fn without_detach_keys(bytes: &[u8], armed: &mut bool) -> (Vec<u8>, bool) {
    let mut through = Vec::with_capacity(bytes.len() + 1);
    for &byte in bytes {
        if std::mem::take(armed) {
            if byte == DETACH_KEYS[1] {
                return (through, true);
            }
            through.push(DETACH_KEYS[0]);
        }
        match byte == DETACH_KEYS[0] {
            true => *armed = true,
            false => through.push(byte),
        }
    }
    (through, false)
}

/// Connects both sides until the command ends; its exit code becomes ours.
pub(super) async fn relay(
    mut io: ExecIo,
    stdin: bool,
    tty: bool,
    detach: Detach,
) -> anyhow::Result<()> {
    let raw = if tty && stdin {
        Some(Raw::enter().context("--tty needs a terminal; leave it away in scripts")?)
    } else {
        None
    };
    let (left, mut leaving) = mpsc::channel(1);
    if stdin {
        read_stdin(io.input.clone(), detach, left.clone());
    } else {
        let _ = io.input.send(ExecInput::CloseStdin).await;
    }
    if tty {
        tokio::spawn(follow_size(io.input.clone()));
    }
    let mut status = ExecStatus::Failed {
        message: "the connection was lost".into(),
    };
    loop {
        let message = tokio::select! {
            message = io.output.recv() => message,
            // `left` lives as long as this function: nothing comes unless the keys are pressed.
            Some(()) = leaving.recv() => {
                drop(raw);
                eprintln!("\nleft; it goes on running");
                return Ok(());
            }
        };
        match message {
            Some(ExecOutput::Stdout(bytes)) => output::write(&bytes)?,
            Some(ExecOutput::Stderr(bytes)) => output::write_error(&bytes)?,
            Some(ExecOutput::End(end)) => status = end,
            None => break,
        }
    }
    drop((raw, left));
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
fn read_stdin(input: mpsc::Sender<ExecInput>, detach: Detach, left: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        let mut armed = false;
        loop {
            let message = match (io::stdin().read(&mut buffer), detach) {
                (Ok(0) | Err(_), _) => ExecInput::CloseStdin,
                (Ok(length), Detach::Never) => {
                    ExecInput::Stdin(Bytes::copy_from_slice(&buffer[..length]))
                }
                (Ok(length), Detach::OnKeys) => {
                    let (bytes, leave) = without_detach_keys(&buffer[..length], &mut armed);
                    if leave {
                        let _ = left.blocking_send(());
                        return;
                    }
                    ExecInput::Stdin(bytes.into())
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_in_a_row_leave_and_each_alone_goes_through() {
        let mut armed = false;
        let (through, leave) = without_detach_keys(b"ab\x10", &mut armed);
        assert_eq!((&through[..], leave), (&b"ab"[..], false));
        let (through, leave) = without_detach_keys(b"c", &mut armed);
        assert_eq!((&through[..], leave), (&b"\x10c"[..], false));
        let (through, leave) = without_detach_keys(b"d\x10\x11e", &mut armed);
        assert_eq!((&through[..], leave), (&b"d"[..], true));
        let (through, leave) = without_detach_keys(b"\x11", &mut armed);
        assert_eq!((&through[..], leave), (&b"\x11"[..], false));
    }
}
