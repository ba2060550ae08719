//! The embedded control plane, and what turns its pods into machines. It knows this host as any
//! client does: by the Machines API.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use tokio::net::TcpListener;
use types::{AppName, IsolationClass};

use super::blocking;
use super::running::KubernetesEndpoint;
use crate::config::{Config, Paths};
use crate::directory;
use crate::drain::Drain;
use crate::files::private_folder;
use crate::worker::Capacity;

/// The app whose machines are the pods of the embedded cluster.
const KUBERNETES_APP: &str = "kubernetes";

/// Pods that the node announces room for; the market refuses earlier when memory is short.
const PODS_MAX: u32 = 250;

/// Takes the port.
pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for the Kubernetes API; end what listens there, or set \
             kubernetes_listen in the configuration"
        )
    })
}

/// The control plane and what turns its pods into machines. It knows this host as any client
/// does: by the Machines API.
pub(super) async fn start(
    config: &Config,
    paths: &Paths,
    listener: TcpListener,
    host: (Capacity, BTreeSet<IsolationClass>),
    drain: &Drain,
) -> anyhow::Result<KubernetesEndpoint> {
    let address = listener.local_addr()?;
    let (capacity, classes) = host;
    let pki_dir = paths.kubernetes().join("pki");
    private_folder(&pki_dir).with_context(|| format!("cannot make {}", pki_dir.display()))?;
    let pki = kube::pki::Pki::open(&pki_dir)?;
    let server = format!("https://{address}");
    let kubeconfig = kube::pki::kubeconfig(&server, pki.ca_pem(), &pki.admin()?);
    kube::pki::write_private(&paths.kubeconfig(), &kubeconfig)?;

    let store_config = store::Config::new(paths.kubernetes().join("store.db"));
    let store = blocking(move || store::Store::open(&store_config)).await?;
    let client = Client::unix(paths.socket());
    let app: AppName = KUBERNETES_APP.parse()?;
    let services = kube::services::AppServices::new(client.clone(), app.clone());
    let services: Arc<dyn kube::services::Services> = Arc::new(services);
    let vips = kube::services::Vips(Arc::clone(&services));
    let api = kube::api::Api::new(store).with_cluster_ips(Arc::new(vips));
    api.bootstrap().await?;

    let streams = kube::provider::Streams::new(client.clone(), app.clone());
    let server_config = kube::server::ServerConfig {
        listener,
        tls: pki.server_config(&[address.ip().to_string()])?,
        streams: Arc::new(streams),
    };
    let token = drain.token();
    drain.spawn(
        "kubernetes api",
        kube::server::serve(server_config, api.clone(), token.cancelled_owned()),
    );
    let controllers = kube::controllers::ControllersConfig {
        ca_pem: pki.ca_pem().to_owned(),
        isolation: classes.into_iter().collect(),
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
        region: config.region.clone(),
        app,
        org_slug: directory::PERSONAL.to_owned(),
        network: KUBERNETES_APP.to_owned(),
        node: node(config, capacity),
        silent_after: Duration::from_secs(config.host_silent_s.into()),
    };
    drain.spawn(
        "provider",
        kube::provider::run(api, client, provider, drain.token()),
    );
    Ok(KubernetesEndpoint {
        api: address,
        kubeconfig: paths.kubeconfig(),
    })
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
