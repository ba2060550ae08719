//! What is done with a volume while its machine runs: held still for a copy, and grown in place.
//!
//! Neither is needed for what was asked: a copy of a volume that does not stand still is that of a
//! power cut, and one that does not grow now does so at the next boot.

use futures::future::BoxFuture;
use std::sync::{Arc, Weak};

use tracing::{info, warn};
use types::{MachineId, VolumeId};
use vmm::{Frozen, VmmError};

use super::Volumes;
use super::files::{FileError, Files};
use super::volume::Event;

/// The way to the guests of machines that run.
pub(in crate::worker) trait Live: Send + Sync {
    /// Lets a volume stand still; `None` if the machine does not run.
    fn freeze<'a>(
        &'a self,
        machine: &'a MachineId,
        volume: &'a VolumeId,
    ) -> BoxFuture<'a, Result<Option<Frozen>, VmmError>>;

    /// Lets the file system take up its file, which has `bytes`; `false` if the machine does not
    /// run.
    fn grow<'a>(
        &'a self,
        machine: &'a MachineId,
        volume: &'a VolumeId,
        bytes: u64,
    ) -> BoxFuture<'a, Result<bool, VmmError>>;
}

impl std::fmt::Debug for dyn Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

/// What a copy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// A file system that stood still, or that nobody used.
    Exact,
    /// One that was in use, as after a power cut.
    PowerCut,
}

impl Volumes {
    /// Once, when there are machines.
    pub(in crate::worker) fn set_live(&self, live: Weak<dyn Live>) {
        let _ = self.inner.live.set(live);
    }

    fn live(&self) -> Option<Arc<dyn Live>> {
        self.inner.live.get()?.upgrade()
    }

    /// Runs `copy` while the volume stands still, as far as it can be made to.
    pub(super) async fn copy_of<T: Send + 'static>(
        &self,
        volume: &VolumeId,
        copy: impl FnOnce(&Files) -> Result<T, FileError> + Send + 'static,
    ) -> Result<(T, Moment), FileError> {
        // Never closed, so it is always got. First, for it may take long.
        let _place = self.inner.copies.acquire().await;
        let (frozen, mut moment) = match self.user(volume) {
            None => (None, Moment::Exact),
            Some(machine) => self.freeze(&machine, volume).await,
        };
        let copied = self.quick(copy).await?;
        if let Some(frozen) = frozen
            && let Err(error) = frozen.thaw().await
        {
            warn!(%volume, error = %types::chain(&error), "a volume went on while it was copied");
            moment = Moment::PowerCut;
        }
        Ok((copied, moment))
    }

    async fn freeze(&self, machine: &MachineId, volume: &VolumeId) -> (Option<Frozen>, Moment) {
        let Some(live) = self.live() else {
            return (None, Moment::PowerCut);
        };
        match live.freeze(machine, volume).await {
            Ok(Some(frozen)) => (Some(frozen), Moment::Exact),
            Ok(None) => (None, Moment::PowerCut),
            Err(error) => {
                warn!(%volume, error = %types::chain(&error), "a volume is copied while it is used");
                (None, Moment::PowerCut)
            }
        }
    }

    /// Lets a volume grow in the machine that uses it, if that can be done.
    pub(super) async fn grow_live(&self, machine: &MachineId, id: &VolumeId, size_gb: u64) {
        let Some(live) = self.live() else { return };
        let name = id.to_string();
        let longer = self
            .quick(move |files| files.lengthen(&name, size_gb))
            .await;
        if let Err(error) = longer {
            warn!(volume = %id, error = %types::chain(&error), "a volume's file does not grow");
            return;
        }
        match live.grow(machine, id, size_gb << 30).await {
            Ok(true) => {
                info!(volume = %id, size_gb, "volume grown in its machine");
                self.finish(id, Event::Grown { size_gb }).await;
            }
            Ok(false) => {}
            Err(error) => {
                info!(volume = %id, reason = %types::chain(&error), "volume grows at the next boot");
            }
        }
    }
}
