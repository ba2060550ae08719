//! Kubernetes clusters of this host.

use axum::Json;
use axum::body::Body as AnswerBody;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use types::api::Ok as Done;
use types::cluster::{Cluster, ClusterList, ClusterName, CreateCluster, RotateKeys, RotatedKeys};

use super::Api;
use super::error::ApiError;
use super::extract::Body;
use super::files::TAR;
use crate::clusters::Clusters;

fn clusters(api: &Api) -> Result<&Clusters, ApiError> {
    api.deps.clusters.get().ok_or(ApiError::NotStarted)
}

fn name(text: &str) -> Result<ClusterName, ApiError> {
    text.parse()
        .map_err(|error: types::cluster::InvalidClusterName| ApiError::bad(error.to_string()))
}

/// `GET /v1/clusters`
pub(super) async fn list(State(api): State<Api>) -> Result<Json<ClusterList>, ApiError> {
    let clusters = clusters(&api)?.list().await;
    Ok(Json(ClusterList { clusters }))
}

/// `POST /v1/clusters`
pub(super) async fn create(
    State(api): State<Api>,
    Body(wanted): Body<CreateCluster>,
) -> Result<(StatusCode, Json<Cluster>), ApiError> {
    // A client that hangs up leaves a whole cluster or none.
    let clusters = clusters(&api)?.clone();
    let created = tokio::spawn(async move { clusters.create(wanted).await }).await;
    let created = created.map_err(|_| ApiError::NotStarted)??;
    Ok((StatusCode::CREATED, Json(created)))
}

/// `GET /v1/clusters/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Json<Cluster>, ApiError> {
    Ok(Json(clusters(&api)?.get(&name(&text)?).await?))
}

/// `DELETE /v1/clusters/{name}`
pub(super) async fn delete(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Json<Done>, ApiError> {
    let (clusters, name) = (clusters(&api)?.clone(), name(&text)?);
    let deleted = tokio::spawn(async move { clusters.delete(&name).await }).await;
    deleted.map_err(|_| ApiError::NotStarted)??;
    Ok(Json(Done { ok: true }))
}

/// `POST /v1/clusters/{name}/keys`
pub(super) async fn rotate(
    State(api): State<Api>,
    Path(text): Path<String>,
    Body(wanted): Body<RotateKeys>,
) -> Result<Json<RotatedKeys>, ApiError> {
    // A client that hangs up does not leave half of it.
    let (clusters, name) = (clusters(&api)?.clone(), name(&text)?);
    let rotated = tokio::spawn(async move { clusters.rotate(&name, &wanted).await }).await;
    Ok(Json(rotated.map_err(|_| ApiError::NotStarted)??))
}

/// `GET /v1/clusters/{name}/kubeconfig`
pub(super) async fn kubeconfig(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let text = clusters(&api)?.kubeconfig(&name(&text)?).await?;
    Ok(([(CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// `GET /v1/clusters/{name}/backup`
pub(super) async fn back_up(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let file = clusters(&api)?.back_up(&name(&text)?).await?;
    let pieces = tokio_util::io::ReaderStream::new(tokio::fs::File::from_std(file));
    Ok(([(CONTENT_TYPE, TAR)], AnswerBody::from_stream(pieces)).into_response())
}
