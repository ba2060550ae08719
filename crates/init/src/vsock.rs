//! The guest's end of the transport: a virtio-serial port, or vsock where the VMM has none.
//!
//! ```text
//!  kernel's command line: aerostat.control=vsock ──► listen on VSOCK_PORT ──► accept
//!                         (nothing)              ──► open the port by its name
//! ```
//!
//! On vsock the host connects. Its connections do not survive a snapshot, and the listener does, so
//! after one it connects again.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use guest::fd::Fd;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};
use types::guest::{VSOCK_PORT, VSOCK_WANTED};

use crate::port::Port;
use crate::sys;

/// One connection is served at a time; another may come before the end of the last is seen.
const BACKLOG: i32 = 4;
/// While the host is not connected.
const ACCEPT_POLL: Duration = Duration::from_millis(10);

/// Where the host comes from.
pub(crate) enum Transport {
    Port(Port),
    Vsock(Listener),
}

impl Transport {
    /// Opens what the kernel's command line asks for.
    pub(crate) fn open() -> io::Result<Self> {
        if is_wanted() {
            Listener::open().map(Self::Vsock)
        } else {
            Port::open().map(Self::Port)
        }
    }

    /// The next connection of the host.
    pub(crate) async fn connected(&self) -> io::Result<Fd> {
        match self {
            Self::Port(port) => port.connected().await,
            Self::Vsock(listener) => listener.accept().await,
        }
    }
}

/// Whether this guest is to listen on vsock.
pub(crate) fn is_wanted() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| has_word(&line))
}

fn has_word(line: &str) -> bool {
    line.split_whitespace().any(|word| word == VSOCK_WANTED)
}

/// Whether a module is needed for vsock and for nothing else, so that others need not load it.
pub(crate) fn has_use_for(module: &str) -> bool {
    let name = module.split('.').next().unwrap_or(module);
    name == "vsock" || name.starts_with("vmw_vsock")
}

pub(crate) struct Listener {
    socket: OwnedFd,
}

impl Listener {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        let address = VsockAddr::new(libc::VMADDR_CID_ANY, VSOCK_PORT);
        bind(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self { socket })
    }

    async fn accept(&self) -> io::Result<Fd> {
        loop {
            match sys::accept(&self.socket) {
                Ok(stream) => return Fd::new(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(ACCEPT_POLL).await;
                }
                // The host has hung up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn vsock_is_used_only_where_the_kernels_command_line_says_so() {
        assert!(has_word("console=ttyS0 aerostat.control=vsock\n"));
        assert!(!has_word("console=ttyS0 aerostat.control=vsocket"));
        assert!(!has_word(""));
        assert!(has_use_for("vmw_vsock_virtio_transport.ko") && has_use_for("vsock.ko"));
        assert!(!has_use_for("virtio_net.ko"));
    }

    #[tokio::test]
    async fn connections_are_taken_one_after_the_other() {
        // Accepting is the same for every family of sockets.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = Listener {
            socket: socket.into(),
        };
        for _ in 0..2 {
            let host = tokio::net::UnixStream::connect(&path);
            let (host, guest) = tokio::join!(host, listener.accept());
            let (mut host, mut guest) = (host.unwrap(), guest.unwrap());
            host.write_all(b"ping").await.unwrap();
            let mut heard = [0; 4];
            guest.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ping");
            drop(host);
            assert_eq!(guest.read(&mut heard).await.unwrap(), 0);
        }
    }
}
