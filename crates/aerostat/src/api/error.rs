//! Everything that the API answers with when it does not do what it was asked, and the only place
//! where status codes are made.
//!
//! The text is for people and is that of Fly where its clients match on it; `status` is for
//! programs and stable; `details` says where there was no room, whether to try again and what to
//! try next.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use image::{ImageError, ImportError, PullError, StoreError};
use serde::Serialize;
use types::api::{ErrorBody, ErrorDetails};
use types::machine::{MachineState, Placement};
use types::{HostId, MachineId};
use vmm::VmmError;

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
            Self::AppNotFound { .. } => app_not_found(),
            Self::AppNotEmpty { .. } => verdict(StatusCode::CONFLICT, "app_not_empty")
                .hint("destroy its machines first, or use force"),
            Self::AppHasVolumes { .. } => verdict(StatusCode::CONFLICT, "app_not_empty")
                .hint("delete its volumes first, or use force, which deletes what they hold"),
            Self::Directory(error) => directory(error),
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
            Self::ImageStore(StoreError::Io { .. } | StoreError::Record { .. }) => internal(),
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

fn unauthorized() -> Verdict {
    verdict(StatusCode::UNAUTHORIZED, "unauthorized")
}

fn token_denied(denied: &Denied) -> Verdict {
    match denied {
        Denied::Expired { .. } => unauthorized()
            .hint("make another one with `aerostat token create`, or ask whoever made this one"),
        Denied::Missing { check, .. } => verdict(StatusCode::FORBIDDEN, "forbidden").hint(format!(
            "the token says `{check}`; another one is needed for this"
        )),
        Denied::Unusable { .. } => verdict(StatusCode::FORBIDDEN, "forbidden")
            .hint("restrict a token with `aerostat token attenuate`"),
    }
}

fn of_secrets(error: &secrets::Error) -> Verdict {
    match error {
        secrets::Error::Invalid(_) => verdict(StatusCode::BAD_REQUEST, "invalid_argument"),
        secrets::Error::Late { .. } => {
            verdict(StatusCode::REQUEST_TIMEOUT, "deadline_exceeded").retryable()
        }
        secrets::Error::Directory(error) => directory(error),
        secrets::Error::Unreachable { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "directory_unreachable").retryable()
        }
        secrets::Error::Key(_) => verdict(StatusCode::CONFLICT, "failed_precondition"),
        secrets::Error::Open(_) | secrets::Error::Refused { .. } => internal(),
        secrets::Error::Elsewhere => verdict(StatusCode::FORBIDDEN, "forbidden"),
    }
}

fn internal() -> Verdict {
    verdict(StatusCode::INTERNAL_SERVER_ERROR, "internal")
}

fn shutting_down() -> Verdict {
    verdict(StatusCode::SERVICE_UNAVAILABLE, "shutting_down").retryable()
}

fn directory(error: &directory::Error) -> Verdict {
    match error {
        directory::Error::Refused(refused) => directory_refused(refused),
        directory::Error::Write { .. } => internal(),
        directory::Error::Unreachable { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "directory_unreachable")
                .retryable()
                .hint("try again when its host is back")
        }
        directory::Error::Failed { .. } => verdict(StatusCode::BAD_GATEWAY, "directory_failed"),
        directory::Error::Busy { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "busy").retryable()
        }
    }
}

fn directory_refused(refused: &directory::Refused) -> Verdict {
    use directory::Refused;
    match refused {
        Refused::AppNameTaken { .. } => verdict(StatusCode::UNPROCESSABLE_ENTITY, "name_taken"),
        Refused::AppNotFound { .. } => app_not_found(),
        Refused::OrgNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("the organisation that is always there is `personal`"),
        Refused::NetworkName { .. } => verdict(StatusCode::BAD_REQUEST, "invalid_argument")
            .hint("use up to 63 letters, digits, dashes, dots and underscores"),
        Refused::NetworkNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("a network is made with its first app: `aerostat app create --network`"),
        Refused::ServiceNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat service list` shows the services that there are"),
        Refused::HostNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat host list` shows the hosts that there are"),
        Refused::PeerNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat wireguard list` shows the peers that there are"),
        Refused::TokenNotFound => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::PublicKey | Refused::HostNumber { .. } => {
            verdict(StatusCode::BAD_REQUEST, "invalid_argument")
        }
        Refused::PeerNameTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists")
            .hint("choose another name, or delete that peer first"),
        Refused::PublicKeyTaken => verdict(StatusCode::CONFLICT, "already_exists")
            .hint("each peer needs a key of its own: `wg genkey | wg pubkey`"),
        Refused::HostTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists"),
        Refused::TokenUsed | Refused::TokenExpired { .. } => {
            verdict(StatusCode::CONFLICT, "failed_precondition")
        }
        Refused::NoGateway { .. } => verdict(StatusCode::CONFLICT, "failed_precondition")
            .hint("name a host that has a gateway; `aerostat host list` shows them"),
        Refused::VipsExhausted { .. } | Refused::PeersExhausted { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
        }
        Refused::TooManyTokens { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("use some of them, or wait until they expire")
        }
        Refused::ApiTokenNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat token list` shows the tokens that there are"),
        Refused::SecretNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat secret list` shows the secrets that there are"),
        Refused::TooManyApiTokens { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("wait until some have expired")
        }
        Refused::TooManySecrets { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("at most 300 secrets, of about 190 KiB together")
        }
        Refused::NetworksExhausted | Refused::HostNumbersExhausted => internal(),
        Refused::AuthorityOnly | Refused::NotYours { .. } => {
            verdict(StatusCode::FORBIDDEN, "forbidden")
        }
    }
}

fn app_not_found() -> Verdict {
    verdict(StatusCode::NOT_FOUND, "not_found")
        .hint("`aerostat app list` shows the apps that there are")
}

fn no_bid(refusal: &NoBid, code: StatusCode) -> Verdict {
    let code = match refusal {
        NoBid::InsufficientMemory { .. }
        | NoBid::InsufficientCpus { .. }
        | NoBid::InsufficientDisk { .. }
        | NoBid::ClassNotOffered { .. }
        | NoBid::ConfigRefused { .. }
        | NoBid::RegionUnknown { .. }
        | NoBid::NoHost { .. } => code,
        NoBid::Late | NoBid::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        NoBid::VolumePlacement { .. } => StatusCode::PRECONDITION_FAILED,
        NoBid::VolumesApart { .. } => StatusCode::BAD_REQUEST,
        NoBid::Volume(refused) => {
            let mut verdict = volume(refused);
            // 404 would say that the app is not there.
            if verdict.code == StatusCode::NOT_FOUND {
                verdict.code = StatusCode::BAD_REQUEST;
            }
            return verdict;
        }
    };
    let details = ErrorDetails {
        scope: refusal.scope().as_str().into(),
        retryable: refusal.retryable(),
        hint: refusal.hint(),
        bids: Vec::new(),
    };
    Verdict {
        code,
        status: refusal.code(),
        details,
    }
}

fn worker(refused: &Refused) -> Verdict {
    match refused {
        Refused::Invalid(_) => verdict(StatusCode::BAD_REQUEST, "invalid_argument"),
        // Fly answers 409 when the host of an existing machine has no room.
        Refused::NoBid(refusal) => no_bid(refusal, StatusCode::CONFLICT),
        Refused::NotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::NameTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists"),
        Refused::IdTaken { .. } => verdict(StatusCode::CONFLICT, "id_taken").retryable(),
        Refused::WrongState { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        Refused::VersionMismatch { .. } => {
            verdict(StatusCode::PRECONDITION_FAILED, "version_mismatch")
                .hint("read the machine again and send its version as current_version")
        }
        Refused::StaleVersion { .. } => {
            verdict(StatusCode::PRECONDITION_FAILED, "version_mismatch")
                .hint("read the machine again and send its version as machine_version")
        }
        Refused::NotBuilt { .. } => verdict(StatusCode::NOT_IMPLEMENTED, "not_built"),
        Refused::LeaseHeld { .. } => verdict(StatusCode::CONFLICT, "error")
            .retryable()
            .hint("try again when the lease is over, or use the nonce of its holder"),
        Refused::LeaseNotFound => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::ReservationExpired => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "reservation_expired").retryable()
        }
        Refused::Exhausted { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("destroy machines that are no longer needed")
        }
        Refused::NoContainer { .. } => verdict(StatusCode::BAD_REQUEST, "no_container"),
        Refused::Busy => verdict(StatusCode::SERVICE_UNAVAILABLE, "busy").retryable(),
        Refused::ShuttingDown => shutting_down(),
        Refused::Volume(refused) => volume(refused),
        Refused::Vmm { source, .. } => body(source),
        Refused::Ledger { .. } => internal(),
    }
}

fn volume(refused: &VolumeRefused) -> Verdict {
    let code = match refused {
        VolumeRefused::NotFound { .. } | VolumeRefused::NoSnapshot { .. } => StatusCode::NOT_FOUND,
        // Fly's answer where there is no room for a volume is 400.
        VolumeRefused::Foreign { .. }
        | VolumeRefused::Invalid { .. }
        | VolumeRefused::NoCapacity { .. } => StatusCode::BAD_REQUEST,
        VolumeRefused::Attached { .. }
        | VolumeRefused::WrongState { .. }
        | VolumeRefused::Copying { .. } => StatusCode::CONFLICT,
        VolumeRefused::Running { .. } | VolumeRefused::InUse { .. } => {
            StatusCode::PRECONDITION_FAILED
        }
        VolumeRefused::DiskFull | VolumeRefused::TooMany { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        VolumeRefused::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        VolumeRefused::ShuttingDown => return shutting_down(),
    };
    let mut verdict = verdict(code, refused.code()).hint(refused.hint());
    verdict.details.retryable = refused.retryable();
    verdict.details.scope = Scope::Volume.as_str().into();
    verdict
}

fn body(error: &VmmError) -> Verdict {
    match error {
        VmmError::Gone { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        VmmError::NoContainer { .. } | VmmError::WhichContainer { .. } => {
            verdict(StatusCode::BAD_REQUEST, "no_container")
        }
        VmmError::NotOffered { .. } => verdict(StatusCode::CONFLICT, "isolation_not_offered"),
        VmmError::CannotSuspend { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        VmmError::NotBuilt { .. } => verdict(StatusCode::NOT_IMPLEMENTED, "not_built"),
        VmmError::Refused { .. } => verdict(StatusCode::BAD_REQUEST, "refused"),
        VmmError::GuestMissing { .. }
        | VmmError::Spec { .. }
        | VmmError::File { .. }
        | VmmError::Spawn { .. }
        | VmmError::ShimFailed { .. }
        | VmmError::Channel { .. }
        | VmmError::Left { .. } => internal(),
    }
}

fn pull(error: &PullError) -> Verdict {
    match error {
        PullError::NotImported { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found")
            .hint("`aerostat image import` takes OCI layouts and `docker save` archives"),
        PullError::NotFound { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found"),
        PullError::Unauthorized { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_unauthorized")
        }
        PullError::Credentials(_) => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_credentials")
        }
        PullError::Unreachable { .. } => {
            verdict(StatusCode::BAD_GATEWAY, "registry_unreachable").retryable()
        }
        PullError::Registry { .. } => {
            verdict(StatusCode::BAD_GATEWAY, "registry_failed").retryable()
        }
        PullError::Image(error) => image(error),
    }
}

fn import(error: &ImportError) -> Verdict {
    match error {
        ImportError::NoLayout { .. }
        | ImportError::NoSuchImage { .. }
        | ImportError::Several { .. }
        | ImportError::Nameless { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "image_not_found")
        }
        ImportError::Image(error) => image(error),
    }
}

fn image(error: &ImageError) -> Verdict {
    match error {
        ImageError::Refused(_)
        | ImageError::DigestMismatch { .. }
        | ImageError::SizeMismatch { .. }
        | ImageError::TooLarge { .. }
        | ImageError::Malformed { .. }
        | ImageError::Unsupported { .. }
        | ImageError::Platform { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "image_unusable")
        }
        ImageError::Io { .. } => internal(),
        ImageError::Store(StoreError::Io { .. } | StoreError::Record { .. }) => internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: ApiError) -> (u16, String) {
        let (code, body) = error.body();
        (code.as_u16(), serde_json::to_string(&body).unwrap())
    }

    #[test]
    fn a_directory_that_is_away_is_told_with_what_goes_on() {
        let source = Unreachable {
            host: HostId::new(2),
            source: std::io::ErrorKind::TimedOut.into(),
        };
        let source = std::sync::Arc::new(source);
        let host = "alpha".to_owned();
        let (code, body) = told(directory::Error::Unreachable { host, source }.into());
        assert_eq!(code, 503);
        assert!(body.contains("the directory's host alpha cannot be reached; machines go on"));
        assert!(body.contains(r#""status":"directory_unreachable""#));
        assert!(body.contains(r#""retryable":true"#));
    }

    #[test]
    fn a_full_host_is_told_with_scope_and_what_to_try() {
        let refusal = NoBid::InsufficientMemory {
            asked_mb: 512,
            free_mb: 64,
        };
        let (code, body) = told(ApiError::nowhere(refusal.clone()));
        assert_eq!(code, 422);
        assert_eq!(
            body,
            r#"{"error":"could not reserve resource for machine: insufficient memory available to fulfill request (512 MB asked, 64 MB free)","status":"insufficient_capacity","details":{"scope":"host","retryable":true,"hint":"ask for at most 64 MB of memory, or stop a machine"}}"#
        );
        assert_eq!(told(Refused::from(refusal).into()).0, 409);
    }

    #[test]
    fn texts_that_fly_s_clients_match_on_are_there() {
        let name = "web".parse().unwrap();
        let taken = ApiError::from(directory::Error::from(directory::Refused::AppNameTaken {
            name,
        }));
        let (code, body) = told(taken);
        assert_eq!(code, 422);
        assert!(body.contains(r#""error":"Name has already been taken","status":"name_taken""#));
        let wanted = "started".to_owned();
        let state = "stopped".to_owned();
        let (_, body) = told(ApiError::WaitElsewhere { wanted, state });
        assert!(body.contains("machine failed to reach desired state, started, currently stopped"));
        assert!(
            told(ApiError::MachineNotFound)
                .1
                .contains("machine not found")
        );
        assert!(
            told(Refused::LeaseNotFound.into())
                .1
                .contains("lease not found")
        );
        let (_, body) = told(ApiError::AppNotFound { name: "x".into() });
        assert!(body.contains("Could not find App"));
    }

    #[test]
    fn a_cause_is_told_once() {
        let id: MachineId = "0123456789abcd".parse().unwrap();
        let source = VmmError::Channel {
            machine: id.clone(),
            source: std::io::ErrorKind::ConnectionReset.into(),
        };
        let (code, body) = told(Refused::Vmm { id, source }.into());
        assert_eq!(code, 500);
        assert!(body.contains(
            "cannot reach into machine 0123456789abcd: cannot talk to the shim of machine \
             0123456789abcd: connection reset"
        ));
    }
}
