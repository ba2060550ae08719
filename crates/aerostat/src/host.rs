//! The worker's ports onto this host: its images, its network, and secrets.

use image::{ImageStore, PullOptions};
use net::{Attach, AttachKind, HostNet, LinkName};
use types::machine::ImageIdentity;
use types::{AppName, ImageRef, IsolationClass, SixPn};

use crate::garbage::ImageGarbage;
use crate::secrets::{self, AppSecrets};
use crate::worker::{Allocation, ImageSettings, Images, Network, PortError, ReadyImage, Secrets};

impl PortError {
    fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// Runs `f` where it may block.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, PortError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result.map_err(PortError::new),
        Err(error) => Err(PortError::new(error)),
    }
}

/// The images of this host, and the registries that the others come from.
#[derive(Debug, Clone)]
pub(crate) struct HostImages {
    pub(crate) store: ImageStore,
    pub(crate) pull: PullOptions,
    pub(crate) garbage: ImageGarbage,
}

impl HostImages {
    async fn find(&self, image: &ImageRef) -> Result<Option<image::Image>, PortError> {
        let (store, image) = (self.store.clone(), image.clone());
        blocking(move || store.get(&image)).await
    }
}

impl Images for HostImages {
    async fn resolve(&self, image: &ImageRef) -> Result<ReadyImage, PortError> {
        let (store, wanted) = (self.store.clone(), image.clone());
        if let Some(found) = blocking(move || store.get_for_use(&wanted)).await? {
            return Ok(ready(found));
        }
        self.store
            .pull(image, &self.pull)
            .await
            .map(ready)
            .map_err(PortError::new)
            .inspect(|_| self.garbage.pulled())
    }

    async fn present(&self, image: &ImageRef) -> bool {
        matches!(self.find(image).await, Ok(Some(_)))
    }
}

fn ready(image: image::Image) -> ReadyImage {
    ReadyImage {
        rootfs: image.rootfs,
        identity: ImageIdentity {
            registry: image.reference.registry,
            repository: image.reference.repository,
            tag: image.reference.tag.unwrap_or_default(),
            digest: image.digest,
        },
        settings: ImageSettings {
            entrypoint: image.config.entrypoint,
            cmd: image.config.cmd,
            env: image
                .config
                .env
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect(),
            user: image.config.user,
            working_dir: image.config.working_dir,
            stop_signal: image.config.stop_signal,
        },
    }
}

fn request(address: SixPn, allocation: Allocation, class: IsolationClass) -> Attach {
    let kind = match class {
        IsolationClass::Container => AttachKind::Veth,
        IsolationClass::Microvm | IsolationClass::Emulated => AttachKind::Tap {
            owner_uid: allocation.uid,
        },
    };
    Attach {
        name: LinkName::of_machine(allocation.field),
        address,
        ipv4: allocation.ipv4,
        kind,
    }
}

/// The network of this host.
#[derive(Debug, Clone)]
pub(crate) struct HostNetwork(pub(crate) HostNet);

impl Network for HostNetwork {
    fn link(
        &self,
        address: SixPn,
        allocation: Allocation,
        class: IsolationClass,
    ) -> vmm::BootNetwork {
        let link = self.0.attachment(&request(address, allocation, class));
        vmm::BootNetwork {
            ifname: link.name.to_string(),
            host_netns: link.host_netns,
            machine_netns: link.netns,
            mac: vmm::MacAddress(link.mac.0),
            owner_uid: allocation.uid,
        }
    }

    async fn attach(
        &self,
        address: SixPn,
        allocation: Allocation,
        class: IsolationClass,
    ) -> Result<(), PortError> {
        let net = self.0.clone();
        let request = request(address, allocation, class);
        blocking(move || net.attach(&request).map(drop)).await
    }

    async fn detach(&self, field: u32) -> Result<(), PortError> {
        let net = self.0.clone();
        blocking(move || net.detach(&LinkName::of_machine(field))).await
    }

    async fn attachments(&self) -> Result<Vec<u32>, PortError> {
        let net = self.0.clone();
        let names = blocking(move || net.attachments()).await?;
        Ok(names.into_iter().map(LinkName::field).collect())
    }
}

/// Secrets of apps: opened here on the directory's host, asked for there on another.
#[derive(Debug)]
pub(crate) struct HostSecrets(pub(crate) secrets::Handle);

#[async_trait::async_trait]
impl Secrets for HostSecrets {
    async fn of_app(
        &self,
        app: &AppName,
        min_version: Option<u64>,
    ) -> Result<AppSecrets, PortError> {
        let had = self.0.values(app, min_version).await;
        had.map_err(PortError::new)
    }
}
