//! Hosts of the fleet, and invitations to it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use types::HostId;
use types::fleet::{CreateJoinToken, HostList, HostStatus, HostSummary, JoinToken};

use super::error::ApiError;
use super::extract::{Body, Query};
use super::{Api, forward};
use crate::directory::{self, Refused};
use crate::rpc::Caller;

/// The directory's host writes some rows.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);
/// Until the copy here no longer has a host that the directory's host has removed.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

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

/// `DELETE /v1/hosts/{number}?force=`; sent on to the directory's host.
pub(super) async fn remove(
    State(api): State<Api>,
    Path(number): Path<String>,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let number: u16 = number
        .parse()
        .map_err(|_| ApiError::bad("the number of a host is 2 to 65535".into()))?;
    let id = HostId::new(number);
    let force = query.flag("force")?;
    let directory = &api.deps.directory;
    if let Some(authority) = directory.authority() {
        if request.extensions().get::<Caller>().is_some() {
            return Err(directory::Error::from(Refused::AuthorityOnly).into());
        }
        let (parts, body) = request.into_parts();
        let sent = forward::send(&api, authority, parts, body, FORWARD_LIMIT).await?;
        if sent.status().is_success() {
            let mut hosts = directory.hosts_changed();
            let gone = hosts.wait_for(|hosts| hosts.iter().all(|host| host.id != id));
            // A copy that is late is told later.
            let _ = tokio::time::timeout(CATCH_UP_MAX, gone).await;
        }
        return Ok(sent);
    }
    let missing = || directory::Error::from(Refused::HostNotFound { id });
    let name = directory.host(id).ok_or_else(missing)?.name;
    if id == api.deps.rpc.host() {
        return Err(ApiError::HostIsAuthority { name });
    }
    if !force && api.deps.catalog.host_status(id) == HostStatus::Ok {
        return Err(ApiError::HostIsUp { name });
    }
    directory.remove_host(id).await?;
    tracing::info!(host = %id, name, "host removed from the fleet");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What people call the directory's host.
fn authority(api: &Api) -> String {
    let directory = &api.deps.directory;
    let id = directory.authority().unwrap_or(api.deps.rpc.host());
    directory
        .host(id)
        .map_or_else(|| id.to_string(), |host| host.name)
}
