//! Hosts side by side on the loopback interface, for tests of what goes from host to host.
//!
//! Host n is 127.107.(n in two bytes), so that here too the address that a connection comes from
//! tells who calls. Ports are the kernel's choice, and kept under those that they stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use types::HostId;

use super::{Rpc, Way};

/// Hosts that reach each other. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loopback {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    listening: BTreeMap<(HostId, u16), u16>,
    silent: BTreeSet<HostId>,
}

impl Loopback {
    /// What `host` asks the others with, and listens with.
    pub(crate) fn rpc(&self, host: HostId) -> Rpc {
        let way = Way::Loopback(self.clone());
        Rpc { host, way }
    }

    /// From now on, connections to `host` are neither made nor refused.
    pub(crate) fn silence(&self, host: HostId) {
        self.state.lock().unwrap().silent.insert(host);
    }

    pub(super) async fn listen(&self, host: HostId, port: u16) -> io::Result<TcpListener> {
        let listener = TcpListener::bind((address(host), 0)).await?;
        let bound = listener.local_addr()?.port();
        let mut state = self.state.lock().unwrap();
        state.listening.insert((host, port), bound);
        Ok(listener)
    }

    pub(super) async fn connect(
        &self,
        from: HostId,
        to: HostId,
        port: u16,
    ) -> io::Result<TcpStream> {
        let (bound, is_silent) = {
            let state = self.state.lock().unwrap();
            let bound = state.listening.get(&(to, port)).copied();
            (bound, state.silent.contains(&to))
        };
        if is_silent {
            tokio::time::sleep(super::CONNECT_TIMEOUT).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let bound = bound.ok_or(io::ErrorKind::ConnectionRefused)?;
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(address(from), 0).into())?;
        socket
            .connect(SocketAddrV4::new(address(to), bound).into())
            .await
    }
}

fn address(host: HostId) -> Ipv4Addr {
    let [high, low] = host.number().to_be_bytes();
    Ipv4Addr::new(127, 107, high, low)
}

pub(super) fn caller(from: SocketAddr) -> Option<HostId> {
    match from.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => match ip.octets() {
            [127, 107, high, low] => Some(HostId::new(u16::from_be_bytes([high, low]))),
            _ => None,
        },
        std::net::IpAddr::V6(_) => None,
    }
}
