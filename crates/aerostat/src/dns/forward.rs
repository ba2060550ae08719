//! Foreign names: asked of the host's own resolvers.
//!
//! A machine's message is not passed on; the question in it is asked anew, with an id and a port
//! of our own, so that nothing a machine writes reaches a resolver and nobody else can guess what
//! an answer has to look like.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

/// Foreign questions that may be open at a time, for all machines of this host. Each holds a
/// socket, and a process has 1024 of these unless told otherwise. Full means SERVFAIL.
pub(crate) const OPEN_MAX: usize = 256;

/// Resolvers that are tried, as in glibc (MAXNS).
const RESOLVERS_MAX: usize = 3;

/// Time for each of them. Clients give up after 5 s (glibc), so the second one is still in time.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest UDP answer we ask for, in bytes: fits every path (DNS flag day 2020).
pub(crate) const UDP_BYTES_MAX: u16 = 1232;

const PORT: u16 = 53;

/// How a question came, and therefore goes on: who asks by TCP wants what did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

pub(crate) struct Forwarder {
    resolv_conf: PathBuf,
    open: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolv_conf,
            open: Semaphore::new(OPEN_MAX),
        }
    }

    /// The answer of the first resolver that gives one in time. `None`: there is none, or too much
    /// is being asked already.
    pub(crate) async fn ask(&self, query: &Query, transport: Transport) -> Option<Message> {
        let Ok(_open) = self.open.try_acquire() else {
            debug!("too many foreign questions are open");
            return None;
        };
        let resolv_conf = tokio::fs::read_to_string(&self.resolv_conf)
            .await
            .unwrap_or_default();
        for resolver in resolvers(&resolv_conf).into_iter().take(RESOLVERS_MAX) {
            let resolver = SocketAddr::new(resolver, PORT);
            match timeout(RESOLVER_TIMEOUT, ask_one(resolver, query, transport)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => debug!(%resolver, %error, "resolver failed"),
                Err(_) => debug!(%resolver, "resolver is silent"),
            }
        }
        None
    }
}

async fn ask_one(resolver: SocketAddr, query: &Query, transport: Transport) -> io::Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let is_ours = |answer: &Message| {
        answer.metadata.id == message.metadata.id
            && answer.metadata.message_type == MessageType::Response
            && answer.queries == message.queries
    };
    match transport {
        Transport::Udp => by_udp(resolver, &bytes, is_ours).await,
        Transport::Tcp => by_tcp(resolver, &bytes, is_ours).await,
    }
}

async fn by_udp(
    resolver: SocketAddr,
    bytes: &[u8],
    is_ours: impl Fn(&Message) -> bool,
) -> io::Result<Message> {
    let any = match resolver {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; UDP_BYTES_MAX as usize];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is not an answer to this question is a forgery or late; the answer may still come.
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && is_ours(&answer)
        {
            return Ok(answer);
        }
    }
}

async fn by_tcp(
    resolver: SocketAddr,
    bytes: &[u8],
    is_ours: impl Fn(&Message) -> bool,
) -> io::Result<Message> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(resolver).await?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    is_ours(&answer)
        .then_some(answer)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The `nameserver` lines of a resolv.conf(5), less those we do not understand.
fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let values = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    values.filter_map(|value| value.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_glibc_does() {
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver\t192.0.2.1 # first\n\
                    nameserver bogus\n nameserver 2001:db8::1\nnameserver\n";
        let expected: Vec<IpAddr> =
            vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(resolvers(text), expected);
        assert!(resolvers("").is_empty());
    }
}
