//! `…/machines/{id}/metadata`: changes that make no new version.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use types::api::{MetadataValue, UpdateMetadata};

use super::Api;
use super::error::ApiError;
use super::extract::{Body, Target};
use super::lease::Asked;
use crate::worker::MetadataChange;

/// The key that the path names.
pub(super) struct Key(String);

#[derive(Deserialize)]
struct KeyInPath {
    key: String,
}

impl FromRequestParts<Api> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = Path::<KeyInPath>::from_request_parts(parts, api).await;
        let Path(KeyInPath { key }) =
            path.map_err(|_| ApiError::bad("the path cannot be read".into()))?;
        Ok(Self(key))
    }
}

/// `GET …/metadata`
pub(super) async fn get(
    State(api): State<Api>,
    target: Target,
) -> Result<Json<BTreeMap<String, String>>, ApiError> {
    Ok(Json(of(&api, &target)?))
}

fn of(api: &Api, target: &Target) -> Result<BTreeMap<String, String>, ApiError> {
    let machine = api.deps.worker.get(&target.id);
    Ok(machine.ok_or(ApiError::MachineNotFound)?.config.metadata)
}

/// `PUT` and `PATCH …/metadata`, which mean the same.
pub(super) async fn update(
    target: Target,
    Asked(worker): Asked,
    Body(body): Body<UpdateMetadata>,
) -> Result<StatusCode, ApiError> {
    let change = MetadataChange {
        values: body.metadata.into_iter().map(said).collect(),
        replace: false,
        version: body.machine_version.filter(|version| !version.is_empty()),
    };
    worker.change_metadata(&target.id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The empty text takes a key away, as `null` does.
fn said((key, value): (String, Option<String>)) -> (String, Option<String>) {
    (key, value.filter(|value| !value.is_empty()))
}

/// `GET …/metadata/{key}`
pub(super) async fn get_value(
    State(api): State<Api>,
    target: Target,
    Key(key): Key,
) -> Result<Json<MetadataValue>, ApiError> {
    match of(&api, &target)?.remove(&key) {
        Some(value) => Ok(Json(MetadataValue {
            value,
            updated_at: None,
        })),
        None => Err(ApiError::NoSuchKey { key }),
    }
}

/// `POST …/metadata/{key}`
pub(super) async fn set_value(
    target: Target,
    Key(key): Key,
    Asked(worker): Asked,
    Body(body): Body<MetadataValue>,
) -> Result<StatusCode, ApiError> {
    let values = BTreeMap::from([said((key, Some(body.value)))]);
    let change = MetadataChange {
        values,
        ..MetadataChange::default()
    };
    worker.change_metadata(&target.id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE …/metadata/{key}`
pub(super) async fn delete_value(
    target: Target,
    Key(key): Key,
    Asked(worker): Asked,
) -> Result<StatusCode, ApiError> {
    let change = MetadataChange {
        values: BTreeMap::from([(key, None)]),
        ..MetadataChange::default()
    };
    worker.change_metadata(&target.id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}
