//! `/v1/mesh`: how this host sees the others. For whoever runs it; not part of Fly's API.

use axum::Json;
use axum::extract::State;
use types::fleet::MeshStatus;

use super::Api;
use super::error::ApiError;

/// `GET /v1/mesh`
pub(super) async fn status(State(api): State<Api>) -> Result<Json<MeshStatus>, ApiError> {
    let mesh = api.deps.mesh.as_ref().ok_or(ApiError::NoMesh)?;
    Ok(Json(mesh.status()))
}
