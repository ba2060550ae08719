//! Standard streams for processes that are about to start: pipes or a pseudo-terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::unistd::pipe2;
use types::api::TerminalSize;

use crate::runtime::ProcessIo;
use crate::sys;

/// The process's own ends. Everything is close-on-exec until [`ChildIo::give_to`].
#[derive(Debug)]
pub enum ChildIo {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// All three streams. The process has to make it its controlling terminal.
    Pty { terminal: OwnedFd },
}

impl ChildIo {
    /// Makes these the standard streams of `command`.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub fn give_to(self, command: &mut Command) -> io::Result<()> {
        let [stdin, stdout, stderr] = self.streams()?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        Ok(())
    }

    /// Standard input, output and error.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub fn streams(self) -> io::Result<[OwnedFd; 3]> {
        Ok(match self {
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => [stdin, stdout, stderr],
            Self::Pty { terminal } => [terminal.try_clone()?, terminal.try_clone()?, terminal],
        })
    }
}

/// Three pipes; standard input is empty unless `stdin`.
///
/// # Errors
/// If there are no descriptors left.
pub fn pipes(stdin: bool) -> io::Result<(ProcessIo, ChildIo)> {
    let (stdin, child_stdin) = if stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (Some(write), read)
    } else {
        (None, OwnedFd::from(File::open("/dev/null")?))
    };
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let ours = ProcessIo::Pipes {
        stdin,
        stdout,
        stderr,
    };
    let theirs = ChildIo::Pipes {
        stdin: child_stdin,
        stdout: child_stdout,
        stderr: child_stderr,
    };
    Ok((ours, theirs))
}

/// A pseudo-terminal, of 80 columns and 24 rows unless told.
///
/// # Errors
/// If there is none left, or no `/dev/ptmx`.
pub fn pty(size: Option<TerminalSize>) -> io::Result<(ProcessIo, ChildIo)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let controller = master.as_fd().try_clone_to_owned()?;
    let terminal = sys::open_pty_peer(controller.as_fd())?;
    let size = size.unwrap_or(TerminalSize {
        width: 80,
        height: 24,
    });
    sys::set_terminal_size(controller.as_fd(), size)?;
    Ok((ProcessIo::Pty { controller }, ChildIo::Pty { terminal }))
}

/// Tells a pseudo-terminal its size.
///
/// # Errors
/// If `controller` is none.
pub fn resize(controller: impl AsFd, size: TerminalSize) -> io::Result<()> {
    sys::set_terminal_size(controller.as_fd(), size)
}
