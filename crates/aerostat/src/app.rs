//! The assembly of one host: every role, made in the order in which they need each other.
//!
//! Whatever can be refused (a taken port, a second daemon, a missing program) is refused before
//! anything is changed. The file `endpoints.json` appears last and says that everything answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::Client;
use image::ImageStore;
use net::{Egress, HostNet, HostNetConfig};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::{error, info};
use types::{AppName, IsolationClass};

use crate::catalog::Catalog;
use crate::config::{Config, Paths};
use crate::drain::Drain;
use crate::host::{HostImages, HostNetwork};
use crate::worker::{Capacity, Classes, Worker};
use crate::{api, directory, dns, worker};

/// The app whose machines are the pods of the embedded cluster.
const KUBERNETES_APP: &str = "kubernetes";

/// Users that VMMs run as, one for each machine. Far above what distributions give to people and
/// container tools.
const VMM_UIDS: (u32, u32) = (3_000_000, 3_065_535);

/// Pods that the node announces room for; the market refuses earlier when memory is short.
const PODS_MAX: u32 = 250;

/// The daemon's claim on a run directory: held for as long as it lives, whoever ends it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// # Errors
    /// If another process holds it, or the file cannot be made.
    pub(crate) fn acquire(paths: &Paths) -> anyhow::Result<Self> {
        let path = paths.lock();
        fs::create_dir_all(&paths.run_dir)
            .with_context(|| format!("cannot make {}", paths.run_dir.display()))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .and_then(|()| write!(&mut *file, "{}", std::process::id()))?;
                Ok(Self { _file: file })
            }
            Err((mut file, _)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).ok();
                bail!(
                    "aerostat is running already (pid {pid}); stop it with `aerostat down`, or \
                     choose another --run-dir, --data-dir and host_number for a second host"
                )
            }
        }
    }

    /// Whether a daemon lives.
    pub(crate) fn is_held(paths: &Paths) -> anyhow::Result<bool> {
        let file = match File::open(paths.lock()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot open {}", paths.lock().display()));
            }
        };
        Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }
}

/// What a running daemon listens on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) pid: i32,
    pub(crate) socket: PathBuf,
    pub(crate) api: SocketAddr,
    pub(crate) token_file: PathBuf,
    pub(crate) kubernetes: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
}

impl Endpoints {
    /// Those of the daemon that runs on these paths and is ready; `None` if there is none.
    pub(crate) fn read(paths: &Paths) -> anyhow::Result<Option<Self>> {
        if !Lock::is_held(paths)? {
            return Ok(None);
        }
        match fs::read(paths.endpoints()) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("cannot read {}", paths.endpoints().display())
            })?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read {}", paths.endpoints().display()))
            }
        }
    }
}

/// Writes a file so that a reader sees all of it or none.
fn write_whole(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A host that answers. Dropping it gives up the run directory; machines go on running.
#[derive(Debug)]
pub(crate) struct Running {
    endpoints: PathBuf,
    _lock: Lock,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A reader that still finds it sees that nobody holds the lock.
        let _ = fs::remove_file(&self.endpoints);
    }
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
    let lock = Lock::acquire(paths)?;
    let running = Running {
        endpoints: paths.endpoints(),
        _lock: lock,
    };
    let _ = fs::remove_file(&running.endpoints);
    info!(?config, ?paths, "starting");
    private_folder(&paths.data_dir)?;
    private_folder(&paths.kubernetes())?;
    let api_config = api::Config {
        socket: paths.socket(),
        tcp: Some(config.api_listen),
        token: token(&paths.token())?,
        region: config.region.clone(),
    };
    // Ports first: they are what is most likely refused, and nothing is changed by asking.
    let listeners = api::bind(&api_config).await?;
    let api = listeners
        .tcp_address()
        .context("the Machines API has no TCP address")?;
    let kubernetes_listener = bind_kubernetes(config.kubernetes_listen).await?;
    let kubernetes = kubernetes_listener.local_addr()?;

    let host = start_host(config, paths, drain).await?;
    let deps = api::Deps {
        directory: host.directory,
        worker: host.worker,
        catalog: host.catalog,
        images: host.images,
        plain_http_registries: config.plain_http_registries.clone(),
    };
    api::run(listeners, &api_config, deps, drain);
    let offers = (host.capacity, host.classes);
    start_kubernetes(config, paths, kubernetes_listener, offers, drain).await?;

    let endpoints = Endpoints {
        pid: std::process::id().cast_signed(),
        socket: paths.socket(),
        api,
        token_file: paths.token(),
        kubernetes,
        kubeconfig: paths.kubeconfig(),
    };
    write_whole(
        &paths.endpoints(),
        0o644,
        &serde_json::to_vec_pretty(&endpoints)?,
    )?;
    info!(%api, %kubernetes, "everything answers");
    Ok(running)
}

/// The roles that machines need.
struct HostRoles {
    directory: directory::Handle,
    worker: worker::Handle,
    catalog: Catalog,
    images: ImageStore,
    capacity: Capacity,
    classes: BTreeSet<IsolationClass>,
}

async fn start_host(config: &Config, paths: &Paths, drain: &Drain) -> anyhow::Result<HostRoles> {
    let (for_vmm, at) = (config.clone(), paths.clone());
    let vmm = tokio::task::spawn_blocking(move || local_vmm(&for_vmm, &at)).await?;
    let classes = offered(config, &vmm.config().offers);
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
    let capacity = capacity(&paths.data_dir)?;
    let worker_config = worker::Config {
        host: config.host(),
        region: config.region.clone(),
        ledger: paths.data_dir.join("ledger.db"),
        capacity,
        classes: Classes {
            default: class_default(config, &classes),
            missing: missing(config, &vmm.config().offers),
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
    start_dns(net, &catalog, drain).await?;
    Ok(HostRoles {
        directory,
        worker: handle,
        catalog,
        images,
        capacity,
        classes,
    })
}

async fn start_dns(net: HostNet, catalog: &Catalog, drain: &Drain) -> anyhow::Result<()> {
    let config = dns::Config {
        net,
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let resolver = dns::bind(config, Arc::new(catalog.clone())).await?;
    let token = drain.token();
    drain.spawn("dns", async move {
        if let Err(error) = resolver.run(token.clone()).await {
            error!(error = %types::chain(&error), "the resolver failed");
            token.cancel();
        }
    });
    Ok(())
}

/// The control plane and what turns its pods into machines. It knows this host as any client
/// does: by the Machines API.
async fn start_kubernetes(
    config: &Config,
    paths: &Paths,
    listener: TcpListener,
    host: (Capacity, BTreeSet<IsolationClass>),
    drain: &Drain,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let (capacity, classes) = host;
    let pki_dir = paths.kubernetes().join("pki");
    private_folder(&pki_dir)?;
    let pki = kube::pki::Pki::open(&pki_dir)?;
    let server = format!("https://{address}");
    let kubeconfig = kube::pki::kubeconfig(&server, pki.ca_pem(), &pki.admin()?);
    kube::pki::write_private(&paths.kubeconfig(), &kubeconfig)?;

    let store_config = store::Config::new(paths.kubernetes().join("store.db"));
    let store = blocking(move || store::Store::open(&store_config)).await?;
    let api = kube::api::Api::new(store);
    api.bootstrap().await?;
    let client = Client::unix(paths.socket());
    let app: AppName = KUBERNETES_APP.parse()?;

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
        "scheduler",
        kube::scheduler::run(api.clone(), drain.token()),
    );
    let provider = kube::provider::ProviderConfig {
        region: config.region.clone(),
        app,
        org_slug: directory::PERSONAL.to_owned(),
        network: KUBERNETES_APP.to_owned(),
        node: node(config, capacity),
    };
    drain.spawn(
        "provider",
        kube::provider::run(api, client, provider, drain.token()),
    );
    Ok(())
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

/// What this host has.
fn capacity(data_dir: &Path) -> anyhow::Result<Capacity> {
    let cpus = std::thread::available_parallelism().context("cannot count processors")?;
    let info = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let disk = nix::sys::statvfs::statvfs(data_dir)
        .with_context(|| format!("cannot measure the disk of {}", data_dir.display()))?;
    Ok(Capacity {
        cpus: u32::try_from(cpus.get())?,
        memory_mb: kib.context("/proc/meminfo has no MemTotal")? / 1024,
        disk_mb: (disk.blocks_available() * disk.fragment_size()) >> 20,
    })
}

/// The machines' bodies on this host.
pub(crate) fn local_vmm(config: &Config, paths: &Paths) -> vmm::Local {
    let offers = vmm::probe(&paths.probe());
    vmm::Local::new(vmm::LocalConfig {
        data_dir: paths.data_dir.clone(),
        run_dir: paths.run_dir.clone(),
        guest_dir: paths.guest(),
        host: config.host(),
        shim: std::env::current_exe().unwrap_or_else(|_| "aerostat".into()),
        allow: offered(config, &offers),
        offers,
    })
}

/// What the host can do and policy allows.
fn offered(config: &Config, offers: &vmm::Offers) -> BTreeSet<IsolationClass> {
    let classes = IsolationClass::ALL.into_iter();
    classes
        .filter(|class| offers.offers(*class) && !config.isolation_refused.contains(class))
        .collect()
}

/// Why machines cannot have the other classes.
fn missing(config: &Config, offers: &vmm::Offers) -> BTreeMap<IsolationClass, String> {
    let why = |class: IsolationClass| {
        if config.isolation_refused.contains(&class) {
            return Some("the configuration of this host refuses it".to_owned());
        }
        offers.missing(class).map(str::to_owned)
    };
    IsolationClass::ALL
        .into_iter()
        .filter_map(|class| Some((class, why(class)?)))
        .collect()
}

/// The class of machines that do not ask for one: the strongest that is not slow.
fn class_default(config: &Config, classes: &BTreeSet<IsolationClass>) -> IsolationClass {
    use IsolationClass::{Container, Emulated, Microvm};
    let strongest = [Microvm, Container]
        .into_iter()
        .find(|class| classes.contains(class));
    config.isolation_default.or(strongest).unwrap_or(Emulated)
}

async fn bind_kubernetes(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for the Kubernetes API; end what listens there, or set \
             kubernetes_listen in the configuration"
        )
    })
}

/// A folder that only root may look into.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    let make = || -> io::Result<()> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// The bearer token of the Machines API, made at the first start.
fn token(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        Ok(_) | Err(_) => {}
    }
    let token: String = rand::random::<[u8; 32]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write_whole(path, 0o600, token.as_bytes())?;
    Ok(token)
}

/// Runs `f` where it may block.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::task::spawn_blocking(f).await??)
}
