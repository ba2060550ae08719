//! The assembly of one host: every role, made in the order in which they need each other.
//!
//! Whatever can be refused (a taken port, a second daemon, a missing program) is refused before
//! anything is changed. The file `endpoints.json` appears last and says that everything answers.

mod fleet;
mod gateway;
mod invitations;
mod offer;
mod peers;
mod running;
mod secrets;
mod tokens;
mod underlay;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use image::ImageStore;
use net::HostNet;
use tokio::net::TcpListener;
use tracing::{error, info, warn};
use types::{HostId, IsolationClass};

use crate::clusters::{self, Clusters, Inside, Surroundings};
use crate::config::{Config, Paths};
use crate::drain::Drain;
use crate::files::{private_folder, write_whole};
use crate::fleet::{Identity, join};
use crate::garbage::ImageGarbage;
use crate::host::{HostImages, HostNetwork, HostSecrets};
use crate::worker::{Capacity, Classes, Worker};
use crate::{api, dns, proxy, worker};

use fleet::Fleet;
pub(crate) use offer::{capacity, local_vmm};
use running::KubernetesEndpoint;
pub(crate) use running::{Endpoints, Lock, Running};

/// Users that VMMs run as, one for each machine. Far above what distributions give to people and
/// container tools.
const VMM_UIDS: (u32, u32) = (3_000_000, 3_065_535);

/// The id of the host that these paths are of: that of its identity, or what it will be.
///
/// # Errors
/// If there is an identity that cannot be read.
pub(crate) fn host_id(config: &Config, paths: &Paths) -> anyhow::Result<HostId> {
    let identity = Identity::load(&paths.fleet())?;
    Ok(identity.map_or_else(|| config.host(), |identity| identity.host))
}

/// Starts every role. Returns when all of them answer.
///
/// # Errors
/// If one of them cannot start. What was started ends with the process.
pub(crate) async fn start(
    config: &Config,
    paths: &Paths,
    drain: &Drain,
) -> anyhow::Result<Running> {
    let running = Running::begin(paths)?;
    info!(?config, ?paths, "starting");
    for folder in [&paths.data_dir, &paths.kubernetes()] {
        private_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let identity = fleet::identity(config, paths)?;
    let ports = Ports::take(config, paths, &identity).await?;
    let host = identity.host;
    let before = blocking(move || HostNet::inventory(host)).await?;
    let started = start_roles(config, paths, identity, ports, drain).await;
    if started.is_err() && before.is_empty() {
        // A start that failed leaves this server as it was.
        drain.token().cancel();
        if let Err(error) = blocking(move || HostNet::remove_unused(host)).await {
            warn!(error = %format!("{error:#}"), "cannot take away what this start has made");
        }
    }
    started.map(|()| running)
}

async fn start_roles(
    config: &Config,
    paths: &Paths,
    identity: Identity,
    mut ports: Ports,
    drain: &Drain,
) -> anyhow::Result<()> {
    let address = ports.api.tcp_address();
    let api = address.context("the Machines API has no TCP address")?;

    let fleet = Fleet::start(config, paths, identity, drain).await?;
    let token_root = tokens::start(paths, &fleet, drain).await?;
    let secrets = secrets::open(config, paths, &fleet).await?;
    let host = start_host(config, paths, &fleet, &secrets, drain).await?;
    fleet.serve(&host.worker, &secrets, drain).await?;
    let gateway = gateway::start(config, paths, &fleet, host.resolver, drain).await?;
    let record = fleet.announce(config, Some(gateway), drain).await?;
    let tokens = match ports.join {
        Some(listener) => {
            let door = listener.local_addr()?;
            let issuer = invitations::Issuer::new(&fleet, door, record.endpoint.ip());
            fleet.open_door(listener, record, drain)?;
            Some(Arc::new(issuer) as Arc<dyn api::TokenIssuer>)
        }
        None => None,
    };
    let hosts = fleet.rpc.listen(crate::rpc::API_PORT).await;
    ports.api.hosts = Some(hosts.context("cannot listen for other hosts on the mesh")?);
    let clusters = Arc::new(OnceLock::new());
    let deps = api::Deps {
        directory: fleet.directory.clone(),
        worker: host.worker,
        catalog: fleet.catalog.clone(),
        images: host.images,
        garbage: host.garbage,
        mesh: Some(fleet.reporter()),
        rpc: fleet.rpc.clone(),
        hosts: fleet.hosts(),
        pull: config.pull_options(),
        tokens,
        token_root,
        secrets,
        clusters: Arc::clone(&clusters),
    };
    api::run(ports.api, &ports.api_config, deps, drain);
    let around = Surroundings {
        config: config.clone(),
        paths: paths.clone(),
        client: Client::unix(paths.socket()),
        capacity: host.capacity,
        classes: host.classes,
        inside: inside(&fleet),
    };
    let listener = ports.kubernetes;
    let kubernetes = match &listener {
        Some(listener) => Some(KubernetesEndpoint {
            api: listener.local_addr()?,
            kubeconfig: paths.kubeconfig(),
        }),
        None => None,
    };
    let started = Clusters::start(around, listener, drain).await?;
    if clusters.set(started).is_err() {
        anyhow::bail!("the clusters were started twice");
    }

    let endpoints = Endpoints {
        pid: std::process::id().cast_signed(),
        socket: paths.socket(),
        api,
        token_file: paths.token(),
        kubernetes,
    };
    let path = paths.endpoints();
    write_whole(&path, 0o644, &serde_json::to_vec_pretty(&endpoints)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    info!(?endpoints, "everything answers");
    Ok(())
}

/// This host's place in the networks of machines.
fn inside(fleet: &Fleet) -> Inside {
    Inside {
        host: fleet.host(),
        net: fleet.net.clone(),
        sockets: fleet.sockets.clone(),
    }
}

/// Ports that are what is most likely refused; nothing is changed by asking for them.
struct Ports {
    api_config: api::Config,
    api: api::Listeners,
    kubernetes: Option<TcpListener>,
    join: Option<TcpListener>,
}

impl Ports {
    async fn take(config: &Config, paths: &Paths, identity: &Identity) -> anyhow::Result<Self> {
        let api_config = api::Config {
            socket: paths.socket(),
            tcp: Some(config.api_listen),
            region: config.region.clone(),
        };
        let api = api::bind(&api_config).await?;
        let (mesh, gateway) = (config.mesh_listen, config.gateway_listen);
        blocking(move || crate::mesh::is_free(mesh)).await?;
        blocking(move || crate::gateway::is_free(gateway)).await?;
        let is_authority = identity.is_authority();
        let kubernetes = match config.kubernetes.unwrap_or(is_authority) {
            true => Some(clusters::bind(config.kubernetes_listen).await?),
            false => None,
        };
        let join = match is_authority {
            true => Some(join::bind(config.join_listen).await?),
            false => None,
        };
        Ok(Self {
            api_config,
            api,
            kubernetes,
            join,
        })
    }
}

/// What machines need of their host.
struct HostRoles {
    worker: worker::Handle,
    resolver: dns::Handle,
    images: ImageStore,
    garbage: ImageGarbage,
    capacity: Capacity,
    classes: BTreeSet<IsolationClass>,
}

async fn start_host(
    config: &Config,
    paths: &Paths,
    fleet: &Fleet,
    secrets: &crate::secrets::Handle,
    drain: &Drain,
) -> anyhow::Result<HostRoles> {
    let (for_vmm, at, host) = (config.clone(), paths.clone(), fleet.host());
    let vmm = tokio::task::spawn_blocking(move || local_vmm(&for_vmm, &at, host)).await?;
    vmm.warm_up().await;
    let classes = offer::offered(config, &vmm.config().offers);
    anyhow::ensure!(
        !classes.is_empty(),
        "this host can run no machines; `aerostat doctor` says why"
    );
    let folder = paths.images();
    let images = blocking(move || ImageStore::open(&folder)).await?;
    let capacity = capacity(&paths.data_dir)?;
    let worker_config = worker::Config {
        host: fleet.host(),
        region: config.region.clone(),
        ledger: paths.data_dir.join("ledger.db"),
        capacity,
        disk: Some(paths.data_dir.clone()),
        classes: Classes {
            default: offer::class_default(config, &classes),
            missing: offer::missing(config, &vmm.config().offers),
        },
        boot_timeout: Duration::from_secs(config.boot_timeout_s.into()),
        rootfs_mib_default: config.rootfs_mib,
        uids: VMM_UIDS,
        secrets: Arc::new(HostSecrets(secrets.clone())),
    };
    info!(?capacity, classes = ?worker_config.classes, "this host offers");
    let limit = offer::images_bytes_max(config, &paths.images())?;
    let catalog = fleet.catalog.clone();
    let garbage = ImageGarbage::new(images.clone(), limit, catalog.clone(), fleet.host());
    let host_images = HostImages {
        garbage: garbage.clone(),
        store: images.clone(),
        pull: config.pull_options(),
    };
    let network = HostNetwork(fleet.net.clone());
    let worker = Worker::start(worker_config, vmm, network, host_images, catalog.clone()).await?;
    let handle = worker.handle();
    drain.spawn("image garbage", garbage.clone().run(drain.token()));
    let token = drain.token();
    drain.spawn("worker", async move {
        token.cancelled().await;
        worker.shutdown().await;
    });
    let resolver = start_dns(fleet, drain).await?;
    let proxy = proxy::Config {
        host: fleet.host(),
        net: fleet.net.clone(),
        sockets: fleet.sockets.clone(),
    };
    drain.spawn("proxy", proxy::run(proxy, catalog, drain.clone()));
    Ok(HostRoles {
        worker: handle,
        resolver,
        images,
        garbage,
        capacity,
        classes,
    })
}

async fn start_dns(fleet: &Fleet, drain: &Drain) -> anyhow::Result<dns::Handle> {
    let config = dns::Config {
        net: fleet.net.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let names = Arc::new(dns::CatalogNames::new(fleet.catalog.clone()));
    let resolver = dns::bind(config, names).await?;
    let handle = resolver.handle();
    let token = drain.token();
    drain.spawn("dns", async move {
        if let Err(error) = resolver.run(token.clone()).await {
            error!(error = %types::chain(&error), "the resolver failed");
            token.cancel();
        }
    });
    Ok(handle)
}

/// Runs `f` where it may block.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::task::spawn_blocking(f).await??)
}
