//! This host among others: its identity, the mesh, the directory, and what hosts tell each other.
//!
//! ```text
//!  identity ─► mesh ◄── peers (verified) ◄── directory (authority, or a copy of its)
//!                │                               ▲
//!                └── rpc over the host plane ────┴── catalog: statements, words, membership
//! ```

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use net::{Egress, HostNet, HostNetConfig, Sockets};
use tracing::{info, warn};
use types::HostId;
use types::fleet::HostRecord;

use super::blocking;
use super::peers::Peers;
use super::underlay::{advertised, endpoint};
use crate::catalog::replication::{self, Replication};
use crate::catalog::{Catalog, Filter, members};
use crate::config::{Config, Paths};
use crate::drain::Drain;
use crate::fleet::join::Door;
use crate::fleet::{Found, Identity};
use crate::mesh::{self, Mesh};
use crate::placement::{Host, Hosts};
use crate::rpc::{self, RPC_PORT, Rpc};
use crate::{directory, secrets, worker};

/// Until a copy of the directory could tell the authority where this host is.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(2);

/// This host among others. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) identity: Identity,
    pub(super) net: HostNet,
    /// Of this host's namespace.
    pub(super) sockets: Sockets,
    pub(super) rpc: Rpc,
    pub(super) mesh: Mesh,
    pub(super) directory: directory::Handle,
    pub(super) catalog: Catalog,
    peers: Peers,
}

/// The identity of this host; the first start of a host that has joined none founds a fleet.
pub(super) fn identity(config: &Config, paths: &Paths) -> anyhow::Result<Identity> {
    let found = Found {
        number: config.host_number,
        name: nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "founder".to_owned()),
        region: config.region.clone(),
    };
    Ok(Identity::open(&paths.fleet(), &found)?)
}

impl Fleet {
    /// Starts what does not need this host's worker.
    pub(super) async fn start(
        config: &Config,
        paths: &Paths,
        identity: Identity,
        drain: &Drain,
    ) -> anyhow::Result<Self> {
        let net_config = HostNetConfig {
            host: identity.host,
            egress: if config.egress {
                Egress::Nat
            } else {
                Egress::None
            },
        };
        let net = blocking(move || HostNet::ensure(&net_config)).await?;
        let mesh_config = mesh::Config {
            host: identity.host,
            key: identity.wireguard_key.clone(),
            listen: config.mesh_listen,
            net: net.clone(),
        };
        let mesh = blocking(move || Mesh::start(mesh_config)).await?;
        let at = net.clone();
        let sockets = blocking(move || at.sockets()).await?;
        let rpc = Rpc::new(identity.host, sockets.clone());

        let store_config = store::Config::new(paths.data_dir.join("directory.db"));
        let store = blocking(move || store::Store::open(&store_config)).await?;
        let directory = if identity.is_authority() {
            anyhow::ensure!(
                !directory::is_copy(&store),
                "this host was in another host's fleet (its directory is a copy), and its identity \
                 in {} is not of that fleet any more; put that folder back, or begin anew with \
                 `aerostat down --purge`",
                paths.fleet().display()
            );
            directory::Handle::open(store).await?
        } else {
            directory::Handle::follow(store, rpc.clone(), identity.authority)
        };
        let file = paths.data_dir.join("catalog.db");
        let (catalog, disk) = blocking(move || Catalog::open(&file)).await?;
        drain.spawn("catalog file", disk.run(catalog.clone(), drain.token()));
        let peers = Peers::new(&identity, &directory.hosts());
        let fleet = Self {
            identity,
            net,
            sockets,
            rpc,
            mesh,
            directory,
            catalog,
            peers,
        };
        fleet.follow(drain);
        Ok(fleet)
    }

    pub(super) fn host(&self) -> HostId {
        self.identity.host
    }

    /// Passes on what the directory says.
    fn follow(&self, drain: &Drain) {
        drain.spawn("directory", self.directory.clone().run(drain.token()));
        let hosts = self.directory.hosts_changed();
        drain.spawn("hosts", self.peers.clone().run(hosts, drain.token()));

        let (mesh, mut peers, stop) = (self.mesh.clone(), self.peers.changed(), drain.token());
        drain.spawn("mesh peers", async move {
            peers.mark_changed();
            while let Some(Ok(())) = stop.run_until_cancelled(peers.changed()).await {
                let records = Arc::clone(&peers.borrow_and_update());
                mesh.set_hosts(&records);
            }
        });
        let (mesh, stop) = (self.mesh.clone(), drain.token());
        drain.spawn("mesh probes", async move { mesh.run(stop).await });

        let (catalog, stop) = (self.catalog.clone(), drain.token());
        let mut services = self.directory.services_changed();
        drain.spawn("services", async move {
            services.mark_changed();
            while let Some(Ok(())) = stop.run_until_cancelled(services.changed()).await {
                let services = Arc::clone(&services.borrow_and_update());
                catalog.set_services(services);
            }
        });
    }

    /// Tells the fleet where this host is: at once on the authority; elsewhere as soon as that can
    /// be reached, since machines run without it.
    pub(super) async fn announce(
        &self,
        config: &Config,
        gateway: Option<SocketAddr>,
        drain: &Drain,
    ) -> anyhow::Result<HostRecord> {
        let record = self.record(config, gateway);
        if self.identity.is_authority() {
            self.directory.put_host(record.clone()).await?;
            return Ok(record);
        }
        let (directory, stop, own) = (self.directory.clone(), drain.token(), record.clone());
        let announce = async move {
            let mut warned = false;
            while let Err(error) = directory.put_host(own.clone()).await {
                if !warned {
                    let error = types::chain(&error).to_string();
                    warn!(
                        error,
                        "the fleet cannot be told where this host is; trying on"
                    );
                }
                warned = true;
                tokio::time::sleep(ANNOUNCE_RETRY).await;
            }
        };
        drain.spawn("announce", async move {
            stop.run_until_cancelled(announce).await;
        });
        Ok(record)
    }

    fn record(&self, config: &Config, gateway: Option<SocketAddr>) -> HostRecord {
        // A host that joined keeps the address it joined with, unless its configuration says
        // otherwise: behind a translator it cannot know better.
        let joined = self.directory.host(self.host());
        let joined = joined.filter(|_| !self.identity.is_authority());
        let joined = joined.map(|record| record.endpoint.ip());
        let known = config.advertise.or(joined);
        let known = known.or_else(|| advertised(config, &self.identity));
        let mesh = endpoint(config.mesh_listen.ip(), self.mesh.port(), known);
        let gateway = gateway.map(|at| endpoint(at.ip(), at.port(), known));
        self.identity.record(mesh, gateway)
    }

    /// Lets hosts in that want to join. On the authority only.
    pub(super) fn open_door(
        &self,
        listener: tokio::net::TcpListener,
        record: HostRecord,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let door = Door::new(self.identity.clone(), record, self.directory.clone());
        info!(address = ?listener.local_addr(), "hosts may join");
        Ok(door.open(listener, drain)?)
    }

    /// Tells the other hosts what this one's worker says, and answers what they ask.
    pub(super) async fn serve(
        &self,
        worker: &worker::Handle,
        secrets: &secrets::Handle,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let (signing, says) = (self.identity.clone(), worker.clone());
        let config = replication::Config {
            host: self.host(),
            region: self.identity.region.clone(),
            sign: Arc::new(move |message| signing.sign(message)),
            key_of: self.peers.key_of(),
            capacity: Arc::new(move || says.word()),
            // All of them, since the machines of a host that is gone from here are gone. Who is
            // not certified (a clock may be wrong) is not heard, which is another thing.
            hosts: self.directory.hosts_changed(),
            transport: Arc::new(self.rpc.clone()),
        };
        let replication = Replication::new(config, self.catalog.clone());
        let router = directory::router(self.directory.clone(), drain.token())
            .merge(replication.router())
            .merge(worker::router(worker.clone()))
            .merge(secrets::router(secrets.clone(), self.is_placed()));
        let listener = self.rpc.listen(RPC_PORT).await;
        let listener = listener.context("cannot listen for other hosts on the mesh")?;
        drain.spawn("rpc", rpc::serve(listener, router, drain.token()));
        drain.spawn("replication", replication.run(drain.token()));

        let address = |host| SocketAddrV6::new(Rpc::address(host), members::PORT, 0, 0);
        let socket = self.sockets.datagrams(address(self.host())).await;
        let members = members::Config {
            host: self.host(),
            socket: socket.context("cannot listen for the membership of hosts on the mesh")?,
            address: Box::new(move |host| address(host).into()),
            hosts: self.peers.changed(),
        };
        let catalog = self.catalog.clone();
        drain.spawn("membership", members::run(members, catalog, drain.token()));
        Ok(())
    }

    /// Which host has machines of an app, by its own word.
    fn is_placed(&self) -> secrets::IsPlaced {
        let catalog = self.catalog.clone();
        Arc::new(move |host, app| {
            let entries = catalog.list(&Filter::App(app.clone())).entries;
            entries.iter().any(|entry| entry.host == host)
        })
    }

    /// The other hosts, for placement.
    pub(super) fn hosts(&self) -> Hosts {
        let (peers, catalog) = (self.peers.changed(), self.catalog.clone());
        Hosts::new(move || {
            let words = catalog.words().into_iter();
            let words: BTreeMap<_, _> = words.map(|word| (word.origin, word.capacity)).collect();
            let records = Arc::clone(&peers.borrow());
            let host = |record: &HostRecord| Host {
                id: record.id,
                region: record.region.clone(),
                status: catalog.host_status(record.id),
                capacity: words.get(&record.id).map(|said| worker::Capacity {
                    cpus: said.cpus,
                    memory_mb: said.memory_mb,
                    disk_mb: said.disk_mb,
                }),
            };
            records.iter().map(host).collect()
        })
    }

    /// What `mesh status` shows.
    pub(super) fn reporter(&self) -> mesh::Reporter {
        let catalog = self.catalog.clone();
        self.mesh.reporter(move |host| mesh::Word {
            status: catalog.host_status(host),
            age: catalog.word_age(host),
        })
    }
}
