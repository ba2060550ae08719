//! Bytes from one TCP connection to another, both ways, until both have ended.
//!
//! ```text
//! from --splice--> pipe --splice--> to        (no byte is copied; a pipe is lent while bytes move)
//! from ---read---> buffer --write-> to        (where the kernel refuses to splice)
//! ```
//!
//! The end of one direction is passed on as the end of that direction only; the other goes on for
//! as long as its peer likes. A failure of either connection is the failure of both.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use super::pipes::{Pipe, Pipes};

/// Of the buffer of a direction that is not spliced.
const COPY_BYTES: usize = 16 << 10;

/// Bytes of a connection.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) from_client: AtomicU64,
    pub(super) to_client: AtomicU64,
}

/// How a direction goes on.
enum Spliced {
    ToTheEnd,
    /// The kernel does not; nothing is lost.
    Refused,
}

/// Relays until both directions have ended. May be dropped at any time, which is the end of both
/// connections: bytes may be on their way.
///
/// # Errors
/// The first failure of either connection.
pub(super) async fn relay(
    client: &TcpStream,
    backend: &TcpStream,
    pipes: &Pipes,
    moved: &Moved,
) -> io::Result<()> {
    tokio::try_join!(
        one_way(client, backend, pipes, &moved.from_client),
        one_way(backend, client, pipes, &moved.to_client),
    )?;
    Ok(())
}

async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    moved: &AtomicU64,
) -> io::Result<()> {
    match splice_all(from, to, pipes, moved).await? {
        Spliced::ToTheEnd => {}
        Spliced::Refused => copy_all(from, to, moved).await?,
    }
    match shutdown(to.as_raw_fd(), Shutdown::Write) {
        // It was reset or has gone; whoever reads from it is told.
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

async fn splice_all(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    moved: &AtomicU64,
) -> io::Result<Spliced> {
    loop {
        from.readable().await?;
        let Ok(pipe) = pipes.take() else {
            return Ok(Spliced::Refused);
        };
        loop {
            match from.try_io(Interest::READABLE, || pipe.fill(from.as_fd())) {
                Ok(0) => {
                    pipes.give(pipe);
                    return Ok(Spliced::ToTheEnd);
                }
                Ok(bytes) => empty(&pipe, to, bytes, moved).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Spliced::Refused);
                }
                Err(error) => return Err(error),
            }
            consume_budget().await;
        }
        pipes.give(pipe);
    }
}

/// Moves the `bytes` that are in `pipe` on.
async fn empty(pipe: &Pipe, to: &TcpStream, bytes: usize, moved: &AtomicU64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        match to.try_io(Interest::WRITABLE, || pipe.pour(to.as_fd(), left)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                left -= bytes;
                moved.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn copy_all(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        from.readable().await?;
        let length = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match to.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    rest = &rest[bytes..];
                    moved.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        consume_budget().await;
    }
}

#[cfg(test)]
mod tests;
