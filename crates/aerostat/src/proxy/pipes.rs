//! Pipes that bytes go through on their way from socket to socket, without being copied.
//!
//! A connection needs one only while bytes move, so pipes are lent: an idle connection costs its
//! two sockets and nothing else.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// Capacity that is asked of the kernel. Larger ones gain nothing: a socket's buffer rarely holds
/// more at a time.
const PIPE_BYTES: usize = 256 << 10;

/// Pipes that are kept while nobody uses them: about as many as connections are busy at the same
/// instant. A new one costs some microseconds.
const SPARE_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Pipes {
    spare: Mutex<Vec<Pipe>>,
}

/// A pipe with nothing in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    /// # Errors
    /// As `pipe2(2)`.
    pub(super) fn take(&self) -> io::Result<Pipe> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = spare.pop();
        drop(spare);
        pipe.map_or_else(Pipe::new, Ok)
    }

    /// Takes back a pipe that is empty again. One that is not is dropped by whoever has it.
    pub(super) fn give(&self, pipe: Pipe) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(pipe);
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused when pipes of other users hold much: then it stays as large as it was.
        let _ = fcntl(
            &write,
            FcntlArg::F_SETPIPE_SZ(PIPE_BYTES.try_into().unwrap_or(i32::MAX)),
        );
        Ok(Self { read, write })
    }

    /// Moves what `socket` has into the pipe; 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` if it has nothing (the pipe has room, so that is never the cause);
    /// `Unsupported` if the kernel does not splice this kind of socket.
    pub(super) fn fill(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        moved(splice(
            socket,
            None,
            self.write.as_fd(),
            None,
            PIPE_BYTES,
            flags(),
        ))
    }

    /// Moves up to `bytes` out of the pipe into `socket`.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing now.
    pub(super) fn pour(&self, socket: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
        moved(splice(
            self.read.as_fd(),
            None,
            socket,
            None,
            bytes,
            flags(),
        ))
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

fn moved(result: nix::Result<usize>) -> io::Result<usize> {
    result.map_err(|errno| match errno {
        Errno::EINVAL | Errno::ENOSYS => io::ErrorKind::Unsupported.into(),
        errno => errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_come_back_up_to_a_number() {
        let pipes = Pipes::default();
        let taken: Vec<_> = (0..=SPARE_MAX).map(|_| pipes.take().unwrap()).collect();
        taken.into_iter().for_each(|pipe| pipes.give(pipe));
        assert_eq!(pipes.spare.lock().unwrap().len(), SPARE_MAX);
    }
}
