//! Hosts of the fleet, and invitations to it.

use std::fmt::Debug;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use types::fleet::{CreateJoinToken, HostList, HostSummary, JoinToken};

use super::Api;
use super::error::ApiError;
use super::extract::Body;
use crate::directory;

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

/// `POST /v1/hosts/tokens`
pub(super) async fn create_token(
    State(api): State<Api>,
    Body(wanted): Body<CreateJoinToken>,
) -> Result<(StatusCode, Json<JoinToken>), ApiError> {
    let Some(issuer) = &api.deps.tokens else {
        return Err(ApiError::NoTokensHere {
            authority: authority(&api),
        });
    };
    let issued = issuer.issue(&wanted, Timestamp::now()).await;
    let token = issued.map_err(|error| match error {
        IssueError::Refused { reason } => ApiError::bad(reason),
        IssueError::Directory(error) => error.into(),
    })?;
    tracing::info!(expires_at = %token.expires_at, "join token created");
    Ok((StatusCode::CREATED, Json(token)))
}

/// What people call the directory's host.
fn authority(api: &Api) -> String {
    let directory = &api.deps.directory;
    let id = directory.authority().unwrap_or(api.host);
    directory
        .host(id)
        .map_or_else(|| id.to_string(), |host| host.name)
}
