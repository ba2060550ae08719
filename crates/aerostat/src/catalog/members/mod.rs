//! Who of the fleet is there: SWIM (foca) over UDP on the host plane, and from it the status of
//! each host in the catalog.
//!
//! ```text
//!  directory ── hosts ──► greet those who are no members
//!                            │
//!  UDP 4282 ◄──────────► Membership ──► alive: ok, suspect: unknown, down: unreachable
//! ```
//!
//! The mesh vouches for the address that a datagram comes from, and the address is the host: who
//! says to be another is not heard. A host that the directory knows and that has not been heard of
//! is unknown at first, and unreachable after a while.

mod codec;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use types::HostId;
use types::fleet::{HostRecord, HostStatus};

use super::Catalog;
use codec::Life;
pub use state::fuzz_members;
use state::{DATAGRAM_BYTES_MAX, Membership};

/// UDP port on the host plane.
pub const PORT: u16 = net::MEMBERSHIP_PORT;

/// A change of opinion that nothing announces (a suspicion) is found within this time.
const OPINION_INTERVAL: Duration = Duration::from_millis(250);

/// What membership needs.
pub struct Config {
    pub host: HostId,
    /// On [`PORT`] of this host's address in the host plane.
    pub socket: UdpSocket,
    /// Where a host listens.
    pub address: Box<dyn Fn(HostId) -> SocketAddr + Send + Sync>,
    /// The directory's hosts.
    pub hosts: watch::Receiver<Arc<Vec<HostRecord>>>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Keeps the statuses of hosts in `catalog` until `stop`.
pub async fn run(mut config: Config, catalog: Catalog, stop: CancellationToken) {
    let life = Life {
        host: config.host,
        number: catalog.life(),
        renewal: 0,
    };
    let mut membership = Membership::new(life, rand::random(), Instant::now());
    let mut told = BTreeMap::new();
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    config.hosts.mark_changed();
    let mut directory = true;
    loop {
        let due = membership.due().min(Instant::now() + OPINION_INTERVAL);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = config.hosts.changed(), if directory => {
                // Without a directory it goes on with the hosts that it knows.
                directory = changed.is_ok();
                let hosts = Arc::clone(&config.hosts.borrow_and_update());
                let hosts: BTreeSet<HostId> = hosts.iter().map(|record| record.id).collect();
                membership.set_hosts(&hosts, Instant::now());
            }
            received = config.socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => {
                    if let Some(host) = host_at(&config, &buffer[..length], from) {
                        membership.receive(host, &buffer[..length], Instant::now());
                    }
                }
                // An ICMP answer to what was sent: nobody listens there, which will show.
                Err(error) => debug!(%error, "membership cannot receive"),
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = Instant::now();
        membership.tick(now);
        for (host, datagram) in membership.take_sends() {
            let sent = config
                .socket
                .send_to(&datagram, (config.address)(host))
                .await;
            if let Err(error) = sent {
                debug!(%host, %error, "membership cannot send");
            }
        }
        tell(&catalog, membership.statuses(now), &mut told);
    }
}

/// The host that the datagram says it comes from, if that is where it comes from.
fn host_at(config: &Config, datagram: &[u8], from: SocketAddr) -> Option<HostId> {
    let host = codec::sender(datagram)?;
    ((config.address)(host) == from).then_some(host)
}

/// Tells the catalog what has changed.
fn tell(
    catalog: &Catalog,
    statuses: BTreeMap<HostId, HostStatus>,
    told: &mut BTreeMap<HostId, HostStatus>,
) {
    for (host, status) in &statuses {
        if told.get(host) != Some(status) {
            catalog.set_host_status(*host, *status);
        }
    }
    *told = statuses;
}
