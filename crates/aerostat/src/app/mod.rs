//! The assembly of one host: every role, made in the order in which they need each other.
//!
//! Whatever can be refused (a taken port, a second daemon, a missing program) is refused before
//! anything is changed. The file `endpoints.json` appears last and says that everything answers.

mod files;
mod kubernetes;
mod offer;
mod running;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use image::ImageStore;
use net::{Egress, HostNet, HostNetConfig};
use tracing::{error, info};
use types::IsolationClass;

use crate::catalog::Catalog;
use crate::config::{Config, Paths};
use crate::drain::Drain;
use crate::host::{HostImages, HostNetwork};
use crate::placement::Hosts;
use crate::rpc::Rpc;
use crate::worker::{Capacity, Classes, Worker};
use crate::{api, directory, dns, worker};

pub(crate) use offer::local_vmm;
pub(crate) use running::{Endpoints, Lock, Running};

/// Users that VMMs run as, one for each machine. Far above what distributions give to people and
/// container tools.
const VMM_UIDS: (u32, u32) = (3_000_000, 3_065_535);

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
    files::private_folder(&paths.data_dir)?;
    files::private_folder(&paths.kubernetes())?;
    let api_config = api::Config {
        socket: paths.socket(),
        tcp: Some(config.api_listen),
        token: files::token(&paths.token())?,
        region: config.region.clone(),
        host: config.host(),
    };
    // Ports first: they are what is most likely refused, and nothing is changed by asking.
    let listeners = api::bind(&api_config).await?;
    let api = listeners
        .tcp_address()
        .context("the Machines API has no TCP address")?;
    let kubernetes_listener = match config.kubernetes.unwrap_or(true) {
        true => Some(kubernetes::bind(config.kubernetes_listen).await?),
        false => None,
    };

    let host = start_host(config, paths, drain).await?;
    let deps = api::Deps {
        directory: host.directory,
        worker: host.worker,
        catalog: host.catalog,
        images: host.images,
        mesh: None,
        rpc: host.rpc,
        hosts: Hosts::none(),
        plain_http_registries: config.plain_http_registries.clone(),
        tokens: None,
    };
    api::run(listeners, &api_config, deps, drain);
    let offers = (host.capacity, host.classes);
    let kubernetes = match kubernetes_listener {
        Some(listener) => Some(kubernetes::start(config, paths, listener, offers, drain).await?),
        None => None,
    };

    let endpoints = Endpoints {
        pid: std::process::id().cast_signed(),
        socket: paths.socket(),
        api,
        token_file: paths.token(),
        kubernetes,
    };
    files::write_whole(
        &paths.endpoints(),
        0o644,
        &serde_json::to_vec_pretty(&endpoints)?,
    )?;
    info!(?endpoints, "everything answers");
    Ok(running)
}

/// The roles that machines need.
struct HostRoles {
    directory: directory::Handle,
    worker: worker::Handle,
    catalog: Catalog,
    images: ImageStore,
    rpc: Rpc,
    capacity: Capacity,
    classes: BTreeSet<IsolationClass>,
}

async fn start_host(config: &Config, paths: &Paths, drain: &Drain) -> anyhow::Result<HostRoles> {
    let (for_vmm, at) = (config.clone(), paths.clone());
    let vmm = tokio::task::spawn_blocking(move || local_vmm(&for_vmm, &at)).await?;
    let classes = offer::offered(config, &vmm.config().offers);
    anyhow::ensure!(
        !classes.is_empty(),
        "this host can run no machines; `aerostat doctor` says why"
    );
    let net_config = HostNetConfig {
        host: config.host(),
        egress: if config.egress {
            Egress::Nat
        } else {
            Egress::None
        },
    };
    let net = blocking(move || HostNet::ensure(&net_config)).await?;
    let folder = paths.images();
    let images = blocking(move || ImageStore::open(&folder)).await?;
    let store_config = store::Config::new(paths.data_dir.join("directory.db"));
    let store = blocking(move || store::Store::open(&store_config)).await?;
    let directory = directory::Handle::open(store).await?;

    let catalog = Catalog::new();
    let capacity = offer::capacity(&paths.data_dir)?;
    let worker_config = worker::Config {
        host: config.host(),
        region: config.region.clone(),
        ledger: paths.data_dir.join("ledger.db"),
        capacity,
        classes: Classes {
            default: offer::class_default(config, &classes),
            missing: offer::missing(config, &vmm.config().offers),
        },
        boot_timeout: Duration::from_secs(config.boot_timeout_s.into()),
        rootfs_mib_default: config.rootfs_mib,
        uids: VMM_UIDS,
    };
    info!(?capacity, classes = ?worker_config.classes, "this host offers");
    let host_images = HostImages {
        store: images.clone(),
        plain_http_registries: config.plain_http_registries.clone(),
    };
    let network = HostNetwork(net.clone());
    let worker = Worker::start(worker_config, vmm, network, host_images, catalog.clone()).await?;
    let handle = worker.handle();
    let token = drain.token();
    drain.spawn("worker", async move {
        token.cancelled().await;
        worker.shutdown().await;
    });
    let rpc = Rpc::new(config.host(), net.sockets()?);
    start_dns(net, &catalog, drain).await?;
    Ok(HostRoles {
        directory,
        worker: handle,
        catalog,
        images,
        rpc,
        capacity,
        classes,
    })
}

async fn start_dns(net: HostNet, catalog: &Catalog, drain: &Drain) -> anyhow::Result<()> {
    let config = dns::Config {
        net,
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let resolver = dns::bind(config, Arc::new(dns::CatalogNames::new(catalog.clone()))).await?;
    let token = drain.token();
    drain.spawn("dns", async move {
        if let Err(error) = resolver.run(token.clone()).await {
            error!(error = %types::chain(&error), "the resolver failed");
            token.cancel();
        }
    });
    Ok(())
}

/// Runs `f` where it may block.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::task::spawn_blocking(f).await??)
}
