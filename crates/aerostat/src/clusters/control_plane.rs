//! One control plane, and what turns its pods into machines. It knows this host as any client
//! does: by the Machines API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::cluster::{ClusterName, ClusterSettings};
use types::{AppName, IsolationClass};

use super::door::{ClusterDoor, Inside};
use super::keys::Keyring;
use super::{app_of, settings};
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
    settings: ClusterSettings,
    client: Client,
    /// The way to the pods and back; without it, pods and API server do not reach each other.
    pub(super) inside: Option<Inside>,
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
            settings: ClusterSettings::default(),
            client,
            inside: None,
        }
    }

    /// The same, as an administrator wants it.
    pub(crate) fn with_settings(mut self, settings: ClusterSettings) -> Self {
        self.settings = settings;
        self
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
/// with its last handle, of which the keyring has one.
///
/// # Errors
/// If its files or its store cannot be used.
pub(crate) async fn start(
    mut plane: ControlPlane,
    listener: TcpListener,
    drain: &Drain,
) -> anyhow::Result<(Store, Keyring)> {
    settings::check(&plane.settings).context("the settings of the cluster cannot be used")?;
    let address = listener.local_addr()?;
    let pki_dir = plane.dir.join("pki");
    let server = format!("https://{address}");
    let (pki, serving) = certificates(&plane, address, &server)?;
    let store = Store::open_at(&plane.location).await?;
    let services = kube::services::AppServices::new(plane.client.clone(), plane.app.clone());
    let services: Arc<dyn kube::services::Services> = Arc::new(services);
    let secrecy = kube::secrecy::Secrecy::open(&pki_dir.join("secrets.keys"))?;
    let pki = Arc::new(pki);
    let (entrances, coming) = mpsc::channel(1);
    let inside = plane.inside.take();
    let door = inside.map(|inside| ClusterDoor::new(inside, Arc::clone(&pki), entrances));
    let door = door.map(Arc::new);
    let api = kube::api::Api::new(store.clone()).with_secrecy(secrecy.clone());
    let api = connected(api, &services, door.clone(), &pki)?;
    api.bootstrap().await?;

    let streams = kube::provider::Streams::new(plane.client.clone(), plane.app.clone());
    let usage = usage(&plane);
    let identity_config = settings::identity(&plane.settings, &pki_dir);
    let identity = kube::identity::Identity::open(identity_config, &pki)?;
    let server_config = kube::server::ServerConfig {
        listener,
        tls: pki.server_config_with(&serving)?,
        streams: Arc::new(streams),
        identity: identity.clone(),
        audit: settings::audit(&plane.settings, &plane.dir)?,
        usage: Some(Arc::clone(&usage)),
    };
    let token = drain.token();
    drain.spawn(
        "kubernetes api",
        kube::server::serve_with(server_config, api.clone(), coming, token.cancelled_owned()),
    );
    let keyring = Keyring {
        kubeconfig: plane.dir.join("kubeconfig"),
        pki_dir,
        server,
        pki: Arc::clone(&pki),
        serving,
        identity: identity.clone(),
        secrecy,
        store: store.clone(),
        api: api.clone(),
        is_shared: matches!(plane.location, store::Location::Etcd(_)),
    };
    drain.spawn("keys and certificates", keyring.clone().keep(drain.token()));
    let sealing = kube::secrecy::run(api.clone(), drain.token());
    drain.spawn("encryption of secrets", sealing);
    let leadership = leadership(&plane);
    let metrics = kube::usage::ResourceMetrics::new(api.clone(), usage);
    let controllers = kube::controllers::ControllersConfig {
        leadership: leadership.clone(),
        identity: Some(identity.clone()),
        pki: Some(Arc::clone(&pki)),
        metrics: Some(Arc::new(metrics)),
        isolation: plane.classes.iter().copied().collect(),
        ..kube::controllers::ControllersConfig::new(pki.ca_pem())
    };
    drain.spawn(
        "kubernetes controllers",
        kube::controllers::run(api.clone(), controllers, drain.token()),
    );
    let led = Led {
        api,
        leadership,
        drain,
    };
    keep_services(&led, services, kubernetes(&plane, door, &pki));
    led.spawn("scheduler", "kube-scheduler", |api| {
        kube::scheduler::run(api, CancellationToken::new())
    });
    let client = plane.client.clone();
    let provider = provider(plane, identity)?;
    let lease = format!("aerostat-provider-{}", provider.node.name);
    led.spawn("provider", &lease, move |api| {
        let (client, provider) = (client.clone(), provider.clone());
        kube::provider::run(api, client, provider, CancellationToken::new())
    });
    Ok((store, keyring))
}

/// Keys and certificates, those that are missing made, and the administrator's kubeconfig.
fn certificates(
    plane: &ControlPlane,
    address: SocketAddr,
    server: &str,
) -> anyhow::Result<(kube::pki::Pki, kube::pki::Serving)> {
    let dir = plane.dir.join("pki");
    private_folder(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let pki = kube::pki::Pki::open(&dir)?;
    let kubeconfig = kube::pki::kubeconfig(server, pki.ca_pem(), &pki.admin()?);
    kube::pki::write_private(&plane.dir.join("kubeconfig"), &kubeconfig)?;
    let mut names = plane.settings.names.clone();
    names.push(address.ip().to_string());
    let serving = kube::pki::Serving::new(&pki, &names)?;
    Ok((pki, serving))
}

/// What pods use, as their machines say.
fn usage(plane: &ControlPlane) -> Arc<dyn kube::usage::PodUsage> {
    let (client, app) = (plane.client.clone(), plane.app.clone());
    Arc::new(kube::provider::MachineUsage::new(client, app))
}

/// Several control planes may share an etcd; one of them does what only one may do.
fn leadership(plane: &ControlPlane) -> kube::controllers::Leadership {
    match &plane.location {
        store::Location::Sqlite(_) => kube::controllers::Leadership::Alone,
        store::Location::Etcd(_) => kube::controllers::Leadership::Elected {
            identity: format!("{}_{}", plane.node.name, ulid::Ulid::new()),
        },
    }
}

/// What turns pods into machines, and the node that it shows.
fn provider(
    plane: ControlPlane,
    identity: kube::identity::Identity,
) -> anyhow::Result<kube::provider::ProviderConfig> {
    let mut node = plane.node;
    node.taints = settings::taints(&plane.settings)?;
    node.labels = plane.settings.node_labels;
    Ok(kube::provider::ProviderConfig {
        region: plane.region,
        network: plane.app.to_string(),
        app: plane.app,
        org_slug: directory::PERSONAL.to_owned(),
        node,
        silent_after: plane.silent_after,
        identity: Some(identity),
    })
}

/// The API with all that it has around it: addresses for Services, and the ways to pods. Pods run as
/// service accounts.
fn connected(
    api: kube::api::Api,
    services: &Arc<dyn kube::services::Services>,
    door: Option<Arc<ClusterDoor>>,
    pki: &kube::pki::Pki,
) -> anyhow::Result<kube::api::Api> {
    let admission = kube::api::AdmissionConfig {
        service_accounts: kube::api::ServiceAccounts::Mounted,
        ..kube::api::AdmissionConfig::default()
    };
    let vips = kube::services::Vips(Arc::clone(services));
    let api = api
        .with_cluster_ips(Arc::new(vips))
        .with_admission(admission);
    let Some(door) = door else { return Ok(api) };
    let front_proxy = pki.client(kube::services::FRONT_PROXY, None)?;
    let ways = kube::egress::ClusterServices::new(api.clone(), door);
    Ok(api.with_services(Arc::new(ways), Some(&front_proxy))?)
}

/// What pods are told of this API server.
fn kubernetes(
    plane: &ControlPlane,
    door: Option<Arc<ClusterDoor>>,
    pki: &kube::pki::Pki,
) -> kube::services::Kubernetes {
    kube::services::Kubernetes {
        ca_pem: pki.ca_pem().to_owned(),
        door: door.map(|door| door as Arc<dyn kube::services::Door>),
        among: match &plane.location {
            store::Location::Sqlite(_) => kube::services::Among::Alone,
            store::Location::Etcd(_) => kube::services::Among::Others,
        },
    }
}

/// Services in the Machines API, and the one of the API server itself.
fn keep_services(
    led: &Led<'_>,
    services: Arc<dyn kube::services::Services>,
    kubernetes: kube::services::Kubernetes,
) {
    let all = Arc::clone(&services);
    led.spawn(
        "kubernetes services",
        "cloud-controller-manager",
        move |api| kube::services::run(api, Arc::clone(&all), CancellationToken::new()),
    );
    // Each has its own address to tell.
    let (api, token) = (led.api.clone(), led.drain.token());
    led.drain.spawn(
        "kubernetes.default",
        kube::services::keep_kubernetes(api, services, kubernetes, token),
    );
}

/// Starts what only one of several control planes may do.
struct Led<'a> {
    api: kube::api::Api,
    leadership: kube::controllers::Leadership,
    drain: &'a Drain,
}

impl Led<'_> {
    /// Does it while this process holds `lease`.
    fn spawn<F>(
        &self,
        name: &'static str,
        lease: &str,
        work: impl Fn(kube::api::Api) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (api, token) = (self.api.clone(), self.drain.token());
        let (leadership, lease) = (self.leadership.clone(), lease.to_owned());
        self.drain.spawn(name, async move {
            let run = || work(api.clone());
            kube::controllers::lead(api.clone(), leadership, lease, token, run).await;
        });
    }
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
        labels: BTreeMap::new(),
        taints: Vec::new(),
    }
}
