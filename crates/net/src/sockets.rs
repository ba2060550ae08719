//! Sockets that belong to a host's namespace, for tasks that run outside of it.
//!
//! A socket is for ever of the namespace in which it was made, so one thread stays in there and
//! makes them; what is done with them happens on the caller's runtime. Making one costs two
//! messages between threads, about 20 µs.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, listen,
    setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::error::NetError;

/// Sockets being asked for. Each takes microseconds, so a full queue means a flood of connections,
/// and its callers wait in line.
const QUEUE_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Makes sockets in a host's namespace. Clones share the thread, which ends with the last.
#[derive(Debug, Clone)]
pub struct Sockets {
    jobs: mpsc::Sender<Job>,
}

impl Sockets {
    /// Starts the thread. Blocks until it is in the namespace.
    pub(crate) fn start(netns: &Path) -> Result<Self, NetError> {
        let fail = |source| NetError::Namespace {
            action: "enter",
            path: netns.to_owned(),
            source,
        };
        let file = std::fs::File::open(netns).map_err(fail)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let (entered, outcome) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || {
                let is_inside = setns(&file, CloneFlags::CLONE_NEWNET);
                let failed = is_inside.is_err();
                // Whoever started us waits for this.
                let _ = entered.send(is_inside);
                while let Some(job) = (!failed).then(|| queue.blocking_recv()).flatten() {
                    job();
                }
            })
            .map_err(|source| NetError::Thread {
                path: netns.to_owned(),
                source,
            })?;
        let entered = outcome.recv().unwrap_or(Err(nix::errno::Errno::ESRCH));
        entered.map_err(|errno| fail(errno.into()))?;
        Ok(Self { jobs })
    }

    /// Connects to `to`; from `source` if that is given, else from what the kernel chooses.
    ///
    /// # Errors
    /// As `connect(2)`; `TimedOut` after `timeout`.
    pub async fn connect(
        &self,
        source: Option<std::net::Ipv6Addr>,
        to: SocketAddrV6,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let made = self.make(move || {
            let fd = stream_socket()?;
            if let Some(source) = source {
                // The port is chosen with the destination known, or all destinations together
                // could have no more connections than there are ports.
                setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
                bind_to(&fd, SocketAddrV6::new(source, 0, 0, 0))?;
            }
            Ok(fd)
        });
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(made.await?));
        let connected = tokio::time::timeout(timeout, socket.connect(SocketAddr::V6(to))).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Listens for connections to `at`, which must be an address of the namespace.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub async fn listen(&self, at: SocketAddrV6) -> io::Result<TcpListener> {
        let made = self.make(move || {
            let fd = stream_socket()?;
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind_to(&fd, at)?;
            listen(&fd, Backlog::MAXCONN)?;
            Ok(fd)
        });
        TcpListener::from_std(std::net::TcpListener::from(made.await?))
    }

    /// A datagram socket at `at`.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn datagrams(&self, at: SocketAddrV6) -> io::Result<UdpSocket> {
        let made = self.make(move || {
            let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags(), None)?;
            bind_to(&fd, at)?;
            Ok(fd)
        });
        UdpSocket::from_std(std::net::UdpSocket::from(made.await?))
    }

    /// A socket that sends ICMPv6 echo requests and gets the answers to them
    /// (`ping_group_range`), bound to `at`.
    ///
    /// # Errors
    /// As `socket(2)` and `bind(2)`.
    pub async fn echoes(&self, at: std::net::Ipv6Addr) -> io::Result<UdpSocket> {
        let made = self.make(move || {
            let protocol = SockProtocol::IcmpV6;
            let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags(), protocol)?;
            bind_to(&fd, SocketAddrV6::new(at, 0, 0, 0))?;
            Ok(fd)
        });
        UdpSocket::from_std(std::net::UdpSocket::from(made.await?))
    }

    async fn make(
        &self,
        f: impl FnOnce() -> nix::Result<OwnedFd> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        let (made, socket) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waits any more: the socket closes.
            let _ = made.send(f());
        });
        let gone = || io::Error::other("the thread in the host's namespace is gone");
        self.jobs.send(job).await.map_err(|_| gone())?;
        Ok(socket.await.map_err(|_| gone())??)
    }
}

fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

fn stream_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet6, SockType::Stream, flags(), None)
}

fn bind_to(fd: &OwnedFd, at: SocketAddrV6) -> nix::Result<()> {
    use std::os::fd::AsRawFd as _;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(at))
}
