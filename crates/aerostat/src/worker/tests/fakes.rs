//! A host that is not there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use types::machine::ImageIdentity;
use types::{AppName, HostId, ImageRef, IsolationClass, SixPn};
use vmm::fake::FakeVmm;

use crate::catalog::Catalog;
use crate::secrets::AppSecrets;
use crate::worker::*;

/// What stays when a worker dies, and where the next one begins.
pub(crate) struct World {
    directory: Arc<tempfile::TempDir>,
    pub(super) vmm: FakeVmm,
    pub(super) network: FakeNetwork,
    pub(super) catalog: Catalog,
    pub(super) secrets: FakeSecrets,
}

#[derive(Debug, Clone, Default)]
pub(super) struct FakeNetwork(Arc<Mutex<BTreeSet<u32>>>);

/// Those of every app; `None`: they cannot be had.
#[derive(Debug, Clone)]
pub(crate) struct FakeSecrets(pub(super) Arc<Mutex<Option<AppSecrets>>>);

impl Default for FakeSecrets {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(AppSecrets::default()))))
    }
}

impl FakeSecrets {
    pub(super) fn set(&self, pairs: &[(&str, &str)]) {
        let values = pairs.iter().map(|(name, value)| {
            let value = crate::secrets::Secret::new((*value).to_owned());
            ((*name).to_owned(), value)
        });
        *self.0.lock().unwrap() = Some(AppSecrets {
            version: 1,
            values: values.collect(),
        });
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nobody knows the secrets")]
struct NobodyKnows;

#[async_trait::async_trait]
impl Secrets for FakeSecrets {
    async fn of_app(&self, _: &AppName, _: Option<u64>) -> Result<AppSecrets, PortError> {
        let known = self.0.lock().unwrap().clone();
        known.ok_or_else(|| PortError(Box::new(NobodyKnows)))
    }
}

/// `missing` is nowhere, `slow` is pulled for ever, everything else is here.
#[derive(Debug, Clone, Copy)]
pub(super) struct FakeImages;

#[derive(Debug, thiserror::Error)]
#[error("the registry has no {0}")]
struct NoImage(ImageRef);

impl World {
    pub(crate) fn new() -> Self {
        Self {
            directory: Arc::new(tempfile::tempdir().unwrap()),
            vmm: FakeVmm::new(),
            network: FakeNetwork::default(),
            catalog: Catalog::new(),
            secrets: FakeSecrets::default(),
        }
    }

    pub(super) fn with_new_catalog(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            vmm: self.vmm.clone(),
            network: self.network.clone(),
            catalog: Catalog::new(),
            secrets: self.secrets.clone(),
        }
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    pub(crate) async fn start(&self) -> Worker {
        let missing = [(IsolationClass::Microvm, "no KVM".to_owned())].into();
        let config = Config {
            host: HostId::new(2),
            region: "local".into(),
            ledger: self.ledger(),
            capacity: Capacity {
                cpus: 4,
                memory_mb: 4096,
                disk_mb: 100_000,
            },
            disk: None,
            classes: Classes {
                default: IsolationClass::Container,
                missing,
            },
            boot_timeout: Duration::from_secs(10),
            rootfs_mib_default: 1024,
            uids: (100_000, 101_000),
            secrets: Arc::new(self.secrets.clone()),
        };
        let (vmm, network) = (self.vmm.clone(), self.network.clone());
        Worker::start(config, vmm, network, FakeImages, self.catalog.clone())
            .await
            .unwrap()
    }

    pub(super) async fn eventually(&self, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("it never happened");
    }
}

impl FakeNetwork {
    pub(super) fn attached(&self) -> BTreeSet<u32> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn attach_stray(&self, field: u32) {
        self.0.lock().unwrap().insert(field);
    }
}

impl Network for FakeNetwork {
    fn link(
        &self,
        _address: SixPn,
        allocation: Allocation,
        _class: IsolationClass,
    ) -> vmm::BootNetwork {
        vmm::BootNetwork {
            ifname: format!("m{:08x}", allocation.field),
            host_netns: "/nowhere".into(),
            machine_netns: None,
            mac: vmm::MacAddress([2; 6]),
            owner_uid: allocation.uid,
        }
    }

    async fn attach(
        &self,
        _address: SixPn,
        allocation: Allocation,
        _class: IsolationClass,
    ) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        self.0.lock().unwrap().insert(allocation.field);
        Ok(())
    }

    async fn detach(&self, field: u32) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        self.0.lock().unwrap().remove(&field);
        Ok(())
    }

    async fn attachments(&self) -> Result<Vec<u32>, PortError> {
        Ok(self.attached().into_iter().collect())
    }
}

impl Images for FakeImages {
    async fn resolve(&self, image: &ImageRef) -> Result<ReadyImage, PortError> {
        let name = image.repository.trim_start_matches("library/").to_owned();
        match name.as_str() {
            "missing" => Err(PortError(Box::new(NoImage(image.clone())))),
            "slow" => std::future::pending().await,
            _ => Ok(ReadyImage {
                rootfs: "/nowhere".into(),
                identity: ImageIdentity {
                    digest: format!("sha256:{name}"),
                    ..ImageIdentity::default()
                },
                settings: ImageSettings {
                    cmd: vec!["run".into()],
                    ..ImageSettings::default()
                },
            }),
        }
    }

    async fn present(&self, image: &ImageRef) -> bool {
        !matches!(
            image.repository.as_str(),
            "library/missing" | "library/slow"
        )
    }
}
