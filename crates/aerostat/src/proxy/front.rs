//! A VIP on this host: who listens on its ports, and who is connected.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use types::NetworkId;
use types::sixpn::host_addr;

use super::connection::{self, Port, reset};
use super::table::Vip;
use super::upstream::{Registry, Upstreams};
use super::{CONNECTIONS_PER_NETWORK_MAX, Shared};

/// Pause after a connection could not be accepted, which is this host's fault: nothing is gained
/// by asking at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for connections that were told to end. They only have to be polled once.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// A VIP that is answered.
#[derive(Debug)]
pub(super) struct Front {
    vip: Ipv6Addr,
    ports: BTreeMap<u16, Listening>,
    /// Resets every connection.
    reset: CancellationToken,
    connections: TaskTracker,
}

/// Ends with this value; connections go on.
#[derive(Debug)]
struct Listening {
    service: String,
    upstreams: watch::Sender<Upstreams>,
    _stop: DropGuard,
}

impl Front {
    pub(super) fn new(vip: Ipv6Addr, shared: &Shared) -> Self {
        Self {
            vip,
            ports: BTreeMap::new(),
            reset: shared.reset.child_token(),
            connections: TaskTracker::new(),
        }
    }

    /// Listens on the ports that have backends, and no longer on the others: the kernel refuses
    /// there, which tells a client more and sooner than a connection that is accepted and then
    /// reset. Connections to a port that is given up go on; their backends may be well.
    ///
    /// # Errors
    /// The first port that cannot be listened on; the others are.
    pub(super) async fn answer(
        &mut self,
        shared: &Arc<Shared>,
        registry: &mut Registry,
        wanted: &Vip,
    ) -> io::Result<()> {
        self.ports.retain(|port, listening| {
            let backends = wanted.ports.get(port);
            listening.service == wanted.service && backends.is_some_and(|b| !b.is_empty())
        });
        let mut outcome = Ok(());
        for (number, backends) in wanted.ports.iter().filter(|(_, b)| !b.is_empty()) {
            let upstreams = registry.get(backends);
            if let Some(listening) = self.ports.get(number) {
                listening.upstreams.send_replace(upstreams);
                continue;
            }
            match self.listen(shared, wanted, *number, upstreams).await {
                Ok(listening) => drop(self.ports.insert(*number, listening)),
                Err(error) => {
                    let at = SocketAddrV6::new(self.vip, *number, 0, 0);
                    warn!(service = wanted.service, vip = %at, %error, "cannot answer a service");
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    async fn listen(
        &self,
        shared: &Arc<Shared>,
        wanted: &Vip,
        number: u16,
        upstreams: Upstreams,
    ) -> io::Result<Listening> {
        let at = SocketAddrV6::new(self.vip, number, 0, 0);
        let listener = shared.sockets.listen(at).await?;
        let (sender, receiver) = watch::channel(upstreams);
        let stop = CancellationToken::new();
        let acceptor = Acceptor {
            port: Arc::new(Port {
                at,
                service: wanted.service.clone(),
                source: host_addr(wanted.network, shared.host),
                upstreams: receiver,
                sockets: shared.sockets.clone(),
                pipes: Arc::clone(&shared.pipes),
                is_failing: AtomicBool::new(false),
                turn: AtomicUsize::new(rand::random_range(0..usize::MAX / 2)),
            }),
            of_network: shared.of_network(wanted.network),
            shared: Arc::clone(shared),
            reset: self.reset.clone(),
            connections: self.connections.clone(),
            is_full: false,
        };
        info!(service = wanted.service, vip = %at, "answering a service");
        shared
            .drain
            .spawn("proxy listener", acceptor.run(listener, stop.clone()));
        Ok(Listening {
            service: wanted.service.clone(),
            upstreams: sender,
            _stop: stop.drop_guard(),
        })
    }

    /// Answers no longer; connections are reset, as their address goes away.
    pub(super) async fn end(self) {
        drop(self.ports);
        self.reset.cancel();
        self.connections.close();
        if tokio::time::timeout(RESET_TIMEOUT, self.connections.wait())
            .await
            .is_err()
        {
            warn!(vip = %self.vip, "connections of a service that is gone do not end");
        }
    }
}

/// Takes in the connections of one port.
struct Acceptor {
    port: Arc<Port>,
    shared: Arc<Shared>,
    of_network: Arc<Semaphore>,
    reset: CancellationToken,
    connections: TaskTracker,
    /// The last connection found no room; said when it changes.
    is_full: bool,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener, stop: CancellationToken) {
        let drained = self.shared.drain.token();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                () = drained.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, from)) => self.take_in(client, from),
                Err(error) => {
                    warn!(vip = %self.port.at, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take_in(&mut self, client: tokio::net::TcpStream, from: std::net::SocketAddr) {
        let room = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().ok();
        let permits = room(&self.of_network).zip(room(&self.shared.connections));
        let Some((of_network, of_host)) = permits else {
            if !std::mem::replace(&mut self.is_full, true) {
                let max = CONNECTIONS_PER_NETWORK_MAX;
                warn!(vip = %self.port.at, max, "too many connections; new ones are reset");
            }
            // Waiting in line would look as if the service were dead.
            return reset(&client);
        };
        self.is_full = false;
        let served = connection::serve(
            Arc::clone(&self.port),
            client,
            from,
            self.reset.clone(),
            [of_network, of_host],
        );
        let served = self.connections.track_future(served);
        self.shared
            .drain
            .spawn_for_caller("proxy connection", served);
    }
}

impl Shared {
    /// Room for connections of `network`.
    fn of_network(&self, network: NetworkId) -> Arc<Semaphore> {
        let mut networks = self
            .networks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let room = networks.entry(network);
        Arc::clone(room.or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS_PER_NETWORK_MAX))))
    }
}
