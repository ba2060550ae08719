//! One control plane, and what turns its pods into machines. It knows this host as any client
//! does: by the Machines API.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use store::Store;
use tokio::net::TcpListener;
use types::cluster::ClusterName;
use types::{AppName, IsolationClass};

use super::app_of;
use crate::config::Config;
use crate::directory;
use crate::drain::Drain;
use crate::files::private_folder;
use crate::worker::Capacity;

/// Pods that the node announces room for; the market refuses earlier when memory is short.
const PODS_MAX: u32 = 250;

/// What a control plane is made of.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    /// Keys and kubeconfig.
    dir: PathBuf,
    location: store::Location,
    /// The app, and the network, of its pods.
    app: AppName,
    region: String,
    node: kube::provider::NodeConfig,
    classes: BTreeSet<IsolationClass>,
    silent_after: Duration,
    client: Client,
}

impl ControlPlane {
    /// The control plane of cluster `name`, with its files in `dir`.
    pub(crate) fn new(
        config: &Config,
        name: &ClusterName,
        dir: PathBuf,
        client: Client,
        host: (Capacity, BTreeSet<IsolationClass>),
    ) -> Self {
        let (capacity, classes) = host;
        Self {
            location: location(config, name, &dir),
            dir,
            app: app_of(name),
            region: config.region.clone(),
            node: node(config, capacity),
            classes,
            silent_after: Duration::from_secs(config.host_silent_s.into()),
            client,
        }
    }
}

/// Takes the port of the cluster `default`.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for the Kubernetes API; end what listens there, or set \
             kubernetes_listen in the configuration"
        )
    })
}

/// Where a cluster has its state.
fn location(config: &Config, name: &ClusterName, dir: &Path) -> store::Location {
    if config.kubernetes_etcd.is_empty() {
        return store::Location::Sqlite(store::Config::new(dir.join("store.db")));
    }
    let mut etcd = store::EtcdConfig::new(config.kubernetes_etcd.clone());
    etcd.prefix = format!("/aerostat/{name}");
    store::Location::Etcd(etcd)
}

/// Starts a control plane; it answers when this returns, until `drain` ends it. The store closes
/// with its last handle.
///
/// # Errors
/// If its files or its store cannot be used.
pub(crate) async fn start(
    plane: ControlPlane,
    listener: TcpListener,
    drain: &Drain,
) -> anyhow::Result<Store> {
    let address = listener.local_addr()?;
    let pki_dir = plane.dir.join("pki");
    private_folder(&pki_dir).with_context(|| format!("cannot make {}", pki_dir.display()))?;
    let pki = kube::pki::Pki::open(&pki_dir)?;
    let server = format!("https://{address}");
    let kubeconfig = kube::pki::kubeconfig(&server, pki.ca_pem(), &pki.admin()?);
    kube::pki::write_private(&plane.dir.join("kubeconfig"), &kubeconfig)?;

    let store = Store::open_at(&plane.location).await?;
    let services = kube::services::AppServices::new(plane.client.clone(), plane.app.clone());
    let services: Arc<dyn kube::services::Services> = Arc::new(services);
    let vips = kube::services::Vips(Arc::clone(&services));
    let secrecy = kube::secrecy::Secrecy::open(&pki_dir.join("secrets.keys"))?;
    let api = kube::api::Api::new(store.clone())
        .with_cluster_ips(Arc::new(vips))
        .with_secrecy(secrecy);
    api.bootstrap().await?;

    let streams = kube::provider::Streams::new(plane.client.clone(), plane.app.clone());
    let identity_config = kube::identity::Config::new(&pki_dir);
    let identity = kube::identity::Identity::open(identity_config, &pki)?;
    let server_config = kube::server::ServerConfig {
        listener,
        tls: pki.server_config(&[address.ip().to_string()])?,
        streams: Arc::new(streams),
        identity: identity.clone(),
        audit: None,
    };
    let token = drain.token();
    drain.spawn(
        "kubernetes api",
        kube::server::serve(server_config, api.clone(), token.cancelled_owned()),
    );
    let pki = Arc::new(pki);
    drain.spawn(
        "encryption of secrets",
        kube::secrecy::run(api.clone(), drain.token()),
    );
    drain.spawn(
        "token secrets",
        kube::identity::fill_token_secrets(
            api.clone(),
            identity,
            pki.ca_pem().to_owned(),
            drain.token(),
        ),
    );
    let leadership = match &plane.location {
        store::Location::Sqlite(_) => kube::controllers::Leadership::Alone,
        // Several control planes may share an etcd; one of them runs the controllers.
        store::Location::Etcd(_) => kube::controllers::Leadership::Elected {
            identity: format!("{}_{}", plane.node.name, ulid::Ulid::new()),
        },
    };
    let controllers = kube::controllers::ControllersConfig {
        leadership,
        pki: Some(Arc::clone(&pki)),
        isolation: plane.classes.iter().copied().collect(),
        ..kube::controllers::ControllersConfig::new(pki.ca_pem())
    };
    drain.spawn(
        "kubernetes controllers",
        kube::controllers::run(api.clone(), controllers, drain.token()),
    );
    drain.spawn(
        "kubernetes services",
        kube::services::run(api.clone(), services, drain.token()),
    );
    drain.spawn(
        "scheduler",
        kube::scheduler::run(api.clone(), drain.token()),
    );
    let provider = kube::provider::ProviderConfig {
        region: plane.region,
        network: plane.app.to_string(),
        app: plane.app,
        org_slug: directory::PERSONAL.to_owned(),
        node: plane.node,
        silent_after: plane.silent_after,
    };
    drain.spawn(
        "provider",
        kube::provider::run(api, plane.client, provider, drain.token()),
    );
    Ok(store)
}

/// The one node of this region.
fn node(config: &Config, capacity: Capacity) -> kube::provider::NodeConfig {
    let uname = nix::sys::utsname::uname();
    let kernel = uname
        .as_ref()
        .map(|u| u.release().to_string_lossy().into_owned());
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    kube::provider::NodeConfig {
        name: config.region.clone(),
        address: std::net::Ipv4Addr::LOCALHOST.to_string(),
        cpus: capacity.cpus,
        memory_mib: capacity.memory_mb,
        storage_mib: capacity.disk_mb,
        pods_max: PODS_MAX,
        architecture: "amd64".into(),
        kernel_version: kernel.unwrap_or_default(),
        os_image: os.unwrap_or("Linux").trim_matches('"').to_owned(),
        kubelet_version: kube::server::VERSION.to_owned(),
        runtime_version: concat!("aerostat://", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
