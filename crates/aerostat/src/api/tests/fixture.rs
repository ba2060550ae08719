//! A host whose machines happen in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, WaitQuery};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use types::api::{CreateApp, CreateMachine, LEASE_NONCE_HEADER};
use types::fleet::HostStatus;
use types::fleet::MeshStatus;
use types::machine::{ImageIdentity, Machine, MachineConfig, MachineState};
use types::token::Scope;
use types::{AppName, HostId, ImageRef, IsolationClass, SixPn};
use vmm::fake::FakeVmm;
use vmm::{BootNetwork, MacAddress};

use crate::api::{self, Config, Deps};
use crate::catalog::{Catalog, Filter};
use crate::directory;
use crate::drain::Drain;
use crate::garbage::ImageGarbage;
use crate::host::HostSecrets;
use crate::mesh::Reporter;
use crate::placement::{Host, Hosts};
use crate::rpc::loopback::Loopback;
use crate::rpc::{self, API_PORT, RPC_PORT};
use crate::secrets::{self, KeySource, Keyring};
use crate::tokens::{PublicKeyText, RootKey};
use crate::worker::{
    self, Allocation, Capacity, Classes, ImageSettings, Images, Network, PortError, ReadyImage,
    Worker,
};

pub(super) struct Server {
    pub(super) client: Client,
    pub(super) tcp: SocketAddr,
    pub(super) host_plane: SocketAddr,
    pub(super) host: HostId,
    pub(super) catalog: Catalog,
    pub(super) vmm: FakeVmm,
    pub(super) drain: Drain,
    pub(super) directory: directory::Handle,
    pub(super) files: TempDir,
    pub(super) token_root: Arc<RootKey>,
    _worker: Worker,
}

/// Every link is made, and none is.
struct NoNetwork;

impl Network for NoNetwork {
    fn link(&self, _: SixPn, _: Allocation, _: IsolationClass) -> BootNetwork {
        BootNetwork {
            ifname: "tap0".into(),
            host_netns: "/none".into(),
            machine_netns: None,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            owner_uid: 1,
        }
    }

    async fn attach(&self, _: SixPn, _: Allocation, _: IsolationClass) -> Result<(), PortError> {
        Ok(())
    }

    async fn detach(&self, _: u32) -> Result<(), PortError> {
        Ok(())
    }

    async fn attachments(&self) -> Result<Vec<u32>, PortError> {
        Ok(Vec::new())
    }
}

/// Every image is here.
struct EveryImage;

impl Images for EveryImage {
    async fn resolve(&self, image: &ImageRef) -> Result<ReadyImage, PortError> {
        Ok(ReadyImage {
            rootfs: "/none".into(),
            identity: ImageIdentity {
                registry: image.registry.clone(),
                repository: image.repository.clone(),
                ..ImageIdentity::default()
            },
            settings: ImageSettings {
                cmd: vec!["/bin/sh".into()],
                ..ImageSettings::default()
            },
        })
    }

    async fn present(&self, _: &ImageRef) -> bool {
        true
    }
}

/// A host alone.
pub(super) async fn server() -> Server {
    Fleet::default().host(2, "local").await
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            loopback: Loopback::default(),
            directory: Mutex::default(),
            members: Arc::default(),
            token_root: Arc::new(RootKey::generate()),
        }
    }
}

/// Hosts beside each other on loopback, with one directory.
pub(super) struct Fleet {
    pub(super) loopback: Loopback,
    directory: Mutex<Option<directory::Handle>>,
    members: Arc<Mutex<Vec<Host>>>,
    token_root: Arc<RootKey>,
}

impl Fleet {
    /// Starts a host.
    pub(super) async fn host(&self, number: u16, region: &str) -> Server {
        let files = tempfile::tempdir().unwrap();
        self.host_with(number, region, files, FakeVmm::new()).await
    }

    /// Starts a host that has been there before.
    async fn host_with(&self, number: u16, region: &str, files: TempDir, vmm: FakeVmm) -> Server {
        let (drain, catalog) = (Drain::new(), Catalog::new());
        let host = HostId::new(number);
        let directory = self.directory(files.path()).await;
        let key = KeySource::File(files.path().join("keys"));
        let secrets = secrets::Handle::authority(directory.clone(), Keyring::generate(), key);
        let ledger = files.path().join("ledger.db");
        let worker = worker_config(host, region, ledger, secrets.clone());
        let capacity = worker.capacity;
        let started = Worker::start(worker, vmm.clone(), NoNetwork, EveryImage, catalog.clone())
            .await
            .unwrap();
        let config = Config {
            socket: files.path().join("api.sock"),
            tcp: Some("127.0.0.1:0".parse().unwrap()),
            region: region.into(),
        };
        let rpc = self.loopback.rpc(host);
        let members = Arc::clone(&self.members);
        let images = image::ImageStore::open(&files.path().join("images")).unwrap();
        let deps = Deps {
            garbage: ImageGarbage::new(images.clone(), None, catalog.clone(), host),
            directory: directory.clone(),
            worker: started.handle(),
            catalog: catalog.clone(),
            images,
            rpc: rpc.clone(),
            hosts: Hosts::new(move || members.lock().unwrap().clone()),
            mesh: Some(Reporter::new(|| MeshStatus {
                host: HostId::new(2),
                public_key: String::new(),
                port: 51821,
                peers: Vec::new(),
                drops: BTreeMap::from([("foreign_source".to_owned(), 3)]),
            })),
            pull: image::PullOptions::default(),
            tokens: None,
            token_root: Some(Arc::clone(&self.token_root)),
            secrets,
            clusters: Arc::default(),
        };
        let mut listeners = api::bind(&config).await.unwrap();
        let tcp = listeners.tcp_address().unwrap();
        let from_hosts = rpc.listen(API_PORT).await.unwrap();
        let host_plane = from_hosts.local_addr().unwrap();
        listeners.hosts = Some(from_hosts);
        api::run(listeners, &config, deps, &drain);
        let questions = rpc.listen(RPC_PORT).await.unwrap();
        let router = worker::router(started.handle());
        tokio::spawn(rpc::serve(questions, router, drain.token()));
        self.members.lock().unwrap().push(Host {
            id: host,
            region: region.into(),
            status: HostStatus::Ok,
            capacity: Some(capacity),
        });
        Server {
            client: Client::unix(&config.socket),
            tcp,
            host_plane,
            host,
            catalog,
            vmm,
            drain,
            directory,
            files,
            token_root: Arc::clone(&self.token_root),
            _worker: started,
        }
    }

    async fn directory(&self, files: &Path) -> directory::Handle {
        let known = self.directory.lock().unwrap().clone();
        if let Some(known) = known {
            return known;
        }
        let store = store::Store::open(&store::Config::new(files.join("directory.db"))).unwrap();
        let directory = directory::Handle::open(store).await.unwrap();
        let PublicKeyText(public) = self.token_root.public();
        let id = self.token_root.id();
        directory.put_token_key(id, public).await.unwrap();
        *self.directory.lock().unwrap() = Some(directory.clone());
        directory
    }

    /// From now on, `to` hears what `from` says of its machines.
    pub(super) fn tell(&self, from: &Server, to: &Server) {
        let (host, to) = (from.host, to.catalog.clone());
        let mut changes = from.catalog.subscribe(Filter::All, None).unwrap();
        tokio::spawn(async move {
            while let Ok(entry) = changes.next().await {
                if entry.host == host {
                    to.publish((*entry).clone());
                }
            }
        });
    }
}

fn worker_config(
    host: HostId,
    region: &str,
    ledger: PathBuf,
    secrets: secrets::Handle,
) -> worker::Config {
    let missing = (IsolationClass::Microvm, "no /dev/kvm".to_owned());
    worker::Config {
        host,
        region: region.into(),
        ledger,
        capacity: Capacity {
            cpus: 4,
            memory_mb: 2048,
            disk_mb: 100_000,
        },
        disk: None,
        classes: Classes {
            default: IsolationClass::Container,
            missing: BTreeMap::from([missing]),
        },
        boot_timeout: Duration::from_secs(10),
        rootfs_mib_default: 100,
        uids: (200_000, 200_100),
        secrets: Arc::new(HostSecrets(secrets)),
    }
}

impl Server {
    /// The same host after its process has ended and begun again.
    pub(super) async fn again(self, region: &str) -> Self {
        drop(self.drain.finish(Duration::from_secs(10)).await);
        self._worker.shutdown().await;
        let fleet = Fleet::default();
        *fleet.directory.lock().unwrap() = Some(self.directory);
        let number = self.host.number();
        fleet.host_with(number, region, self.files, self.vmm).await
    }

    pub(super) async fn app(&self, name: &str) -> AppName {
        let body = CreateApp {
            name: name.into(),
            ..CreateApp::default()
        };
        self.client.create_app(&body).await.unwrap().name
    }

    pub(super) async fn machine(&self, app: &AppName, name: &str) -> Machine {
        self.client.create_machine(app, &body(name)).await.unwrap()
    }

    /// Creates a machine and waits until it runs.
    pub(super) async fn started(&self, app: &AppName, name: &str) -> Machine {
        let machine = self.machine(app, name).await;
        let started = WaitQuery::state(MachineState::Started);
        self.client
            .wait_machine(app, &machine.id, &started)
            .await
            .unwrap();
        machine
    }

    /// A request over the Unix socket, and the status and JSON of its answer.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.send(method, path, "", body).await
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, Value) {
        let stream = UnixStream::connect(self.files.path().join("api.sock"))
            .await
            .unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}");
        let (status, _, body) = exchange(stream, &head, body).await;
        (
            status,
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        )
    }

    /// What comes in answer to a request that goes on, up to and with `end`.
    pub(super) async fn read_until(&self, path: &str, headers: &str, end: &str) -> String {
        let socket = self.files.path().join("api.sock");
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(end) {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, reading).await.unwrap();
        String::from_utf8(read).unwrap()
    }

    /// [`Self::ask`], with the nonce of a lease.
    pub(super) async fn ask_with(
        &self,
        nonce: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Value) {
        let header = format!("{LEASE_NONCE_HEADER}: {nonce}\r\n");
        self.send(method, path, &header, body).await
    }

    /// A token that nobody has listed.
    pub(super) fn token(&self, scope: &Scope) -> String {
        self.token_root.mint("01TEST", "test", scope).unwrap()
    }

    /// A request over TCP with these tokens, and the status and JSON of its answer.
    pub(super) async fn ask_as(
        &self,
        tokens: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Value) {
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {tokens}\r\n"
        );
        let (status, _, body) = exchange(stream, &head, body).await;
        (
            status,
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        )
    }

    /// A request over TCP with the header lines of `head`.
    pub(super) async fn ask_tcp(&self, head: &str) -> (u16, String, String) {
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        exchange(stream, head, "").await
    }
}

/// A machine's body: one container named after the test's image.
pub(super) fn body(name: &str) -> CreateMachine {
    CreateMachine {
        name: name.into(),
        config: MachineConfig {
            image: "localhost/hello:1".into(),
            ..MachineConfig::default()
        },
        ..CreateMachine::default()
    }
}

/// Status, header lines and body of the answer.
async fn exchange<S>(mut stream: S, head: &str, body: &str) -> (u16, String, String)
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let length = body.len();
    let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    // A server that refuses a large body does not read it to its end.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}
