//! The layers of one image: had from an earlier pull, or downloaded, and unpacked.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tracing::warn;

use super::client::Registry;
use super::{Progress, PullError, PullOptions, blocking};
use crate::convert::layer_name;
use crate::error::ImageError;
use crate::manifest::Descriptor;
use crate::spool::{Blob, Budget, Spool, spool};
use crate::store::{Begun, ImageStore, Work};

/// Layers in work at a time; registries start to throttle above this, and so do disks.
const LAYERS_AT_A_TIME: usize = 3;
/// Before a download that broke off goes on.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

pub(super) struct Fetch<'a> {
    pub(super) store: &'a ImageStore,
    pub(super) registry: &'a Registry,
    pub(super) options: &'a PullOptions,
    pub(super) work: &'a Arc<Work>,
}

/// A layer and its place among the others.
#[derive(Clone)]
struct Place {
    index: usize,
    layers: usize,
    /// What it is called in messages.
    name: String,
}

impl Fetch<'_> {
    /// Downloads and unpacks the layers; each with what it is called in messages.
    pub(super) async fn layers(
        &self,
        layers: &[Descriptor],
    ) -> Result<Vec<(Spool, String)>, PullError> {
        let packed_bytes = layers
            .iter()
            .fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let bytes_max = self.options.limits.unpacked_bytes_max;
        if packed_bytes > bytes_max {
            let what = "the image, still packed,".to_owned();
            return Err(ImageError::TooLarge {
                what,
                bytes: packed_bytes,
                bytes_max,
            }
            .into());
        }
        let budget = Arc::new(Budget::new(bytes_max));
        let count = layers.len();
        let fetched = layers.iter().enumerate().map(|(index, layer)| {
            let place = Place {
                index,
                layers: count,
                name: layer_name(index, count, &layer.digest),
            };
            self.layer(layer, place, Arc::clone(&budget))
        });
        // The vector is needed: a lazy iterator of borrowing futures is not `Send` enough.
        let fetched: Vec<_> = fetched.collect();
        futures::stream::iter(fetched)
            .buffered(LAYERS_AT_A_TIME)
            .try_collect()
            .await
    }

    async fn layer(
        &self,
        layer: &Descriptor,
        place: Place,
        budget: Arc<Budget>,
    ) -> Result<(Spool, String), PullError> {
        let packed = self.packed(layer, &place).await?;
        self.options.report(Progress::Unpacking {
            layer: place.index,
            layers: place.layers,
        });
        let (layer, work, store) = (layer.clone(), Arc::clone(self.work), self.store.clone());
        blocking("unpack", move || {
            let reader = rewound(packed).map_err(ImageError::io("read a downloaded layer"))?;
            let blob = Blob {
                reader,
                digest: Some(layer.digest),
                bytes: layer.size,
                name: place.name.clone(),
            };
            let unpacked = spool(blob, work.unnamed_file()?, &budget);
            if let Err(ImageError::DigestMismatch { .. } | ImageError::SizeMismatch { .. }) =
                &unpacked
            {
                // The disk did not keep what was put there; the next pull downloads it again.
                store.forget_blob(&layer.digest)?;
            }
            Ok((unpacked?, place.name))
        })
        .await
    }

    /// The layer as the registry has it, checked when it came; gone on with a few times when the
    /// connection breaks.
    async fn packed(&self, layer: &Descriptor, place: &Place) -> Result<File, PullError> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.try_packed(layer, place).await {
                Err(error @ PullError::Unreachable { .. }) => error,
                done => return done,
            };
            let Some(pause) = pauses.next() else {
                return Err(error);
            };
            warn!(
                error = types::chain(&error),
                layer = place.name,
                "download broke off, going on"
            );
            tokio::time::sleep(*pause).await;
        }
    }

    async fn try_packed(&self, layer: &Descriptor, place: &Place) -> Result<File, PullError> {
        let report = |done_bytes| {
            self.options.report(Progress::Downloading {
                layer: place.index,
                layers: place.layers,
                done_bytes,
                total_bytes: layer.size,
            });
        };
        let (store, digest, name) = (self.store.clone(), layer.digest, place.name.clone());
        let begin = move || match store.begin_blob(&digest)? {
            Begun::Whole(file) => Ok(Err(file)),
            Begun::Part(mut part) => {
                let begun = part.resume();
                let begun =
                    begun.map_err(ImageError::io(format!("read what is here of {name}")))?;
                Ok(Ok((part, begun)))
            }
        };
        let (part, begun) = match blocking("begin to download", begin).await? {
            Ok(begun) => begun,
            Err(whole) => {
                report(layer.size);
                return Ok(whole);
            }
        };
        let registry = self.registry;
        let downloaded = registry.download(layer, &place.name, &part, begun, &report);
        match downloaded.await {
            Ok(()) => blocking("keep", move || Ok(part.finish()?)).await,
            // It has the wrong bytes, or takes the last of the disk.
            Err(error @ PullError::Image(_)) => {
                blocking("discard", move || Ok(part.discard()?)).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

fn rewound(mut file: File) -> io::Result<File> {
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
