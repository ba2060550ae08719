//! Foreign names: asked of the host's own resolvers.
//!
//! A machine's message is not passed on; the question in it is asked anew, with an id and a port
//! of our own, so that nothing a machine writes reaches a resolver and nobody else can guess what
//! an answer has to look like.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;
use types::NetworkId;

/// Foreign questions that may be open at a time, for all machines of this host. Each holds a
/// socket, and a process has 1024 of these unless told otherwise. Full means SERVFAIL.
const OPEN_MAX: usize = 256;

/// Of these, for the machines of one network: no tenant can take all by asking for names that
/// nobody answers.
const OPEN_PER_NETWORK_MAX: usize = 64;

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
    open: Mutex<HashMap<NetworkId, usize>>,
}

/// A question that is open, until it is dropped.
struct Open<'a> {
    forwarder: &'a Forwarder,
    network: NetworkId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.forwarder.lock();
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
        }
        open.retain(|_, count| *count > 0);
    }
}

impl Forwarder {
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolv_conf,
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NetworkId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if too much is open already.
    fn open(&self, network: NetworkId) -> Option<Open<'_>> {
        let mut open = self.lock();
        let all: usize = open.values().sum();
        let own = open.entry(network).or_default();
        if all >= OPEN_MAX || *own >= OPEN_PER_NETWORK_MAX {
            debug!(%network, "too many foreign questions are open");
            return None;
        }
        *own += 1;
        Some(Open {
            forwarder: self,
            network,
        })
    }

    /// The answer of the first resolver that gives one in time. `None`: there is none, or too much
    /// is being asked already.
    pub(crate) async fn ask(
        &self,
        network: NetworkId,
        query: &Query,
        transport: Transport,
    ) -> Option<Message> {
        let _open = self.open(network)?;
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

    #[test]
    fn no_network_can_take_all_open_questions_and_all_networks_not_more_than_there_are() {
        let network = |id: usize| NetworkId::try_from(u32::try_from(id).unwrap()).unwrap();
        let forwarder = Forwarder::new(PathBuf::new());
        let fill = |id| -> Vec<_> { std::iter::from_fn(|| forwarder.open(network(id))).collect() };
        let mut all: Vec<_> = (0..9).flat_map(fill).collect();
        assert_eq!(all.len(), OPEN_MAX);
        all.pop();
        assert!(forwarder.open(network(9)).is_some());
        drop(all);
        assert_eq!(fill(0).len(), OPEN_PER_NETWORK_MAX);
        assert!(forwarder.lock().is_empty());
    }
}
