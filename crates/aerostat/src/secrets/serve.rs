//! What the directory's host answers to the workers of others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use types::{AppName, HostId};

use super::Handle;
use crate::rpc::{self, Caller};

pub(super) const OF_APP: &str = "/secrets/v1/of-app";

/// Until the word of a machine that was just made there is here.
const PLACED_TIMEOUT: Duration = Duration::from_secs(3);
const PLACED_POLL: Duration = Duration::from_millis(50);

/// Whether a host has machines of an app: it is told no others' secrets.
pub type IsPlaced = Arc<dyn Fn(HostId, &AppName) -> bool + Send + Sync>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfApp {
    pub(super) app: AppName,
    pub(super) min_version: u64,
}

/// Travels over the encrypted mesh only.
#[derive(Serialize, Deserialize)]
pub(super) struct OfAppAnswer {
    pub(super) version: u64,
    pub(super) values: BTreeMap<String, String>,
}

/// Answers other hosts.
pub fn router(handle: Handle, is_placed: IsPlaced) -> Router {
    Router::new()
        .route(OF_APP, post(of_app))
        .with_state((handle, is_placed))
}

async fn of_app(
    State((handle, is_placed)): State<(Handle, IsPlaced)>,
    Caller(by): Caller,
    Json(question): Json<OfApp>,
) -> rpc::Answer<Result<OfAppAnswer, String>> {
    let app = &question.app;
    let placed = async {
        while !is_placed(by, app) {
            tokio::time::sleep(PLACED_POLL).await;
        }
    };
    if tokio::time::timeout(PLACED_TIMEOUT, placed).await.is_err() {
        tracing::warn!(host = %by, %app, "a host asks for secrets of an app that it has no machines of");
        let reason = format!("host {by} has no machine of app `{app}`");
        return rpc::Answer(Err(reason));
    }
    let values = handle.values(app, Some(question.min_version)).await;
    rpc::Answer(match values {
        Ok(secrets) => Ok(OfAppAnswer {
            version: secrets.version,
            values: secrets
                .values
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
        }),
        Err(error) => Err(types::chain(&error)),
    })
}
