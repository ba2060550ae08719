//! What hosts ask of each other about volumes: who has room, and what they have.

use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use types::AppName;

use super::{Handle, MARKET_TIMEOUT, Remote};
use crate::rpc::{Answer, Caller, Unreachable};
use crate::worker::refused::NoBid;
use crate::worker::volumes::{ShownVolume, VolumeQuery, VolumeRefused};

const BID: &str = "/worker/v1/volumes/bid";
const LIST: &str = "/worker/v1/volumes/list";
const DESTROY: &str = "/worker/v1/volumes/destroy";

/// Deleting some files.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(30);

/// A volume that somebody wants to place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBidRequest {
    pub app: AppName,
    pub name: String,
    pub size_gb: u64,
}

/// What a worker could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBid {
    /// Volumes of the same name of the same app that are here.
    pub same_name: u32,
    pub free_gb: u64,
}

/// The volumes of an app that is being deleted.
#[derive(Debug, Serialize, Deserialize)]
struct Destroy {
    app: AppName,
}

impl Remote {
    /// As [`crate::worker::Volumes::bid`].
    ///
    /// # Errors
    /// Also [`NoBid::Unreachable`].
    pub async fn bid_volume(&self, request: &VolumeBidRequest) -> Result<VolumeBid, NoBid> {
        let answer: Result<Result<VolumeBid, NoBid>, Unreachable> =
            self.rpc.call(self.host, BID, request, MARKET_TIMEOUT).await;
        answer.unwrap_or_else(|error| {
            tracing::debug!(error = %types::chain(&error), "a host took no part");
            Err(NoBid::Unreachable { host: self.host })
        })
    }

    /// As [`crate::worker::Volumes::list`].
    ///
    /// # Errors
    /// [`Unreachable`], also when the host does not answer within `deadline`.
    pub async fn volumes(
        &self,
        query: &VolumeQuery,
        deadline: Duration,
    ) -> Result<Vec<ShownVolume>, Unreachable> {
        self.rpc.call(self.host, LIST, query, deadline).await
    }

    /// As [`crate::worker::Volumes::destroy_all`].
    ///
    /// # Errors
    /// [`Unreachable`]; the inner error is the host's own.
    pub async fn destroy_volumes(
        &self,
        app: &AppName,
    ) -> Result<Result<(), VolumeRefused>, Unreachable> {
        let question = Destroy { app: app.clone() };
        self.rpc
            .call(self.host, DESTROY, &question, DESTROY_TIMEOUT)
            .await
    }
}

pub(super) fn routes() -> Router<Handle> {
    Router::new()
        .route(BID, post(bid))
        .route(LIST, post(list))
        .route(DESTROY, post(destroy))
}

async fn bid(
    State(worker): State<Handle>,
    _: Caller,
    Json(request): Json<VolumeBidRequest>,
) -> Answer<Result<VolumeBid, NoBid>> {
    Answer(worker.volumes().bid(&request).await)
}

async fn list(
    State(worker): State<Handle>,
    _: Caller,
    Json(query): Json<VolumeQuery>,
) -> Answer<Vec<ShownVolume>> {
    let listed = worker.volumes().list(query).await;
    // A worker that shuts down has nothing to show any more.
    Answer(listed.unwrap_or_default())
}

async fn destroy(
    State(worker): State<Handle>,
    Caller(caller): Caller,
    Json(question): Json<Destroy>,
) -> Answer<Result<(), VolumeRefused>> {
    tracing::info!(app = %question.app, by = %caller, "another host deletes the volumes of an app");
    Answer(worker.volumes().destroy_all(&question.app).await)
}
