//! Hosts of the fleet, and invitations to it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use types::fleet::{CreateJoinToken, HostList, HostSummary, JoinToken};

use super::error::ApiError;
use super::extract::Body;
use super::{Api, forward};
use crate::directory;
use crate::rpc::Caller;

/// The directory's host writes one row.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no invitation.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// What was asked for cannot be; for people.
    #[error("{reason}")]
    Refused { reason: String },
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

/// Makes invitations: the secret, its hash in the directory, and the text for people.
#[async_trait]
pub trait TokenIssuer: Debug + Send + Sync {
    async fn issue(
        &self,
        wanted: &CreateJoinToken,
        now: Timestamp,
    ) -> Result<JoinToken, IssueError>;
}

/// `GET /v1/hosts`
pub(super) async fn list(State(api): State<Api>) -> Json<HostList> {
    let hosts = api.deps.directory.hosts().into_iter();
    let hosts = hosts.map(|host| HostSummary {
        status: api.deps.catalog.host_status(host.id),
        host,
    });
    let hosts = hosts.collect();
    Json(HostList { hosts })
}

/// `POST /v1/hosts/tokens`; sent on to the directory's host.
pub(super) async fn create_token(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(issuer) = &api.deps.tokens else {
        let from_host = request.extensions().get::<Caller>().is_some();
        let Some(authority) = api.deps.directory.authority().filter(|_| !from_host) else {
            return Err(ApiError::NoTokensHere {
                authority: authority(&api),
            });
        };
        let (parts, body) = request.into_parts();
        let sent = forward::send(&api, authority, parts, body, FORWARD_LIMIT).await;
        return Ok(sent?);
    };
    let Body(wanted) = Body::<CreateJoinToken>::from_request(request, &api).await?;
    let issued = issuer.issue(&wanted, Timestamp::now()).await;
    let token = issued.map_err(|error| match error {
        IssueError::Refused { reason } => ApiError::bad(reason),
        IssueError::Directory(error) => error.into(),
    })?;
    tracing::info!(expires_at = %token.expires_at, "join token created");
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

/// What people call the directory's host.
fn authority(api: &Api) -> String {
    let directory = &api.deps.directory;
    let id = directory.authority().unwrap_or(api.host);
    directory
        .host(id)
        .map_or_else(|| id.to_string(), |host| host.name)
}
