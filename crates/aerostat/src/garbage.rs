//! Keeps the images of this host within their share of the disk.
//!
//! A collection runs every hour and after each pull. It takes what can be pulled again and what no
//! machine, running or stopped, was made of; which machines there are is asked under the store's
//! lock, and a machine is in the catalog before its worker asks for its images.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use image::{Freed, GarbageRules, ImageStore, Imported, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{HostId, ImageRef};

use crate::catalog::{Catalog, Filter};

const EVERY: Duration = Duration::from_secs(3600);
/// An image that was just pulled is about to be used.
const IDLE_MIN: Duration = Duration::from_secs(600);

/// The images of a host, and who uses them. Clones share it.
#[derive(Clone)]
pub struct ImageGarbage {
    store: ImageStore,
    /// None: no limit.
    bytes_max: Option<u64>,
    catalog: Catalog,
    host: HostId,
    pulled: Arc<Notify>,
}

impl fmt::Debug for ImageGarbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageGarbage")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl ImageGarbage {
    pub fn new(store: ImageStore, bytes_max: Option<u64>, catalog: Catalog, host: HostId) -> Self {
        Self {
            store,
            bytes_max,
            catalog,
            host,
            pulled: Arc::default(),
        }
    }

    /// Says that an image has come.
    pub fn pulled(&self) {
        self.pulled.notify_one();
    }

    /// Removes what no machine uses, however small. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn prune(&self, imported: Imported) -> Result<Freed, StoreError> {
        let rules = GarbageRules {
            bytes_max: 0,
            idle_min: Duration::ZERO,
            imported,
        };
        self.store.collect_garbage(rules, || self.in_use())
    }

    /// Collects until the token says to end. The worker must have told the catalog of its
    /// machines before.
    pub async fn run(self, end: CancellationToken) {
        let rules = GarbageRules {
            // Without a limit there are still layers that nobody will ask for again.
            bytes_max: self.bytes_max.unwrap_or(u64::MAX),
            idle_min: IDLE_MIN,
            imported: Imported::Stay,
        };
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = self.pulled.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            let garbage = self.clone();
            let collect = move || garbage.store.collect_garbage(rules, || garbage.in_use());
            match tokio::task::spawn_blocking(collect).await {
                Ok(Ok(freed)) if freed == Freed::default() => {}
                Ok(Ok(freed)) => {
                    for image in &freed.images {
                        info!(image = %image.reference, "image removed, as images take too much room");
                    }
                    info!(bytes = freed.bytes, "images collected");
                }
                Ok(Err(error)) => {
                    warn!(error = %types::chain(&error), "cannot collect images, trying again later");
                }
                // The process is ending.
                Err(_) => return,
            }
        }
    }

    fn in_use(&self) -> Vec<ImageRef> {
        let machines = self.catalog.list(&Filter::All).entries;
        let own = machines.iter().filter(|entry| entry.host == self.host);
        let configs = own.map(|entry| &entry.machine.config);
        configs
            .flat_map(|config| {
                let containers = config.containers.iter();
                let images = containers.map(|container| &container.image);
                images.chain([&config.image])
            })
            .filter_map(|image| image.parse().ok())
            .collect()
    }
}

#[cfg(test)]
mod tests;
