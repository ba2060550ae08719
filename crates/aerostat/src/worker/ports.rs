//! What the worker asks of this host beside the VMM: images, the machine's network and secrets.

use std::error::Error;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use async_trait::async_trait;
use types::machine::ImageIdentity;
use types::{AppName, ImageRef, IsolationClass, SixPn};

use crate::secrets::AppSecrets;

/// Something that a port could not do: the adapter's own error, with its causes.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PortError(pub Box<dyn Error + Send + Sync>);

/// What an image says about how to run it, as in the OCI image configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSettings {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: Option<String>,
}

/// An image that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyImage {
    /// The read-only filesystem image.
    pub rootfs: PathBuf,
    pub identity: ImageIdentity,
    pub settings: ImageSettings,
}

/// Secrets of apps. Asked right before a boot, and what is answered is kept nowhere.
#[async_trait]
pub trait Secrets: std::fmt::Debug + Send + Sync {
    /// The values of an app's secrets, of at least this version, for which it waits some seconds.
    ///
    /// # Errors
    /// If they cannot be had. The text says why, and shows no value.
    async fn of_app(
        &self,
        app: &AppName,
        min_version: Option<u64>,
    ) -> Result<AppSecrets, PortError>;
}

/// The images of this host.
pub trait Images: Send + Sync + 'static {
    /// The image, ready to boot; pulled if it is not here yet. May take minutes, and may be
    /// dropped.
    ///
    /// # Errors
    /// If it is not here and cannot be pulled. The text says what to try.
    fn resolve(
        &self,
        image: &ImageRef,
    ) -> impl Future<Output = Result<ReadyImage, PortError>> + Send;

    /// Whether [`Self::resolve`] would need no registry.
    fn present(&self, image: &ImageRef) -> impl Future<Output = bool> + Send;
}

/// A machine's place in the network, given out by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Allocation {
    /// The machine field of the 6PN address; also names the link.
    pub field: u32,
    pub ipv4: Ipv4Addr,
    /// The user that the VMM runs as.
    pub uid: u32,
}

/// The network of this host.
pub trait Network: Send + Sync + 'static {
    /// What the machine's link is, or will be.
    fn link(
        &self,
        address: SixPn,
        allocation: Allocation,
        class: IsolationClass,
    ) -> vmm::BootNetwork;

    /// Makes the machine's link with its guards. Idempotent.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn attach(
        &self,
        address: SixPn,
        allocation: Allocation,
        class: IsolationClass,
    ) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Removes the link of the machine with this field. Idempotent.
    ///
    /// # Errors
    /// If something could not be removed; calling again is right.
    fn detach(&self, field: u32) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Fields of every machine that has a link, for the sweep at start-up.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn attachments(&self) -> impl Future<Output = Result<Vec<u32>, PortError>> + Send;
}
