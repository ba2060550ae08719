//! The door between a cluster's API server and the network of its pods.
//!
//! ```text
//!   pod ── VIP of kubernetes.default ── proxy of the pod's host ──(mesh)──┐
//!                                                                         ▼
//!   pod <── webhooks, aggregated APIs, proxy ── API server <── fdaa:<net>:<host>:0:1::1, port 6443
//! ```
//!
//! Both ways begin and end at this host's own address in the cluster's network, from which only
//! hosts can send: the guards keep every other network, and so every other tenant, away from it.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::egress::{Dialer, Stream};
use kube::pki::Pki;
use kube::server::Entrance;
use kube::services::Door;
use net::{CLUSTER_API_PORT, HostNet, Sockets};
use tokio::sync::{Mutex, mpsc};
use types::sixpn::{GATEWAY_PEERS, MACHINE_FIELD_MIN, host_addr, is_host_addr, network_of};
use types::{HostId, NetworkId, SixPn};

/// The longest way there and back, and a lost packet. Callers give up earlier.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// This host's place in the networks of machines.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    pub(crate) host: HostId,
    pub(crate) net: HostNet,
    /// Of the host's namespace.
    pub(crate) sockets: Sockets,
}

#[derive(Debug)]
pub(super) struct ClusterDoor {
    inside: Inside,
    pki: Arc<Pki>,
    entrances: mpsc::Sender<Entrance>,
    /// The cluster IP that it was opened for.
    opened: Mutex<Option<Ipv6Addr>>,
    /// That of the pods, once it is known.
    network: OnceLock<NetworkId>,
}

impl ClusterDoor {
    pub(super) fn new(inside: Inside, pki: Arc<Pki>, entrances: mpsc::Sender<Entrance>) -> Self {
        Self {
            inside,
            pki,
            entrances,
            opened: Mutex::default(),
            network: OnceLock::new(),
        }
    }

    async fn answer(&self, cluster_ip: Ipv6Addr) -> io::Result<SocketAddr> {
        let network = network_of(cluster_ip).ok_or_else(|| other("it is no 6PN address"))?;
        let own = host_addr(network, self.inside.host);
        let at = SocketAddrV6::new(own, CLUSTER_API_PORT, 0, 0);
        let mut opened = self.opened.lock().await;
        match *opened {
            Some(before) if before == cluster_ip => return Ok(at.into()),
            Some(_) => return Err(other("the cluster's address has changed; start it again")),
            None => {}
        }
        let net = self.inside.net.clone();
        let ensured = tokio::task::spawn_blocking(move || net.ensure_network(network)).await;
        ensured.map_err(other)?.map_err(other)?;
        let listener = self.inside.sockets.listen(at).await?;
        let names = [cluster_ip.to_string(), own.to_string()];
        let tls = self.pki.server_config(&names).map_err(other)?;
        let entrance = Entrance { listener, tls };
        let stopping = |_| other("the API server is shutting down");
        self.entrances.send(entrance).await.map_err(stopping)?;
        *opened = Some(cluster_ip);
        // The first one, as `opened` says.
        let _ = self.network.set(network);
        Ok(at.into())
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let network = self.network.get().copied();
        let network = network.ok_or_else(|| io::Error::from(io::ErrorKind::NetworkUnreachable))?;
        let to = target(network, to).ok_or(io::ErrorKind::PermissionDenied)?;
        let source = Some(host_addr(network, self.inside.host));
        let stream = self
            .inside
            .sockets
            .connect(source, to, DIAL_TIMEOUT)
            .await?;
        // Small questions must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

impl Door for ClusterDoor {
    fn open(&self, cluster_ip: Ipv6Addr) -> BoxFuture<'_, io::Result<SocketAddr>> {
        Box::pin(self.answer(cluster_ip))
    }
}

impl Dialer for ClusterDoor {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(self.connect(to))
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

/// An address that the API server of `network` may dial: machines and WireGuard clients of that
/// network, and API servers of the cluster. This host can reach far more, and who writes an
/// EndpointSlice chooses the address.
fn target(network: NetworkId, to: SocketAddr) -> Option<SocketAddrV6> {
    let IpAddr::V6(ip) = to.ip() else {
        return None;
    };
    let fields = SixPn::from_addr(ip)?;
    let is_inside = network != NetworkId::HOST_PLANE && fields.network == network;
    let is_pod = fields.machine >= MACHINE_FIELD_MIN || fields.machine == GATEWAY_PEERS;
    let is_api = is_host_addr(ip) && to.port() == CLUSTER_API_PORT;
    (is_inside && (is_pod || is_api)).then(|| SocketAddrV6::new(ip, to.port(), 0, 0))
}

#[cfg(test)]
mod tests {
    use types::sixpn::{HOST_PLANE, RESOLVER, peer_addr, vip};

    use super::*;

    #[test]
    fn nothing_outside_of_the_clusters_network_is_dialled() {
        let (ours, theirs) = (
            NetworkId::try_from(7).unwrap(),
            NetworkId::try_from(8).unwrap(),
        );
        let host = HostId::new(2);
        let machine = |network| SixPn::of_machine(network, host, MACHINE_FIELD_MIN).addr();
        let may = |ip: Ipv6Addr, port| target(ours, SocketAddr::new(ip.into(), port)).is_some();
        assert!(may(machine(ours), 8443));
        assert!(may(peer_addr(ours, host, 1), 1));
        assert!(may(host_addr(ours, host), CLUSTER_API_PORT));
        assert!(!may(host_addr(ours, host), 4280));
        for ip in [
            machine(theirs),
            host_addr(theirs, host),
            host_addr(HOST_PLANE, host),
            machine(HOST_PLANE),
            vip(ours, 1),
            RESOLVER,
            Ipv6Addr::LOCALHOST,
            "2001:db8::1".parse().unwrap(),
            "::ffff:127.0.0.1".parse().unwrap(),
        ] {
            assert!(!may(ip, CLUSTER_API_PORT), "{ip}");
        }
        assert!(target(ours, "127.0.0.1:6443".parse().unwrap()).is_none());
    }
}
