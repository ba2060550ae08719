//! Sends the probes and takes in their answers.

use std::io;
use std::net::SocketAddrV6;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::sixpn::{HOST_PLANE, host_addr};
use types::{HostId, SixPn};

use super::{Mesh, probe};

/// Between two probes of a host. Also keeps the session young, so that a host that has begun anew
/// is noticed within WireGuard's 15 s.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Before a socket that failed is asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Longer than any answer to our probes.
const MESSAGE_BYTES_MAX: usize = 256;

impl Mesh {
    /// Probes every peer until `drain` says that it is over. What is found out is in the status.
    pub async fn run(&self, drain: CancellationToken) {
        while !drain.is_cancelled() {
            tokio::select! {
                Err(error) = self.probe() => {
                    warn!(error = %error, "hosts cannot be probed; trying again");
                }
                () = drain.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = drain.cancelled() => return,
            }
        }
    }

    /// Ends only if the socket fails.
    async fn probe(&self) -> io::Result<()> {
        let us = host_addr(HOST_PLANE, self.shared.host);
        let socket = self.shared.sockets.echoes(us).await?;
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u16;
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        loop {
            // Both may be dropped: a tick comes again, and a message stays in the socket.
            tokio::select! {
                _ = ticks.tick() => {
                    number = number.wrapping_add(1);
                    self.send_probes(&socket, number).await;
                }
                received = socket.recv_from(&mut buffer) => {
                    let (bytes, from) = received?;
                    self.take_answer(&buffer[..bytes], from);
                }
            }
        }
    }

    async fn send_probes(&self, socket: &UdpSocket, number: u16) {
        let hosts: Vec<HostId> = {
            let mut peers = self.peers();
            let now = Instant::now();
            let hosts: Vec<_> = peers.hosts.keys().copied().collect();
            for host in &hosts {
                peers.windows.entry(*host).or_default().sent(number, now);
            }
            hosts
        };
        for host in hosts {
            let to = SocketAddrV6::new(host_addr(HOST_PLANE, host), 0, 0, 0);
            // A probe that cannot be sent is one that is not answered.
            let _ = socket.send_to(&probe::request(number), to).await;
        }
    }

    fn take_answer(&self, message: &[u8], from: std::net::SocketAddr) {
        let now = Instant::now();
        let std::net::IpAddr::V6(from) = from.ip() else {
            return;
        };
        let host = SixPn::from_addr(from).map(|fields| fields.host);
        let (Some(host), Some(number)) = (host, probe::answered(message)) else {
            return;
        };
        if let Some(window) = self.peers().windows.get_mut(&host) {
            window.answered(number, now);
        }
    }
}
