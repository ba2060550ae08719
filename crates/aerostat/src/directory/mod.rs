//! The directory: what the whole fleet must agree on. Organisations, app names, network ids, hosts
//! and their numbers, services and their VIPs, WireGuard peers, tokens, secrets (as ciphertext).
//!
//! ```text
//!  authority (the host that founded the fleet)       copy (every other host)
//!
//!  Handle ── Command ─► decide ─► store ◄─ reads     reads ─► store ◄── Follower
//!    ▲                              │                            ▲
//!    │ rpc: /directory/v1/command   └── rpc: …/watch ── lines ───┘
//!    ├──────────────────── Command ───────────────────── Handle (changes)
//!    └ rpc: …/look-up ◄─── key ────────────────────────── Handle (what is not here yet)
//! ```
//!
//! There is one authority over these keys. Each change is decided over the rows as they are and
//! written in one transaction, so a crash leaves all of it or nothing. The copies are read by
//! everybody else, and outlive the authority's absence and their own restarts: machines need no
//! change of the directory to run. A copy may be late; whoever does not find an app or a peer in
//! it asks the authority once, and whoever has changed something waits until the copy has it.
//!
//! ```text
//! directory/v1/orgs/<slug>                            Org
//! directory/v1/apps/<name>                            App       (unique over all organisations)
//! directory/v1/networks/<org>/<name>                  Network
//! directory/v1/network-id-last                        the newest id given out
//! directory/v1/hosts/<id>                             HostRecord
//! directory/v1/host-numbers/<id>                      public key that the number was given to
//! directory/v1/host-number-last                       the newest number given out unasked
//! directory/v1/join-tokens/<sha256>                   JoinTokenRow   (never copied)
//! directory/v1/token-keys/<id>                        public key of tokens, in hexadecimal
//! directory/v1/tokens/<id>                            Token     (what it may, not its text)
//! directory/v1/token-revocations/<id>                 of a token, or of a block of one
//! directory/v1/secrets/<app>                          SealedSecrets
//! directory/v1/services/<app>/<name>                  Service
//! directory/v1/vip-last/<network>                     the newest VIP number given out
//! directory/v1/wireguard-peers/<public key>           WireGuardPeer  (key in hexadecimal)
//! directory/v1/wireguard-names/<org>/<name>           public key
//! directory/v1/wireguard-index-last/<network>/<host>  the newest index given out
//! directory-copy/v1/position                          Position       (of a copy only)
//! ```
//!
//! Rows are JSON; the version in the prefix changes when a reader of the old could be misled.

mod api_tokens;
mod apps;
mod authority;
mod changes;
mod command;
mod error;
mod flights;
mod follower;
mod hosts;
mod link;
mod peers;
mod rows;
mod secrets;
mod serve;
mod services;
mod tokens;
mod wire;

use std::sync::Arc;

use jiff::Timestamp;
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::fleet::{HostRecord, PublicKeyText, WireGuardPeer};
use types::service::{Service, ServiceSpec};
use types::{AppName, HostId, OrgSlug};

pub use command::{Command, Reply};
pub use error::{Error, Refused};
pub use link::Link;
pub use rows::{App, Network, NewApp, NewPeer, Org};
pub use secrets::{Sealed, SealedSecret, SealedSecrets};
pub use serve::router;
pub use wire::{Answer, Failure, From, Outcome};

use authority::Writer;
use follower::Follower;
use link::RpcLink;
use rows::{NETWORKS, ORGS, PEERS, Rows};

use crate::rpc::Rpc;

/// The organisation that is there from the start.
pub const PERSONAL: &str = "personal";
/// The network of an organisation whose apps do not name one.
pub const DEFAULT_NETWORK: &str = "default";

/// Whether another host has the authority over the directory in `store`.
pub fn is_copy(store: &Store) -> bool {
    store.get(follower::POSITION).is_some()
}

/// How others reach the directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: Rows,
    side: Side,
    hosts: watch::Sender<Arc<Vec<HostRecord>>>,
    services: watch::Sender<Arc<Vec<Service>>>,
    /// Counts changes.
    secrets: watch::Sender<u64>,
}

#[derive(Debug)]
enum Side {
    Authority(Writer),
    Copy(Follower),
}

impl Handle {
    /// Takes over the directory's keys in `store` as their authority, and makes the first
    /// organisation if there is none.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn open(store: Store) -> Result<Self, Error> {
        let rows = Rows(store);
        let writer = Writer::new(rows.clone());
        writer.found().await?;
        Ok(Self::new(rows, Side::Authority(writer)))
    }

    /// A copy in `store` of what `authority` has, and the way there. [`Self::run`] keeps it; until
    /// it has run for the first time, the copy is empty.
    pub fn follow(store: Store, rpc: Rpc, authority: HostId) -> Self {
        Self::follow_by(store, Arc::new(RpcLink::new(rpc, authority)), authority)
    }

    /// [`Self::follow`], by any way to the authority.
    pub fn follow_by(store: Store, link: Arc<dyn Link>, authority: HostId) -> Self {
        let rows = Rows(store);
        let follower = Follower::new(rows.clone(), link, authority);
        Self::new(rows, Side::Copy(follower))
    }

    fn new(rows: Rows, side: Side) -> Self {
        let inner = Arc::new(Inner {
            hosts: watch::Sender::new(Arc::new(rows.hosts())),
            services: watch::Sender::new(Arc::new(rows.services())),
            secrets: watch::Sender::new(0),
            rows,
            side,
        });
        changes::feed(&inner);
        Self { inner }
    }

    /// Keeps a copy near the authority until `stop`. There is nothing to keep on the authority.
    pub async fn run(self, stop: CancellationToken) {
        match &self.inner.side {
            Side::Authority(_) => {}
            Side::Copy(follower) => follower.run(stop).await,
        }
    }

    /// The host whose word counts; `None`: this one.
    pub fn authority(&self) -> Option<HostId> {
        match &self.inner.side {
            Side::Authority(_) => None,
            Side::Copy(follower) => Some(follower.authority()),
        }
    }

    pub fn org(&self, slug: &OrgSlug) -> Option<Org> {
        self.inner.rows.read(&rows::org_key(slug))
    }

    pub fn orgs(&self) -> Vec<Org> {
        self.inner.rows.list(ORGS)
    }

    /// The app of this name; what a copy does not have, the authority is asked for.
    ///
    /// # Errors
    /// [`Refused::AppNotFound`], or that the authority could not be asked.
    pub async fn app(&self, name: &AppName) -> Result<App, Error> {
        let key = rows::app_key(name);
        let app = self.find(&key).await?;
        Ok(app.ok_or_else(|| Refused::AppNotFound { name: name.clone() })?)
    }

    /// Every app, by name.
    pub fn apps(&self) -> Vec<App> {
        self.inner.rows.list(rows::APPS)
    }

    /// Every network that was ever made.
    pub fn networks(&self) -> Vec<Network> {
        self.inner.rows.list(NETWORKS)
    }

    /// Every host of the fleet, by number.
    pub fn hosts(&self) -> Vec<HostRecord> {
        self.inner.rows.hosts()
    }

    pub fn host(&self, id: HostId) -> Option<HostRecord> {
        self.inner.rows.read(&rows::host_key(id))
    }

    /// The hosts as they are now, and whenever they change.
    pub fn hosts_changed(&self) -> watch::Receiver<Arc<Vec<HostRecord>>> {
        self.inner.hosts.subscribe()
    }

    /// The services of an app, by name.
    pub fn services(&self, app: &AppName) -> Vec<Service> {
        self.inner.rows.list(&rows::services_of(app))
    }

    pub fn service(&self, app: &AppName, name: &str) -> Option<Service> {
        self.inner.rows.read(&rows::service_key(app, name))
    }

    /// The services of all apps as they are now, and whenever they change.
    pub fn services_changed(&self) -> watch::Receiver<Arc<Vec<Service>>> {
        self.inner.services.subscribe()
    }

    /// Every WireGuard peer of an organisation.
    pub fn wireguard_peers(&self, org: &OrgSlug) -> Vec<WireGuardPeer> {
        let mut peers: Vec<WireGuardPeer> = self.inner.rows.list(PEERS);
        peers.retain(|peer| peer.org == *org);
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// The peer with this public key; what a copy does not have, the authority is asked for, once
    /// for however many that wait for the same key. Text that is no key is nobody's.
    ///
    /// # Errors
    /// If the authority could not be asked.
    pub async fn peer_by_key(
        &self,
        public_key: &PublicKeyText,
    ) -> Result<Option<WireGuardPeer>, Error> {
        match rows::peer_key(public_key) {
            Some(key) => self.find(&key).await,
            None => Ok(None),
        }
    }

    async fn find<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let here = self.inner.rows.read(key);
        match &self.inner.side {
            Side::Copy(follower) if here.is_none() => {
                let there = follower.look_up(key).await?;
                Ok(there.and_then(|row| rows::decode(key, row.as_bytes())))
            }
            Side::Authority(_) | Side::Copy(_) => Ok(here),
        }
    }

    /// Does `command`: here if this is the authority, otherwise there, and then waits until the
    /// copy has it.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn perform(&self, command: Command) -> Result<Reply, Error> {
        match &self.inner.side {
            Side::Authority(writer) => Ok(writer.perform(command).await?.reply),
            Side::Copy(follower) => follower.perform(command).await,
        }
    }

    /// [`Self::perform`], for commands that have nothing to tell.
    async fn done(&self, command: Command) -> Result<(), Error> {
        self.perform(command).await.map(drop)
    }

    /// An answer to another question: the authority runs a program that this one cannot talk to.
    fn mismatch(&self) -> Error {
        let host = match &self.inner.side {
            Side::Authority(_) => String::new(),
            Side::Copy(follower) => follower.authority_name(),
        };
        let reason = "its answer is to another question".into();
        Error::Failed { host, reason }
    }
}

/// Changes. All of them may be repeated.
impl Handle {
    /// Makes an app, and its network if that is new.
    ///
    /// # Errors
    /// If the name is taken, the organisation does not exist or the network's name cannot be one.
    pub async fn create_app(&self, new: NewApp, now: Timestamp) -> Result<App, Error> {
        match self.perform(Command::CreateApp { new, now }).await? {
            Reply::App(app) => Ok(app),
            _ => Err(self.mismatch()),
        }
    }

    /// Forgets an app and its services. Its network stays, and so do its machines: whoever asks
    /// looks after those first.
    ///
    /// # Errors
    /// If there is no such app.
    pub async fn delete_app(&self, name: &AppName) -> Result<(), Error> {
        let name = name.clone();
        self.done(Command::DeleteApp { name }).await
    }

    /// Writes a host's record. A host may write its own; the authority, any.
    ///
    /// # Errors
    /// [`Refused::HostTaken`] if the id is of another public key.
    pub async fn put_host(&self, record: HostRecord) -> Result<(), Error> {
        let record = Box::new(record);
        self.done(Command::PutHost { record }).await
    }

    /// Forgets a host, its number and the peers of its gateway.
    ///
    /// # Errors
    /// If there is no such host.
    pub async fn remove_host(&self, id: HostId) -> Result<(), Error> {
        self.done(Command::RemoveHost { id }).await
    }

    /// Gives a number (the `wanted` one, or the next that is free) to the host with this key. It
    /// is the host's for good once its record is put.
    ///
    /// # Errors
    /// [`Refused::HostTaken`], or that this is not the authority.
    pub async fn allocate_host_number(
        &self,
        wanted: Option<u16>,
        public_key: &PublicKeyText,
    ) -> Result<HostId, Error> {
        let public_key = public_key.clone();
        let command = Command::AllocateHostNumber { wanted, public_key };
        match self.perform(command).await? {
            Reply::Host(id) => Ok(id),
            _ => Err(self.mismatch()),
        }
    }

    /// Makes a service or replaces it; it keeps its VIP.
    ///
    /// # Errors
    /// If there is no such app.
    pub async fn put_service(
        &self,
        app: &AppName,
        name: &str,
        spec: ServiceSpec,
    ) -> Result<Service, Error> {
        let (app, name) = (app.clone(), name.to_owned());
        match self
            .perform(Command::PutService { app, name, spec })
            .await?
        {
            Reply::Service(service) => Ok(service),
            _ => Err(self.mismatch()),
        }
    }

    /// # Errors
    /// If there is no such service.
    pub async fn delete_service(&self, app: &AppName, name: &str) -> Result<(), Error> {
        let (app, name) = (app.clone(), name.to_owned());
        self.done(Command::DeleteService { app, name }).await
    }

    /// Makes a WireGuard peer, and gives it an address at its gateway.
    ///
    /// # Errors
    /// If the name or the key is taken, or the gateway, organisation or network is not there.
    pub async fn create_wireguard_peer(
        &self,
        new: NewPeer,
        now: Timestamp,
    ) -> Result<WireGuardPeer, Error> {
        match self.perform(Command::CreatePeer { new, now }).await? {
            Reply::Peer(peer) => Ok(peer),
            _ => Err(self.mismatch()),
        }
    }

    /// # Errors
    /// If there is no such peer.
    pub async fn delete_wireguard_peer(&self, org: &OrgSlug, name: &str) -> Result<(), Error> {
        let (org, name) = (org.clone(), name.to_owned());
        self.done(Command::DeletePeer { org, name }).await
    }

    /// Remembers a join token by the SHA-256 of its secret.
    ///
    /// # Errors
    /// If this is not the authority, or too many are open.
    pub async fn create_join_token(
        &self,
        hash: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.done(Command::CreateJoinToken {
            hash,
            expires_at,
            now,
        })
        .await
    }

    /// Whether [`Self::redeem_join_token`] would do it now. Only the authority knows tokens.
    ///
    /// # Errors
    /// Those that it would give.
    pub fn check_join_token(
        &self,
        hash: [u8; 32],
        public_key: &PublicKeyText,
        now: Timestamp,
    ) -> Result<(), Refused> {
        tokens::redeem(&self.inner.rows, &hash, public_key.clone(), now).map(drop)
    }

    /// Uses a join token for the host with this key. The same key may repeat it.
    ///
    /// # Errors
    /// If the token is unknown, expired or used by another, or this is not the authority.
    pub async fn redeem_join_token(
        &self,
        hash: [u8; 32],
        public_key: &PublicKeyText,
        now: Timestamp,
    ) -> Result<(), Error> {
        let public_key = public_key.clone();
        self.done(Command::RedeemJoinToken {
            hash,
            public_key,
            now,
        })
        .await
    }
}

#[cfg(test)]
mod tests;
