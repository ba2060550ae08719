//! Volumes: each is on one host, whose number is in its id. What is asked of another host's volume
//! is sent on to that host (`forward`); lists ask every host at once, with one deadline, and name
//! those that did not answer.

mod create;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::IntoResponse;
use axum::{Json, extract::Path};
use jiff::Timestamp;
use types::fleet::HostStatus;
use types::volume::{
    ExtendVolume, ExtendedVolume, HOSTS_MISSING_HEADER, OrgVolume, OrgVolumeList, UpdateVolume,
    Volume, VolumeSnapshot, VolumeState,
};
use types::{AppName, HostId, OrgSlug, VolumeId};

use super::error::ApiError;
use super::extract::{Body, Query};
use super::guard::Grant;
use super::{Api, State as Shared, orgs};
use crate::directory;
use crate::worker::{Remote, ShownVolume, VolumeOwner, VolumeQuery, VolumeRefused};

pub(super) use create::create;

/// For every host's part of a list. Two round trips within one continent, and some disks.
pub(super) const LIST_DEADLINE: Duration = Duration::from_secs(1);
/// Volumes on one page, if nobody says; and at most, as in Fly's API.
const PAGE_DEFAULT: usize = 200;
const PAGE_MAX: usize = 1000;
/// A deleted app's machines give their volumes back when nothing is left of them.
const DETACH_TIMEOUT: Duration = Duration::from_secs(20);
const DETACH_POLL: Duration = Duration::from_millis(100);

/// The host that a request for one volume belongs to.
pub(super) fn owner(path: &str) -> Option<HostId> {
    let segments: Vec<&str> = path.split('/').collect();
    let ["", "v1", "apps", _, "volumes", id, ..] = segments.as_slice() else {
        return None;
    };
    Some(id.parse::<VolumeId>().ok()?.host())
}

/// The volume that the path names; it is on this host and belongs to the app that the path names.
pub(super) struct VolumeTarget(VolumeId);

impl FromRequestParts<Api> for VolumeTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let app = directory::App::from_request_parts(parts, api).await?;
        let names = Path::<(String, String)>::from_request_parts(parts, api).await;
        let id = names.map(|Path((_, id))| id).unwrap_or_default();
        let id: VolumeId = id
            .parse()
            .map_err(|error| ApiError::bad(format!("{error}")))?;
        let shown = api.deps.worker.volumes().get(&id).await?;
        match shown.app == app.name {
            true => Ok(Self(id)),
            false => Err(VolumeRefused::NotFound { id }.into()),
        }
    }
}

/// `GET …/volumes?summary=`
pub(super) async fn list(
    State(api): State<Api>,
    app: directory::App,
    query: Query,
) -> Result<impl IntoResponse, ApiError> {
    let query = VolumeQuery {
        of: VolumeOwner::App(app.name),
        summary: query.flag("summary")?,
        destroyed: false,
    };
    let (shown, missing) = gather(&api, query, LIST_DEADLINE).await?;
    let volumes: Vec<Volume> = shown.into_iter().map(|shown| shown.volume).collect();
    Ok((missing_header(&missing), Json(volumes)))
}

/// The volumes of every host, and the hosts that did not answer.
async fn gather(
    api: &Shared,
    query: VolumeQuery,
    deadline: Duration,
) -> Result<(Vec<ShownVolume>, BTreeSet<HostId>), ApiError> {
    let deps = &api.deps;
    let others = deps.hosts.others(deps.rpc.host());
    let query = &query;
    let asked = others.iter().map(|host| async move {
        if host.status == HostStatus::Unreachable {
            return Err(host.id);
        }
        let remote = Remote::new(host.id, deps.rpc.clone());
        let answer = remote.volumes(query, deadline).await;
        answer.map_err(|error| {
            tracing::debug!(error = %types::chain(&error), "a host's volumes are missing");
            host.id
        })
    });
    let (own, others) = futures::future::join(
        deps.worker.volumes().list(query.clone()),
        futures::future::join_all(asked),
    )
    .await;
    let (mut shown, mut missing) = (own?, BTreeSet::new());
    for answer in others {
        match answer {
            Ok(volumes) => shown.extend(volumes),
            Err(host) => drop(missing.insert(host)),
        }
    }
    let key = |s: &ShownVolume| (s.volume.name.clone(), s.volume.created_at);
    shown.sort_by_key(key);
    Ok((shown, missing))
}

fn missing_header(missing: &BTreeSet<HostId>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names: Vec<String> = missing.iter().map(HostId::to_string).collect();
    if !names.is_empty()
        && let Ok(value) = HeaderValue::try_from(names.join(","))
    {
        headers.insert(HeaderName::from_static(HOSTS_MISSING_HEADER), value);
    }
    headers
}

/// `GET /v1/orgs/{org}/volumes`
pub(super) async fn list_of_org(
    State(api): State<Api>,
    org: directory::Org,
    grant: Grant,
    query: Query,
) -> Result<Json<OrgVolumeList>, ApiError> {
    let slug = org.slug;
    let seen = (!grant.reads_all(&slug)).then(|| orgs::seen(&api, &grant, &slug));
    let page = Page::read(&query)?;
    let wanted = VolumeQuery {
        of: VolumeOwner::Org(slug),
        summary: query.flag("summary")?,
        destroyed: query.flag("include_deleted")?,
    };
    let (shown, missing) = gather(&api, wanted, LIST_DEADLINE).await?;
    let is_seen = |shown: &ShownVolume| seen.as_ref().is_none_or(|seen| seen.contains(&shown.app));
    let shown = shown.into_iter().filter(is_seen).map(|shown| OrgVolume {
        app_name: shown.app.to_string(),
        updated_at: shown.updated_at,
        volume: shown.volume,
    });
    let mut list = page.cut(shown.collect());
    list.hosts_missing = missing.iter().map(HostId::to_string).collect();
    Ok(Json(list))
}

/// Which of an organisation's volumes are asked for.
#[derive(Debug, Default)]
struct Page {
    region: Option<String>,
    states: Vec<VolumeState>,
    updated_after: Option<Timestamp>,
    /// The last one of the page before.
    after: Option<(Timestamp, String)>,
    limit: usize,
}

impl Page {
    fn read(query: &Query) -> Result<Self, ApiError> {
        let state = |text: &str| {
            let known = VolumeState::ALL.into_iter().find(|s| s.as_str() == text);
            known.ok_or_else(|| ApiError::bad(format!("`{text}` is no state of a volume")))
        };
        let cursor = |text: &str| {
            let (at, id) = text.split_once('~')?;
            Some((at.parse().ok()?, id.to_owned()))
        };
        let after = query.get("cursor").map(|text| {
            cursor(text).ok_or_else(|| ApiError::bad("cursor is none of this API".into()))
        });
        let limit = query.parse("limit", "a number")?.unwrap_or(PAGE_DEFAULT);
        Ok(Self {
            region: query.get("region").map(str::to_owned),
            states: query
                .csv("state")
                .into_iter()
                .map(state)
                .collect::<Result<_, _>>()?,
            updated_after: query.parse("updated_after", "a time such as 2026-01-31T12:00:00Z")?,
            after: after.transpose()?,
            limit: limit.clamp(1, PAGE_MAX),
        })
    }

    /// Those that are wanted, in order, as far as they fit. Pure.
    fn cut(&self, mut volumes: Vec<OrgVolume>) -> OrgVolumeList {
        let key = |v: &OrgVolume| (v.updated_at, v.volume.id.to_string());
        volumes.retain(|v| {
            self.region
                .as_ref()
                .is_none_or(|region| *region == v.volume.region)
                && (self.states.is_empty() || self.states.contains(&v.volume.state))
                && self.updated_after.is_none_or(|after| v.updated_at > after)
                && self.after.as_ref().is_none_or(|after| key(v) > *after)
        });
        volumes.sort_by_key(key);
        let is_last = volumes.len() <= self.limit;
        volumes.truncate(self.limit);
        let last = volumes.last();
        OrgVolumeList {
            next_cursor: match last {
                Some(last) if !is_last => format!("{}~{}", last.updated_at, last.volume.id),
                Some(_) | None => String::new(),
            },
            last_volume_id: last.map(|v| v.volume.id.to_string()).unwrap_or_default(),
            last_updated_at: last.map(|v| v.updated_at),
            hosts_missing: Vec::new(),
            volumes,
        }
    }
}

/// `GET …/volumes/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
) -> Result<Json<Volume>, ApiError> {
    Ok(Json(api.deps.worker.volumes().get(&id).await?.volume))
}

/// `PUT …/volumes/{id}`; POST too, for Fly's older clients.
pub(super) async fn update(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
    Body(body): Body<UpdateVolume>,
) -> Result<Json<Volume>, ApiError> {
    let updated = api.deps.worker.volumes().update(&id, &body).await?;
    Ok(Json(updated.volume))
}

/// `DELETE …/volumes/{id}`
pub(super) async fn destroy(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
) -> Result<Json<Volume>, ApiError> {
    let volumes = api.deps.worker.volumes().clone();
    Ok(Json(
        whole(async move { volumes.destroy(&id).await })
            .await?
            .volume,
    ))
}

/// `PUT …/volumes/{id}/extend`
pub(super) async fn extend(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
    Body(body): Body<ExtendVolume>,
) -> Result<Json<ExtendedVolume>, ApiError> {
    let volumes = api.deps.worker.volumes().clone();
    let extend = async move { volumes.extend(&id, body.size_gb).await };
    Ok(Json(whole(extend).await?))
}

/// `GET …/volumes/{id}/snapshots`
pub(super) async fn snapshots(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
) -> Result<Json<Vec<VolumeSnapshot>>, ApiError> {
    Ok(Json(api.deps.worker.volumes().snapshots(&id).await?))
}

/// `POST …/volumes/{id}/snapshots`
pub(super) async fn snapshot(
    State(api): State<Api>,
    VolumeTarget(id): VolumeTarget,
) -> Result<Json<VolumeSnapshot>, ApiError> {
    let volumes = api.deps.worker.volumes().clone();
    Ok(Json(
        whole(async move { volumes.snapshot(&id).await }).await?,
    ))
}

/// Carries out a change to its end, also when the caller goes away.
async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, VolumeRefused>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(change).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ApiError::ShuttingDown),
    }
}

/// How many volumes an app has, as far as hosts answer.
pub(super) async fn count(api: &Shared, app: &AppName, deadline: Duration) -> u64 {
    let query = VolumeQuery {
        of: VolumeOwner::App(app.clone()),
        summary: true,
        destroyed: false,
    };
    let gathered = gather(api, query, deadline).await;
    gathered.map_or(0, |(volumes, _)| volumes.len() as u64)
}

/// How many volumes each app of these organisations has, as far as hosts answer.
pub(super) async fn counts(
    api: &Shared,
    orgs: BTreeSet<OrgSlug>,
    deadline: Duration,
) -> BTreeMap<AppName, u64> {
    let asked = orgs.into_iter().map(|org| {
        let query = VolumeQuery {
            of: VolumeOwner::Org(org),
            summary: true,
            destroyed: false,
        };
        gather(api, query, deadline)
    });
    let mut counts = BTreeMap::new();
    for (volumes, _) in futures::future::join_all(asked).await.into_iter().flatten() {
        for volume in volumes {
            *counts.entry(volume.app).or_default() += 1;
        }
    }
    counts
}

/// Deletes the volumes of an app that is being deleted, on every host that answers.
pub(super) async fn delete_all(api: &Shared, app: &AppName) -> Result<(), ApiError> {
    let deps = &api.deps;
    for host in deps.hosts.others(deps.rpc.host()) {
        let remote = Remote::new(host.id, deps.rpc.clone());
        let deleted = detached(|| async { remote.destroy_volumes(app).await }).await;
        match deleted {
            Ok(deleted) => deleted?,
            // Nobody knows whether it has any. They stay until the app is made anew.
            Err(error) => tracing::warn!(error = %types::chain(&error), app = %app,
                "volumes of a deleted app may be left on a host"),
        }
    }
    let volumes = deps.worker.volumes();
    let deleted = detached(|| async { Ok::<_, ApiError>(volumes.destroy_all(app).await) }).await;
    Ok(deleted??)
}

/// Repeats `delete` while a machine that is going still has one of the volumes.
async fn detached<E, F>(delete: impl Fn() -> F) -> Result<Result<(), VolumeRefused>, E>
where
    F: Future<Output = Result<Result<(), VolumeRefused>, E>>,
{
    let deadline = tokio::time::Instant::now() + DETACH_TIMEOUT;
    loop {
        match delete().await {
            Ok(Err(VolumeRefused::Attached { .. } | VolumeRefused::Copying { .. }))
                if tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(DETACH_POLL).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_volume_s_host() {
        let of = |path: &str| owner(path).map(HostId::number);
        let id = VolumeId::new(HostId::new(77), 5);
        assert_eq!(
            of(&format!("/v1/apps/web/volumes/{id}/snapshots")),
            Some(77)
        );
        assert_eq!(of(&format!("/v1/apps/web/volumes/{id}")), Some(77));
        assert_eq!(of("/v1/apps/web/volumes"), None);
        assert_eq!(of("/v1/apps/web/volumes/vol_x"), None);
        assert_eq!(of(&format!("/v1/apps/web/machines/{id}")), None);
    }
}
