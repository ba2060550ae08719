//! Everything that the API answers with when it does not do what it was asked, and the only place
//! where status codes are made.
//!
//! The text is for people and is that of Fly where its clients match on it; `status` is for
//! programs and stable; `details` says where there was no room, whether to try again and what to
//! try next. What roles refuse is told by the modules below this one, role by role.

mod access;
mod clusters;
mod fleet;
mod images;
mod machines;

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use image::{ImportError, PullError, StoreError};
use serde::Serialize;
use types::api::{ErrorBody, ErrorDetails};
use types::machine::{MachineState, Placement};
use types::{HostId, MachineId};

use access::{of_secrets, token_denied, unauthorized};
use clusters::of_cluster;
use fleet::of_directory;
use images::{import, pull, store};
use machines::{no_bid, worker};

use crate::clusters::ClusterError;
use crate::directory;
use crate::placement::NoPlace;
use crate::rpc::Unreachable;
use crate::secrets;
use crate::tokens::{Denied, TokenError};
use crate::worker::{Invalid, NoBid, Refused, Scope, VolumeRefused};

/// What Fly's clients look for when an app cannot have its name.
const NAME_TAKEN: &str = "Name has already been taken";

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("this request has no token")]
    NoToken,
    #[error(transparent)]
    BadToken(TokenError),
    #[error("the token has been revoked")]
    TokenRevoked,
    /// A host that has just joined, and whose copy of the directory is empty.
    #[error("this host does not know the fleet's key of tokens yet")]
    NoTokenKeyYet,
    #[error(transparent)]
    TokenDenied(Denied),
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    #[error("hosts ask each other for machines only")]
    NotForHosts,
    #[error("`{host}` is not a name of this API")]
    ForeignHost { host: String },
    #[error("web pages may not call this API")]
    ForeignOrigin,
    #[error("{reason}")]
    BadRequest { reason: String },
    #[error("the body is larger than {bytes_max} bytes")]
    BodyTooLarge { bytes_max: usize },
    #[error("there is nothing at {path}")]
    NoSuchPath { path: String },
    #[error("{method} is not possible at {path}")]
    NoSuchMethod { method: String, path: String },
    #[error("{feature} are not built yet")]
    NotBuilt { feature: &'static str },
    #[error("this is a WebSocket; the request must ask for an upgrade")]
    NotWebSocket,
    #[error("the request took longer than {} s", .limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("Could not find App \"{name}\"")]
    AppNotFound { name: String },
    #[error("app `{name}` has {machines} machines")]
    AppNotEmpty { name: String, machines: usize },
    #[error("{}", directory_text(.0))]
    Directory(#[source] directory::Error),
    #[error("only host {authority} can invite hosts into this fleet")]
    NoTokensHere { authority: String },
    #[error("host {name} has the directory of this fleet, which cannot be without it")]
    HostIsAuthority { name: String },
    #[error("host {name} is up")]
    HostIsUp { name: String },
    #[error("app `{name}` has {volumes} volumes")]
    AppHasVolumes { name: String, volumes: u64 },
    #[error("machine not found")]
    MachineNotFound,
    #[error("invalid machine configuration: {0}")]
    Invalid(#[from] Invalid),
    /// No worker would have a new machine.
    #[error("{}", .0.refusal)]
    NoPlace(Box<NoPlace>),
    #[error("this Idempotency-Key came with another body before")]
    IdempotencyKeyReused,
    #[error("the machine has no metadata `{key}`")]
    NoSuchKey { key: String },
    #[error("the files were not copied: {reason}")]
    CopyFailed { reason: String },
    /// The machine's own worker refused.
    #[error(transparent)]
    Refused(Box<Refused>),
    #[error("deadline_exceeded: the machine is {state} and did not become {wanted} in time")]
    WaitTimeout { wanted: String, state: MachineState },
    #[error("machine failed to reach desired state, {wanted}, currently {state}")]
    WaitElsewhere { wanted: String, state: String },
    #[error("changes after revision {from} are no longer known")]
    Gone { from: u64 },
    #[error("the command did not end within {} s", .limit.as_secs())]
    ExecTimeout { limit: Duration },
    #[error("the command was not run: {reason}")]
    ExecFailed { reason: String },
    #[error("the command wrote more than {bytes_max} bytes")]
    ExecOutput { bytes_max: usize },
    #[error("this host has no mesh")]
    NoMesh,
    #[error("there is no image `{reference}` on this host")]
    ImageNotFound { reference: String },
    // The large ones are boxed: every refusal of this type would be as large as the largest.
    #[error(transparent)]
    Pull(Box<PullError>),
    #[error(transparent)]
    Import(Box<ImportError>),
    #[error(transparent)]
    ImageStore(#[from] StoreError),
    /// The owner of the machine. What was asked may have happened all the same.
    #[error(transparent)]
    HostUnreachable(#[from] Unreachable),
    #[error("host {host} did not destroy machine {id}: {reason}")]
    NotDestroyed {
        id: MachineId,
        host: HostId,
        reason: String,
    },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("this host is not all up yet")]
    NotStarted,
    #[error("the API is shutting down")]
    ShuttingDown,
}

impl From<directory::Error> for ApiError {
    fn from(error: directory::Error) -> Self {
        match error {
            directory::Error::Refused(directory::Refused::AppNotFound { name }) => {
                let name = name.to_string();
                Self::AppNotFound { name }
            }
            other => Self::Directory(other),
        }
    }
}

impl From<NoPlace> for ApiError {
    fn from(refused: NoPlace) -> Self {
        Self::NoPlace(Box::new(refused))
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

impl From<VolumeRefused> for ApiError {
    fn from(refused: VolumeRefused) -> Self {
        Refused::from(refused).into()
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        Self::Pull(Box::new(error))
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}

/// Fly's clients look for this text.
fn directory_text(error: &directory::Error) -> String {
    match error {
        directory::Error::Refused(directory::Refused::AppNameTaken { .. }) => NAME_TAKEN.into(),
        other => other.to_string(),
    }
}

/// Status code, stable word, and the rest.
struct Verdict {
    code: StatusCode,
    status: &'static str,
    details: ErrorDetails,
}

fn verdict(code: StatusCode, status: &'static str) -> Verdict {
    Verdict {
        code,
        status,
        details: ErrorDetails::default(),
    }
}

impl Verdict {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.details.hint = hint.into();
        self
    }

    fn retryable(mut self) -> Self {
        self.details.retryable = true;
        self
    }
}

impl ApiError {
    pub(super) fn bad(reason: String) -> Self {
        Self::BadRequest { reason }
    }

    /// No worker was asked: there is none that could have a machine.
    pub(super) fn nowhere(refusal: NoBid) -> Self {
        let placement = Placement::default();
        Self::from(NoPlace { refusal, placement })
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::NoToken | Self::BadToken(_) => unauthorized()
                .hint("`aerostat env` prints a token of this host; send it as `Bearer`"),
            Self::TokenRevoked => unauthorized().hint("ask for another one"),
            Self::NoTokenKeyYet => verdict(StatusCode::SERVICE_UNAVAILABLE, "no_token_key")
                .retryable()
                .hint("try again when its copy of the directory is there"),
            Self::TokenDenied(denied) => token_denied(denied),
            Self::Secrets(error) => of_secrets(error),
            Self::NotForHosts => verdict(StatusCode::FORBIDDEN, "forbidden"),
            Self::ForeignHost { .. } => verdict(StatusCode::FORBIDDEN, "foreign_host")
                .hint("call it at 127.0.0.1 or over its Unix socket"),
            Self::ForeignOrigin => verdict(StatusCode::FORBIDDEN, "foreign_origin"),
            Self::BadRequest { .. } | Self::Invalid(_) => {
                verdict(StatusCode::BAD_REQUEST, "invalid_argument")
            }
            Self::BodyTooLarge { .. } => verdict(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::NoSuchPath { .. } => verdict(StatusCode::NOT_FOUND, "no_such_path"),
            Self::NoSuchMethod { .. } => verdict(StatusCode::METHOD_NOT_ALLOWED, "no_such_method"),
            Self::NotBuilt { .. } => verdict(StatusCode::NOT_IMPLEMENTED, "not_built"),
            Self::NotWebSocket => verdict(StatusCode::UPGRADE_REQUIRED, "not_websocket"),
            Self::TooSlow { .. } => verdict(StatusCode::GATEWAY_TIMEOUT, "timeout").retryable(),
            Self::Cluster(error) => of_cluster(error),
            Self::NotStarted => verdict(StatusCode::SERVICE_UNAVAILABLE, "not_started").retryable(),
            Self::AppNotFound { .. } => app_not_found(),
            Self::AppNotEmpty { .. } => verdict(StatusCode::CONFLICT, "app_not_empty")
                .hint("destroy its machines first, or use force"),
            Self::AppHasVolumes { .. } => verdict(StatusCode::CONFLICT, "app_not_empty")
                .hint("delete its volumes first, or use force, which deletes what they hold"),
            Self::Directory(error) => of_directory(error),
            Self::NoTokensHere { .. } => verdict(StatusCode::CONFLICT, "failed_precondition")
                .hint("run `aerostat host token create` there"),
            Self::HostIsAuthority { .. } => verdict(StatusCode::CONFLICT, "failed_precondition")
                .hint("`aerostat down --purge` on each host ends a fleet"),
            Self::HostIsUp { .. } => verdict(StatusCode::CONFLICT, "failed_precondition").hint(
                "take it down there first (`aerostat down --purge`) and wait until others have \
                 noticed, or use force",
            ),
            Self::MachineNotFound => verdict(StatusCode::NOT_FOUND, "not_found")
                .hint("`aerostat machine list` shows the machines that there are"),
            Self::NoPlace(refused) => {
                let mut verdict = no_bid(&refused.refusal, StatusCode::UNPROCESSABLE_ENTITY);
                verdict.details.bids = refused.placement.bids.clone();
                verdict
            }
            Self::IdempotencyKeyReused => {
                verdict(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
                    .hint("use a new key for each creation")
            }
            Self::NoSuchKey { .. } => verdict(StatusCode::NOT_FOUND, "not_found"),
            Self::CopyFailed { .. } => verdict(StatusCode::BAD_REQUEST, "copy_failed"),
            Self::Refused(refused) => worker(refused),
            Self::WaitTimeout { .. } => {
                verdict(StatusCode::REQUEST_TIMEOUT, "deadline_exceeded").retryable()
            }
            Self::WaitElsewhere { .. } => {
                verdict(StatusCode::PRECONDITION_FAILED, "failed_precondition")
            }
            Self::Gone { .. } => verdict(StatusCode::GONE, "gone").hint("list again"),
            Self::ExecTimeout { .. } => verdict(StatusCode::REQUEST_TIMEOUT, "exec_timeout")
                .hint("give it more time, or use a streaming exec"),
            Self::ExecFailed { .. } => verdict(StatusCode::BAD_REQUEST, "exec_failed"),
            Self::ExecOutput { .. } => {
                verdict(StatusCode::UNPROCESSABLE_ENTITY, "too_large").hint("use a streaming exec")
            }
            Self::NoMesh => verdict(StatusCode::NOT_FOUND, "no_mesh"),
            Self::ImageNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
                .hint("`aerostat image list` shows the images that there are"),
            Self::Pull(error) => pull(error),
            Self::Import(error) => import(error),
            Self::ImageStore(error) => store(error),
            Self::HostUnreachable(_) => {
                // Not 502 or 503: Fly's clients repeat what is answered so, and this may have
                // happened.
                let mut verdict = verdict(StatusCode::GATEWAY_TIMEOUT, "host_unreachable");
                verdict.details.scope = Scope::Host.as_str().into();
                verdict.retryable().hint(
                    "its machines run on meanwhile; try again when it is back (`aerostat mesh \
                     status`)",
                )
            }
            Self::NotDestroyed { .. } => {
                verdict(StatusCode::SERVICE_UNAVAILABLE, "host_refused").retryable()
            }
            Self::ShuttingDown => shutting_down(),
        }
    }

    /// What the caller is told. Logs what a person must look after; `IntoResponse` uses it too.
    pub(super) fn body(&self) -> (StatusCode, ErrorBody) {
        let Verdict {
            code,
            status,
            details,
        } = self.verdict();
        let error = with_causes(self);
        if matches!(self, Self::HostUnreachable(_)) {
            tracing::warn!(status, error, "request failed");
        } else if code.is_server_error() && code != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(status, error, "request failed");
        }
        (
            code,
            ErrorBody {
                error,
                status: status.into(),
                details,
            },
        )
    }

    fn is_lease_held(&self) -> bool {
        matches!(self, Self::Refused(refused) if matches!(**refused, Refused::LeaseHeld { .. }))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, body) = self.body();
        if self.is_lease_held() {
            let message = body.error.clone();
            let held = LeaseHeld {
                body,
                message,
                code: "invalid",
            };
            return (code, Json(held)).into_response();
        }
        (code, Json(body)).into_response()
    }
}

/// Fly's form of this one refusal: `status` is `error`, and the text is there once more.
#[derive(Serialize)]
struct LeaseHeld {
    #[serde(flatten)]
    body: ErrorBody,
    message: String,
    code: &'static str,
}

/// The message and its causes. Whoever may call this API runs this host, and a cause such as a
/// full disk is what has to be looked after.
fn with_causes(error: &ApiError) -> String {
    // Fly's clients match on this text, so nothing is added to it.
    match error.to_string() {
        text if text == NAME_TAKEN => text,
        _ => types::chain(error),
    }
}

fn internal() -> Verdict {
    verdict(StatusCode::INTERNAL_SERVER_ERROR, "internal")
}

fn shutting_down() -> Verdict {
    verdict(StatusCode::SERVICE_UNAVAILABLE, "shutting_down").retryable()
}

fn app_not_found() -> Verdict {
    verdict(StatusCode::NOT_FOUND, "not_found")
        .hint("`aerostat app list` shows the apps that there are")
}

#[cfg(test)]
mod tests;
