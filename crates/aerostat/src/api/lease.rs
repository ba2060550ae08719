//! `…/machines/{id}/lease`: who may change a machine for a while.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use types::api::{AcquireLease, LEASE_NONCE_HEADER, Lease as Shown, LeaseAnswer, Ok as Done};

use super::error::ApiError;
use super::extract::{Body, Query, Target};
use super::{Api, State as Shared};
use crate::directory;
use crate::worker::{self, LEASE_TTL_MAX, Lease, LeaseRequest, Nonce, Permit, Refused};

/// Long enough for one change and its wait. Fly's clients always say.
const TTL_S_DEFAULT: u64 = 30;
/// A longer description is no description.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// The worker, asked by whoever shows the nonce of the request.
pub(super) struct Asked(pub(super) worker::Handle);

impl FromRequestParts<Api> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let permit = match nonce(parts)? {
            Some(nonce) => Permit::Holder(nonce),
            None => Permit::None,
        };
        Ok(Self(api.deps.worker.permitted(permit)))
    }
}

/// The nonce of a request that must have one.
pub(super) struct Holder(Nonce);

impl FromRequestParts<Api> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        let missing = || ApiError::bad(format!("header {LEASE_NONCE_HEADER} is missing"));
        nonce(parts)?.map(Self).ok_or_else(missing)
    }
}

fn nonce(parts: &Parts) -> Result<Option<Nonce>, ApiError> {
    let Some(value) = parts.headers.get(LEASE_NONCE_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map(str::trim);
    let text = text.map_err(|_| ApiError::bad(format!("{LEASE_NONCE_HEADER} must be text")))?;
    Ok((!text.is_empty()).then(|| Nonce::given(text)))
}

/// `POST …/lease?ttl=`: takes the lease, or with its nonce makes it last longer.
pub(super) async fn acquire(
    State(api): State<Api>,
    target: Target,
    query: Query,
    Asked(worker): Asked,
    Body(body): Body<AcquireLease>,
) -> Result<impl IntoResponse, ApiError> {
    let ttl_s = query.parse("ttl", "a number of seconds")?.or(body.ttl);
    let app = api.deps.directory.app(&target.entry.app).await?;
    let request = request(&app, ttl_s.unwrap_or(TTL_S_DEFAULT), body.description)?;
    let lease = worker.acquire_lease(&target.id, request).await?;
    Ok((StatusCode::CREATED, show(&api, &target, lease)?))
}

/// A lease for `ttl_s` seconds. There are no users yet, so that an app's organisation is who owns
/// its leases.
pub(super) fn request(
    app: &directory::App,
    ttl_s: u64,
    description: String,
) -> Result<LeaseRequest, ApiError> {
    let ttl_s_max = LEASE_TTL_MAX.as_secs();
    if !(1..=ttl_s_max).contains(&ttl_s) {
        return Err(ApiError::bad(format!(
            "the ttl of a lease must be 1 to {ttl_s_max} seconds"
        )));
    }
    if description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::bad(format!(
            "the description of a lease must have at most {DESCRIPTION_BYTES_MAX} bytes"
        )));
    }
    Ok(LeaseRequest {
        owner: app.org.to_string(),
        description,
        ttl: Duration::from_secs(ttl_s),
    })
}

/// `GET …/lease`
pub(super) async fn get(
    State(api): State<Api>,
    target: Target,
) -> Result<impl IntoResponse, ApiError> {
    let lease = api.deps.worker.lease(&target.id).await?;
    show(&api, &target, lease.ok_or(Refused::LeaseNotFound)?)
}

/// `DELETE …/lease`
pub(super) async fn release(
    State(api): State<Api>,
    target: Target,
    Holder(nonce): Holder,
) -> Result<impl IntoResponse, ApiError> {
    let worker = api.deps.worker.permitted(Permit::Holder(nonce));
    worker.release_lease(&target.id).await?;
    Ok(success(Done { ok: true }))
}

fn show(api: &Shared, target: &Target, lease: Lease) -> Result<Json<LeaseAnswer<Shown>>, ApiError> {
    let machine = api.deps.worker.get(&target.id);
    let version = machine.ok_or(ApiError::MachineNotFound)?.version;
    Ok(success(Shown {
        nonce: lease.nonce.to_string(),
        expires_at: lease.expires_at.as_second(),
        owner: lease.owner,
        description: lease.description,
        version: version.to_string(),
    }))
}

fn success<T>(data: T) -> Json<LeaseAnswer<T>> {
    let status = "success".into();
    Json(LeaseAnswer { status, data })
}
