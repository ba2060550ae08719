//! `POST …/volumes`: once for each key, on this host or on the one that it is placed on.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use types::volume::{CreateVolume, Volume};
use types::{AppName, HostId};

use super::{LIST_DEADLINE, gather};
use crate::api::create::turn;
use crate::api::error::ApiError;
use crate::api::extract::Body;
use crate::api::idempotency::{CreationKey, Key};
use crate::api::{Api, State as Shared, forward, members};
use crate::directory;
use crate::placement::{self, bidders, regions};
use crate::rpc::Caller;
use crate::worker::{
    self, NewVolume, NoBid, VolumeBidRequest, VolumeOwner, VolumeQuery, VolumeRefused,
};

/// Hosts that are asked one after the other when room has gone in between.
const ATTEMPTS_MAX: usize = 3;

/// `POST …/volumes`: on this host, or on the one that it is placed on.
pub(in crate::api) async fn create(
    State(api): State<Api>,
    app: directory::App,
    caller: Option<Extension<Caller>>,
    key: Key,
    Body(mut body): Body<CreateVolume>,
) -> Result<Response, ApiError> {
    let told = body.other.remove(CREATION_KEY);
    let key = match (&caller, told) {
        // The host that was asked first has read the header.
        (Some(_), told) => told.and_then(|told| Some(CreationKey(told.as_str()?.to_owned()))),
        (None, _) => key.with(&body),
    };
    members::check_other(&body.other, &HINTS)?;
    worker::check_volume(&body)?;
    let _no_deletion = api.app_deletion.read().await;
    // Again, now that no deletion can come in between (on this host; see `apps::delete`).
    let app = api.deps.directory.app(&app.name).await?;
    let _one_at_a_time = turn(&api, &app.name, key.as_ref()).await;
    if let Some(volume) = repeated(&api, &app.name, key.as_ref(), caller.is_none()).await? {
        return Ok(Json(volume).into_response());
    }
    let body = NewBody { body, key };
    if caller.is_some() {
        return here(&api, &app, body).await;
    }
    place(&api, &app, body).await
}

/// Where Fly's clients would like a new volume to be: beside machines of such a size or image, and
/// apart from others. Any host with room will do here.
const HINTS: [&str; 4] = [
    "compute",
    "compute_image",
    "machines_only",
    "unique_zone_app_wide",
];

/// A body, and the digests of the key that it came with.
#[derive(Clone)]
struct NewBody {
    body: CreateVolume,
    key: Option<CreationKey>,
}

/// The member of a forwarded body that has them. From others than hosts it says nothing.
const CREATION_KEY: &str = "aerostat_creation_key";

/// The volume that an earlier request with this key created; `everywhere`: on whatever host.
async fn repeated(
    api: &Shared,
    app: &AppName,
    key: Option<&CreationKey>,
    everywhere: bool,
) -> Result<Option<Volume>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let query = VolumeQuery {
        of: VolumeOwner::App(app.clone()),
        summary: false,
        destroyed: true,
    };
    let known = match everywhere {
        true => gather(api, query, LIST_DEADLINE).await?.0,
        false => api.deps.worker.volumes().list(query).await?,
    };
    for shown in known {
        if key.has_created(shown.volume.creation_key.as_deref())? {
            return Ok(Some(shown.volume));
        }
    }
    Ok(None)
}

/// Finds a place, and creates the volume there.
async fn place(api: &Shared, app: &directory::App, new: NewBody) -> Result<Response, ApiError> {
    let body = &new.body;
    let snapshot = body.snapshot_id.as_ref().map(|id| id.host());
    let source = body.source_volume_id.as_ref().map(|id| id.host());
    if let Some(host) = snapshot.or(source) {
        return at(api, app, new, host).await;
    }
    let deps = &api.deps;
    let others = deps.hosts.others(deps.rpc.host());
    let regions = regions(&deps.worker, &others, &body.region).map_err(ApiError::nowhere)?;
    let bidders = bidders(&deps.worker, &others, &deps.rpc, &regions);
    // Namesakes that are placed at once would all go to the same host.
    let _one_after_the_other = match bidders.len() {
        0 | 1 => None,
        _ => {
            let key = (app.name.clone(), format!("volume {}", body.name));
            Some(api.replicas.lock(key).await)
        }
    };
    let wanted = VolumeBidRequest {
        app: app.name.clone(),
        name: body.name.clone(),
        size_gb: body.size_gb.unwrap_or(1),
    };
    let hosts = placement::place_volume(&bidders, &wanted).await;
    let hosts = hosts.map_err(|refusal| no_place(refusal, wanted.size_gb))?;
    let mut refused = None;
    for host in hosts.into_iter().take(ATTEMPTS_MAX) {
        match at(api, app, new.clone(), host).await {
            Err(ApiError::Refused(full))
                if matches!(
                    *full,
                    worker::Refused::Volume(VolumeRefused::NoCapacity { .. })
                ) =>
            {
                refused = Some(ApiError::Refused(full));
            }
            answer => return answer,
        }
    }
    Err(refused.unwrap_or(ApiError::ShuttingDown))
}

/// Fly's words for a place that is full.
fn no_place(refusal: NoBid, asked_gb: u64) -> ApiError {
    fn free_mb(refusal: &NoBid) -> Option<u64> {
        match refusal {
            NoBid::InsufficientDisk { free_mb, .. } => Some(*free_mb),
            NoBid::NoHost { lacks, .. } => {
                lacks.iter().filter_map(|lack| free_mb(&lack.refusal)).max()
            }
            NoBid::InsufficientMemory { .. }
            | NoBid::InsufficientCpus { .. }
            | NoBid::ClassNotOffered { .. }
            | NoBid::ConfigRefused { .. }
            | NoBid::RegionUnknown { .. }
            | NoBid::Volume(_)
            | NoBid::VolumePlacement { .. }
            | NoBid::VolumesApart { .. }
            | NoBid::Late
            | NoBid::Unreachable { .. } => None,
        }
    }
    match free_mb(&refusal) {
        Some(free_mb) => {
            let free_gb = free_mb >> 10;
            VolumeRefused::NoCapacity { asked_gb, free_gb }.into()
        }
        None => ApiError::nowhere(refusal),
    }
}

async fn at(
    api: &Shared,
    app: &directory::App,
    new: NewBody,
    host: HostId,
) -> Result<Response, ApiError> {
    match host == api.deps.rpc.host() {
        true => here(api, app, new).await,
        false => {
            let path = format!("/v1/apps/{}/volumes", app.name);
            let NewBody { mut body, key } = new;
            if let Some(CreationKey(key)) = key {
                body.other.insert(CREATION_KEY.into(), key.into());
            }
            forward::post(api, host, &path, &body).await
        }
    }
}

async fn here(api: &Shared, app: &directory::App, new: NewBody) -> Result<Response, ApiError> {
    let NewBody { body, key } = new;
    let new = NewVolume {
        app: app.name.clone(),
        org: app.org.clone(),
        network: app.network_id,
        body,
        creation_key: key.map(|key| key.0),
    };
    let created = api.deps.worker.volumes().create(new).await?;
    tracing::info!(app = %app.name, volume = %created.volume.id, "volume created");
    Ok(Json(created.volume).into_response())
}
