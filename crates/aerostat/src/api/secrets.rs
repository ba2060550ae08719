//! Secrets of apps: names and digests for whoever may read the app, values only for whoever shows
//! a token with the verb `secrets` (which `guard` asks for).
//!
//! The directory's host alone has the keys; what needs them is sent on to it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Deserialize;
use types::secret::{
    AppSecret, AppSecretList, DeletedSecret, RotatedKey, SetSecret, SetSecretAnswer, UpdateSecrets,
    UpdatedSecrets,
};

use super::error::ApiError;
use super::extract::{Body, Query};
use super::{Api, State as Shared, forward};
use crate::directory::{self, Refused, SealedSecrets};
use crate::secrets::{AppSecrets, Secret};

/// The directory's host may wait for a version that is on its way.
const FORWARD_LIMIT: Duration = Duration::from_secs(20);
/// Every secret of a fleet is sealed anew.
const ROTATE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
pub(super) struct Named {
    name: String,
}

/// The answer of the directory's host, if this is another.
async fn elsewhere(
    api: &Shared,
    request: Request,
    limit: Duration,
) -> Result<Result<Response, Request>, ApiError> {
    let Some(authority) = api.deps.directory.authority() else {
        return Ok(Err(request));
    };
    let (parts, body) = request.into_parts();
    Ok(Ok(forward::send(api, authority, parts, body, limit).await?))
}

/// Fly's clients say `version` where its document says `min_version`.
fn min_version(query: &Query) -> Result<Option<u64>, ApiError> {
    let named = query.parse("min_version", "a version")?;
    Ok(named.or(query.parse("version", "a version")?))
}

/// `GET /v1/apps/{app}/secrets?min_version=&show_secrets=`
pub(super) async fn list(
    State(api): State<Api>,
    app: directory::App,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let (row, values) = match read(&api, &app, &query, request).await? {
        Ok(read) => read,
        Err(answer) => return Ok(answer),
    };
    let version = row.version;
    let secrets = shown(&row, values.as_ref());
    Ok(Json(AppSecretList { secrets, version }).into_response())
}

/// `GET /v1/apps/{app}/secrets/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    app: directory::App,
    Path(Named { name }): Path<Named>,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let (row, values) = match read(&api, &app, &query, request).await? {
        Ok(read) => read,
        Err(answer) => return Ok(answer),
    };
    let all = shown(&row, values.as_ref());
    let found = all.into_iter().find(|secret| secret.name == name);
    Ok(Json(found.ok_or_else(|| missing(&app, &name))?).into_response())
}

type Read = (SealedSecrets, Option<AppSecrets>);

/// What there is, or the answer of the host that can show values.
async fn read(
    api: &Shared,
    app: &directory::App,
    query: &Query,
    request: Request,
) -> Result<Result<Read, Response>, ApiError> {
    let min_version = min_version(query)?;
    if !query.flag("show_secrets")? {
        let row = api.deps.secrets.sealed(&app.name, min_version).await?;
        return Ok(Ok((row, None)));
    }
    if let Ok(answer) = elsewhere(api, request, FORWARD_LIMIT).await? {
        return Ok(Err(answer));
    }
    let values = api.deps.secrets.values(&app.name, min_version).await?;
    let row = api.deps.secrets.sealed(&app.name, None).await?;
    tracing::info!(app = %app.name, "values of secrets shown");
    Ok(Ok((row, Some(values))))
}

/// `POST /v1/apps/{app}/secrets`: sets and removes several as one change.
pub(super) async fn update(
    State(api): State<Api>,
    app: directory::App,
    request: Request,
) -> Result<Response, ApiError> {
    let request = match elsewhere(&api, request, FORWARD_LIMIT).await? {
        Ok(answer) => return Ok(answer),
        Err(request) => request,
    };
    let Body(wanted) = Body::<UpdateSecrets>::from_request(request, &api).await?;
    let values = wanted.values.into_iter();
    let changes = values.map(|(name, value)| (name, value.map(Secret::new)));
    let row = change(&api, &app, changes.collect()).await?;
    Ok(Json(UpdatedSecrets {
        secrets: shown(&row, None),
        version: row.version,
        version_deprecated: row.version,
    })
    .into_response())
}

/// `POST /v1/apps/{app}/secrets/{name}`
pub(super) async fn set(
    State(api): State<Api>,
    app: directory::App,
    Path(Named { name }): Path<Named>,
    request: Request,
) -> Result<Response, ApiError> {
    let request = match elsewhere(&api, request, FORWARD_LIMIT).await? {
        Ok(answer) => return Ok(answer),
        Err(request) => request,
    };
    let Body(wanted) = Body::<SetSecret>::from_request(request, &api).await?;
    let changes = BTreeMap::from([(name.clone(), Some(Secret::new(wanted.value)))]);
    let row = change(&api, &app, changes).await?;
    let all = shown(&row, None).into_iter();
    let secret = all.into_iter().find(|secret| secret.name == name);
    let answer = SetSecretAnswer {
        secret: secret.ok_or_else(|| missing(&app, &name))?,
        version: row.version,
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// `DELETE /v1/apps/{app}/secrets/{name}`
pub(super) async fn delete(
    State(api): State<Api>,
    app: directory::App,
    Path(Named { name }): Path<Named>,
    request: Request,
) -> Result<Response, ApiError> {
    if let Ok(answer) = elsewhere(&api, request, FORWARD_LIMIT).await? {
        return Ok(answer);
    }
    let row = change(&api, &app, BTreeMap::from([(name, None)])).await?;
    let version = row.version;
    Ok(Json(DeletedSecret { version }).into_response())
}

async fn change(
    api: &Shared,
    app: &directory::App,
    changes: BTreeMap<String, Option<Secret>>,
) -> Result<SealedSecrets, ApiError> {
    let row = api.deps.secrets.set(app, changes, Timestamp::now()).await?;
    tracing::info!(app = %app.name, version = row.version, "secrets changed");
    Ok(row)
}

/// `POST /v1/secrets/rotate_key`
pub(super) async fn rotate_key(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    if let Ok(answer) = elsewhere(&api, request, ROTATE_LIMIT).await? {
        return Ok(answer);
    }
    let rotated = api.deps.secrets.rotate_key().await?;
    Ok(Json(RotatedKey {
        key: rotated.key,
        resealed: rotated.resealed as u64,
    })
    .into_response())
}

fn shown(row: &SealedSecrets, values: Option<&AppSecrets>) -> Vec<AppSecret> {
    let show = |(name, secret): (&String, &directory::SealedSecret)| AppSecret {
        name: name.clone(),
        value: values.and_then(|known| Some(known.values.get(name)?.expose().to_owned())),
        digest: secret.sealed.digest.clone(),
        created_at: secret.created_at,
        updated_at: secret.updated_at,
    };
    row.secrets.iter().map(show).collect()
}

fn missing(app: &directory::App, name: &str) -> ApiError {
    let (app, name) = (app.name.clone(), name.chars().take(80).collect());
    directory::Error::from(Refused::SecretNotFound { app, name }).into()
}
