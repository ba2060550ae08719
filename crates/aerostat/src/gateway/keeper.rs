//! One task that owns who is let in: takes knocks, asks, admits, and removes who is silent or no
//! longer wanted. Look-ups are tasks of their own, so that a slow one holds up nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::HostNet;
use net::wireguard::{Backend as _, Knock, PeerConfig, PeerId, PublicKey, Timestamp};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::fleet::WireGuardPeer;
use types::{HostId, NetworkId};

use super::addresses::Place;
use super::strangers::Strangers;
use super::{BoxError, Gateway, IDLE, Lookup, OnNetwork, initiations};

/// The client makes a new initiation after 5 s, and what comes then is too late for this one.
const LOOKUP: Duration = Duration::from_secs(4);
/// At a time. Further knocks wait in the engine's channel, and what does not fit in there is
/// dropped and counted.
const LOOKUPS_MAX: usize = 64;
/// How often silence and the directory are looked at.
const TICK: Duration = Duration::from_secs(5);
/// Ticks between writes of the times of handshakes.
const WRITE_TICKS: u64 = 12;
/// Between two log lines about the same kind of refusal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a look-up came to.
enum Outcome {
    /// Found, and its network is ready.
    Ready(WireGuardPeer, Place),
    Unknown,
    /// A peer of another gateway, or a row that cannot be one.
    Elsewhere(HostId),
    Failed(BoxError),
}

struct Installed {
    id: PeerId,
    name: String,
    place: Place,
}

struct Keeper {
    gateway: Gateway,
    strangers: Strangers,
    installed: HashMap<PublicKey, Installed>,
    /// Routed, and with a resolver.
    ready: HashSet<NetworkId>,
    lookups: JoinSet<(Knock, Outcome)>,
    /// Asks whether peers are still wanted; gives those that are not.
    checks: JoinSet<Vec<PublicKey>>,
    written: Vec<(PublicKey, Timestamp)>,
    logged: Option<Instant>,
}

pub(super) async fn run(gateway: Gateway, stop: CancellationToken) {
    let mut keeper = Keeper {
        gateway,
        strangers: Strangers::default(),
        installed: HashMap::new(),
        ready: HashSet::new(),
        lookups: JoinSet::new(),
        checks: JoinSet::new(),
        written: Vec::new(),
        logged: None,
    };
    let mut interval = tokio::time::interval(TICK.min(keeper.idle()));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let check = Arc::clone(&keeper.gateway.handle.check);
    let mut ticks = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(knock) = keeper.gateway.knocks.recv(), if keeper.lookups.len() < LOOKUPS_MAX => {
                keeper.knock(knock);
            }
            Some(done) = keeper.lookups.join_next() => keeper.looked_up(done),
            Some(done) = keeper.checks.join_next() => keeper.checked(done),
            () = check.notified() => keeper.check(),
            _ = interval.tick() => {
                ticks += 1;
                keeper.remove_idle();
                keeper.check();
                if ticks % WRITE_TICKS == 0 {
                    keeper.write().await;
                }
            }
        }
    }
    keeper.write().await;
}

impl Keeper {
    fn idle(&self) -> Duration {
        self.gateway.config.idle.unwrap_or(IDLE)
    }

    fn knock(&mut self, knock: Knock) {
        let handle = &self.gateway.handle;
        handle.count(|counts| counts.knocks += 1);
        let (key, now) = (knock.public_key, Instant::now());
        let came_before = handle.engine.remembers(&key);
        let strangers = &self.strangers;
        if !strangers.is_worth_a_lookup(now, &key, knock.from, came_before) {
            handle.count(|counts| counts.spared += 1);
            handle.engine.decline(&key);
            return;
        }
        let asking = Asking {
            lookup: Arc::clone(&self.gateway.lookup),
            on_network: Arc::clone(&self.gateway.on_network),
            net: self.gateway.config.net.clone(),
            host: self.gateway.config.host,
            ready: self.ready.clone(),
        };
        self.lookups.spawn(async move {
            let asked = timeout(LOOKUP, asking.ask(&key)).await;
            let outcome = asked.unwrap_or_else(|late| Outcome::Failed(late.into()));
            (knock, outcome)
        });
    }

    fn looked_up(&mut self, done: Result<(Knock, Outcome), JoinError>) {
        let (knock, outcome) = match done {
            Ok(done) => done,
            // The engine forgets who knocked by itself.
            Err(error) => {
                tracing::error!(%error, "a look-up of a WireGuard key ended by itself");
                return;
            }
        };
        let key = knock.public_key;
        if !matches!(outcome, Outcome::Failed(_)) && self.strangers.answered() {
            info!("WireGuard keys can be looked up again");
        }
        match outcome {
            Outcome::Ready(peer, place) => return self.admit(&knock, &peer, place),
            Outcome::Unknown => {
                self.strangers.unknown(Instant::now(), key, knock.from);
                self.gateway.handle.count(|counts| counts.unknown += 1);
                if self.may_log() {
                    info!(%key, from = %knock.from, "nobody's WireGuard key knocked");
                }
            }
            Outcome::Elsewhere(gateway) => {
                self.strangers.unknown(Instant::now(), key, knock.from);
                self.gateway.handle.count(|counts| counts.unknown += 1);
                if self.may_log() {
                    info!(%key, from = %knock.from, %gateway, "a peer of another gateway knocked");
                }
            }
            Outcome::Failed(error) => {
                self.gateway.handle.count(|counts| counts.failed += 1);
                if self.strangers.failed() {
                    let error = types::chain(&*error);
                    warn!(
                        error,
                        "WireGuard keys cannot be looked up; clients have to wait"
                    );
                }
            }
        }
        self.gateway.handle.engine.decline(&key);
    }

    fn admit(&mut self, knock: &Knock, peer: &WireGuardPeer, place: Place) {
        let key = knock.public_key;
        self.ready.insert(place.network);
        let known = self.installed.get(&key);
        let known = known
            .filter(|known| known.place == place)
            .map(|known| known.id);
        if known.is_none() {
            self.make_room(&key, place);
        }
        let id = known.unwrap_or_else(|| self.gateway.addresses.give(place));
        let config = PeerConfig {
            id,
            public_key: key,
            endpoint: None,
            keepalive_s: None,
        };
        let (name, from) = (peer.name.clone(), knock.from);
        match self.gateway.handle.engine.admit(&config) {
            Ok(true) => {
                self.gateway.handle.count(|counts| counts.admitted += 1);
                info!(peer = name, network = %place.network, %from, "a WireGuard peer is here");
                self.installed.insert(key, Installed { id, name, place });
                return;
            }
            Ok(false) => debug!(peer = name, %from, "a WireGuard peer did not wait"),
            Err(error) => {
                let error = types::chain(&error);
                warn!(peer = name, %from, error, "a WireGuard peer cannot be let in");
            }
        }
        self.gateway.handle.count(|counts| counts.failed += 1);
        if known.is_none() {
            self.gateway.addresses.take(id);
        }
    }

    /// The directory has said whose a place is now: whoever else had it, or the key elsewhere, is
    /// of yesterday.
    fn make_room(&mut self, key: &PublicKey, place: Place) {
        let stale: Vec<PublicKey> = self
            .installed
            .iter()
            .filter(|(other, installed)| *other == key || installed.place == place)
            .map(|(other, _)| *other)
            .collect();
        for key in stale {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &PublicKey) -> Option<String> {
        let installed = self.installed.remove(key)?;
        self.gateway.handle.engine.remove_peer(installed.id);
        self.gateway.addresses.take(installed.id);
        Some(installed.name)
    }

    fn remove_idle(&mut self) {
        let idle = self.idle();
        for peer in self.gateway.handle.peers() {
            if peer.last_heard.is_none_or(|heard| heard > idle)
                && let Some(name) = self.remove(&peer.public_key)
            {
                self.gateway.handle.count(|counts| counts.idle += 1);
                info!(peer = name, "a silent WireGuard peer was removed");
            }
        }
    }

    /// One round at a time.
    fn check(&mut self) {
        if self.installed.is_empty() || !self.checks.is_empty() {
            return;
        }
        let lookup = Arc::clone(&self.gateway.lookup);
        let host = self.gateway.config.host;
        let peers: Vec<(PublicKey, Place)> = self
            .installed
            .iter()
            .map(|(key, installed)| (*key, installed.place))
            .collect();
        self.checks.spawn(async move {
            let mut unwanted = Vec::new();
            for (key, place) in peers {
                match timeout(LOOKUP, lookup(key.to_string())).await {
                    Ok(Ok(Some(peer))) if Place::of(&peer, host) == Some(place) => {}
                    Ok(Ok(_)) => unwanted.push(key),
                    // Peers go on while the directory cannot be asked.
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            unwanted
        });
    }

    fn checked(&mut self, done: Result<Vec<PublicKey>, JoinError>) {
        for key in done.unwrap_or_default() {
            if let Some(name) = self.remove(&key) {
                self.gateway.handle.count(|counts| counts.deleted += 1);
                info!(peer = name, "a WireGuard peer that was deleted is gone");
            }
        }
    }

    async fn write(&mut self) {
        let all = self.gateway.handle.engine.last_initiations();
        if all == self.written {
            return;
        }
        let path = self.gateway.config.initiations.clone();
        let written = tokio::task::spawn_blocking(move || {
            let result = initiations::write(&path, &all);
            (result, all)
        });
        match written.await {
            Ok((Ok(()), all)) => self.written = all,
            Ok((Err(error), _)) => warn!(%error, "cannot write the times of handshakes"),
            Err(error) => warn!(%error, "cannot write the times of handshakes"),
        }
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        let may = self.logged.is_none_or(|last| now - last >= LOG_INTERVAL);
        if may {
            self.logged = Some(now);
        }
        may
    }
}

/// What a look-up needs.
struct Asking {
    lookup: Arc<Lookup>,
    on_network: Arc<OnNetwork>,
    net: HostNet,
    host: HostId,
    ready: HashSet<NetworkId>,
}

impl Asking {
    async fn ask(self, key: &PublicKey) -> Outcome {
        let peer = match (self.lookup)(key.to_string()).await {
            Ok(Some(peer)) => peer,
            Ok(None) => return Outcome::Unknown,
            Err(error) => return Outcome::Failed(error),
        };
        let Some(place) = Place::of(&peer, self.host) else {
            return Outcome::Elsewhere(peer.gateway);
        };
        if !self.ready.contains(&place.network)
            && let Err(error) = self.prepare(place.network).await
        {
            return Outcome::Failed(error);
        }
        Outcome::Ready(peer, place)
    }

    async fn prepare(self, network: NetworkId) -> Result<(), BoxError> {
        let net = self.net;
        tokio::task::spawn_blocking(move || net.ensure_clients(network)).await??;
        (self.on_network)(network).await
    }
}
