//! `/v1/images`: the images of this host. For whoever runs it; not part of Fly's API.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use image::{ImageStore, Imported, Progress, PullOptions};
use tokio::sync::mpsc;
use types::ImageRef;
use types::api::{
    Image, ImageList, ImportImage, Ok as Done, PruneImages, PrunedImages, PullEvent, PullImage,
    PullProgress,
};

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Query};
use super::watch::lines;

/// Progress on its way to the caller; what does not fit is superseded by what comes next.
const PROGRESS_MAX: usize = 64;

/// `GET /v1/images`
pub(super) async fn list(State(api): State<Api>) -> Result<Json<ImageList>, ApiError> {
    let images = on_disk(&api.deps.images, |store| store.list()).await?;
    Ok(Json(ImageList {
        images: images?.into_iter().map(show).collect(),
    }))
}

/// `POST /v1/images`: pulls, and tells how far it is as lines of JSON.
pub(super) async fn pull(
    State(api): State<Api>,
    Body(body): Body<PullImage>,
) -> Result<Response, ApiError> {
    let reference = reference(&body.reference)?;
    let (sender, receiver) = mpsc::channel(PROGRESS_MAX);
    let progress = sender.clone();
    let mut options = PullOptions {
        progress: Some(Arc::new(move |step| {
            // Full: the caller reads slowly, and the next step says more than this one.
            let _ = progress.try_send(PullEvent::Progress(shown(step)));
        })),
        ..api.deps.pull.clone()
    };
    if body.plain_http {
        options
            .plain_http_registries
            .push(reference.registry.clone());
    }
    let (store, drain) = (api.deps.images.clone(), api.drain.clone());
    let garbage = api.deps.garbage.clone();
    // Goes on when the caller has gone: the next one finds the image.
    tokio::spawn(async move {
        let last = tokio::select! {
            pulled = store.pull(&reference, &options) => match pulled {
                Ok(image) => {
                    garbage.pulled();
                    PullEvent::Image { image: show(image) }
                }
                Err(error) => PullEvent::Failed { body: ApiError::from(error).body().1 },
            },
            () = drain.cancelled() => PullEvent::Failed { body: ApiError::ShuttingDown.body().1 },
        };
        let _ = sender.send(last).await;
    });
    let events = stream::unfold(receiver, async |mut receiver| {
        let event = receiver.recv().await?;
        Some((event, receiver))
    });
    Ok(lines(events).into_response())
}

/// `POST /v1/images/import`: takes an OCI layout or a `docker save` archive from this host's own
/// disk.
pub(super) async fn import(
    State(api): State<Api>,
    Body(body): Body<ImportImage>,
) -> Result<Json<Image>, ApiError> {
    let name = match body.name.as_str() {
        "" => None,
        name => Some(reference(name)?),
    };
    let path = PathBuf::from(&body.path);
    if !path.is_absolute() {
        return Err(ApiError::bad(
            "path must be absolute: it is one of the API's own host".into(),
        ));
    }
    let imported = on_disk(&api.deps.images, move |store| {
        store.import(&path, name.as_ref())
    })
    .await?;
    Ok(Json(show(imported?)))
}

/// `DELETE /v1/images?reference=`
pub(super) async fn remove(State(api): State<Api>, query: Query) -> Result<Json<Done>, ApiError> {
    let reference = reference(query.get("reference").unwrap_or_default())?;
    let wanted = reference.clone();
    let removed = on_disk(&api.deps.images, move |store| store.remove(&wanted)).await?;
    match removed? {
        true => Ok(Json(Done { ok: true })),
        false => Err(ApiError::ImageNotFound {
            reference: reference.to_string(),
        }),
    }
}

/// `POST /v1/images/prune`: removes what no machine uses.
pub(super) async fn prune(
    State(api): State<Api>,
    Body(body): Body<PruneImages>,
) -> Result<Json<PrunedImages>, ApiError> {
    let imported = match body.all {
        true => Imported::Go,
        false => Imported::Stay,
    };
    let garbage = api.deps.garbage.clone();
    let pruned = on_disk(&api.deps.images, move |_| garbage.prune(imported)).await??;
    Ok(Json(PrunedImages {
        images: pruned.images.into_iter().map(show).collect(),
        freed_bytes: pruned.bytes,
    }))
}

async fn on_disk<T: Send + 'static>(
    store: &ImageStore,
    work: impl FnOnce(&ImageStore) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let store = store.clone();
    let worked = tokio::task::spawn_blocking(move || work(&store)).await;
    worked.map_err(|_| ApiError::ShuttingDown)
}

fn reference(text: &str) -> Result<ImageRef, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad(format!("{error}")))
}

fn show(image: image::Image) -> Image {
    Image {
        reference: image.reference.to_string(),
        digest: image.digest,
        size_bytes: image.size_bytes,
        created_at: image.created,
    }
}

fn shown(progress: Progress) -> PullProgress {
    match progress {
        Progress::Downloading {
            layer,
            layers,
            done_bytes,
            total_bytes,
        } => PullProgress::Downloading {
            layer,
            layers,
            done_bytes,
            total_bytes,
        },
        Progress::Unpacking { layer, layers } => PullProgress::Unpacking { layer, layers },
        Progress::Writing { layers } => PullProgress::Writing { layers },
    }
}
