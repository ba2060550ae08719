//! A host whose machines happen in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, WaitQuery};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use types::api::{CreateApp, CreateMachine, LEASE_NONCE_HEADER};
use types::machine::{ImageIdentity, Machine, MachineConfig, MachineState};
use types::{AppName, HostId, ImageRef, IsolationClass, SixPn};
use vmm::fake::FakeVmm;
use vmm::{BootNetwork, MacAddress};

use crate::api::{self, Config, Deps};
use crate::catalog::Catalog;
use crate::directory;
use crate::drain::Drain;
use crate::worker::{
    self, Allocation, Capacity, Classes, ImageSettings, Images, Network, PortError, ReadyImage,
    Worker,
};

pub(super) const TOKEN: &str = "a-token-of-this-test";

pub(super) struct Server {
    pub(super) client: Client,
    pub(super) tcp: SocketAddr,
    pub(super) vmm: FakeVmm,
    pub(super) drain: Drain,
    pub(super) files: TempDir,
    _worker: Worker,
}

/// Every link is made, and none is.
struct NoNetwork;

impl Network for NoNetwork {
    async fn attach(
        &self,
        _: SixPn,
        _: Allocation,
        _: IsolationClass,
    ) -> Result<BootNetwork, PortError> {
        Ok(BootNetwork {
            ifname: "tap0".into(),
            host_netns: "/none".into(),
            machine_netns: None,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            owner_uid: 1,
        })
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

pub(super) async fn server() -> Server {
    let files = tempfile::tempdir().unwrap();
    let (drain, catalog, vmm) = (Drain::new(), Catalog::new(), FakeVmm::new());
    let missing = (IsolationClass::Microvm, "no /dev/kvm".to_owned());
    let worker = worker::Config {
        host: HostId::new(2),
        region: "local".into(),
        ledger: files.path().join("ledger.db"),
        capacity: Capacity {
            cpus: 4,
            memory_mb: 2048,
            disk_mb: 100_000,
        },
        classes: Classes {
            default: IsolationClass::Container,
            missing: BTreeMap::from([missing]),
        },
        boot_timeout: Duration::from_secs(10),
        rootfs_mib_default: 100,
        uids: (200_000, 200_100),
    };
    let started = Worker::start(worker, vmm.clone(), NoNetwork, EveryImage, catalog.clone())
        .await
        .unwrap();
    let store = store::Store::open(&store::Config::new(files.path().join("directory.db"))).unwrap();
    let config = Config {
        socket: files.path().join("api.sock"),
        tcp: Some("127.0.0.1:0".parse().unwrap()),
        token: TOKEN.into(),
        region: "local".into(),
        host: HostId::new(2),
    };
    let deps = Deps {
        directory: directory::Handle::open(store).await.unwrap(),
        worker: started.handle(),
        catalog,
        images: image::ImageStore::open(&files.path().join("images")).unwrap(),
        mesh: None,
        plain_http_registries: Vec::new(),
        tokens: None,
    };
    let listeners = api::bind(&config).await.unwrap();
    let tcp = listeners.tcp_address().unwrap();
    api::run(listeners, &config, deps, &drain);
    Server {
        client: Client::unix(&config.socket),
        tcp,
        vmm,
        drain,
        files,
        _worker: started,
    }
}

impl Server {
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

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
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
