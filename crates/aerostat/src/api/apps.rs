//! Apps and regions.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use types::api::{
    App, AppList, CreateApp, Ok as Done, Organization, Region, RegionCapacity, RegionList,
};
use types::fleet::HostStatus;
use types::token::Verb;
use types::{AppName, HostId, MachineId};

use super::error::ApiError;
use super::extract::{Body, Query};
use super::guard::{Grant, of_app};
use super::idempotency::{CreationKey, Key};
use super::{Api, State as Shared, members, volumes};
use crate::catalog::Filter;
use crate::directory::{self, NewApp, PERSONAL};
use crate::placement::group;
use crate::worker::{Destroyed, Permit, Remote};

/// For the number of an app's volumes, which clients show to people; the others are told at once.
const COUNT_DEADLINE: Duration = Duration::from_millis(250);

/// `GET /v1/apps`: those that the caller may see.
pub(super) async fn list(State(api): State<Api>, grant: Grant, query: Query) -> Json<AppList> {
    let (org, role) = (query.get("org_slug"), query.get("app_role"));
    let apps = api.deps.directory.apps().into_iter();
    let apps = apps.filter(|app| {
        org.is_none_or(|slug| slug == app.org.as_str()) && role.is_none_or(|role| role == app.role)
    });
    let apps = apps.filter(|app| grant.reads(app));
    let apps: Vec<directory::App> = apps.collect();
    let orgs = apps.iter().map(|app| app.org.clone()).collect();
    let volumes = volumes::counts(&api, orgs, COUNT_DEADLINE).await;
    let apps = apps.into_iter().map(|app| {
        let volume_count = volumes.get(&app.name).copied().unwrap_or_default();
        let shown = show(&api, app);
        App {
            volume_count,
            ..shown
        }
    });
    let apps: Vec<App> = apps.collect();
    Json(AppList {
        total_apps: apps.len() as u64,
        apps,
    })
}

/// `POST /v1/apps`; `?wait=true`, which Fly's clients send, is the only way here.
pub(super) async fn create(
    State(api): State<Api>,
    grant: Grant,
    key: Key,
    Body(body): Body<CreateApp>,
) -> Result<impl IntoResponse, ApiError> {
    let key = key.with(&body);
    members::check_other(&body.other, &["enable_subdomains"])?;
    let name: AppName = body
        .name
        .parse()
        .map_err(|error| ApiError::bad(format!("{error}")))?;
    let org = if body.org_slug.is_empty() {
        PERSONAL
    } else {
        &body.org_slug
    };
    let org = org
        .parse()
        .map_err(|error| ApiError::bad(format!("{error}")))?;
    grant.check(of_app(Verb::Write, &org, &name))?;
    let new = NewApp {
        name,
        org,
        network: body.network,
        role: body.app_role_id,
        creation_key: key.as_ref().map(|key| key.0.clone()),
    };
    let name = new.name.clone();
    let app = match api.deps.directory.create_app(new, Timestamp::now()).await {
        Err(taken @ directory::Error::Refused(directory::Refused::AppNameTaken { .. })) => {
            return match repeated(&api, &name, key.as_ref()).await? {
                Some(app) => Ok((StatusCode::CREATED, Json(show(&api, app)))),
                None => Err(taken.into()),
            };
        }
        created => created?,
    };
    tracing::info!(app = %app.name, network = %app.network_id, "app created");
    Ok((StatusCode::CREATED, Json(show(&api, app))))
}

/// The app of this name, if an earlier request with this key made it.
async fn repeated(
    api: &Shared,
    name: &AppName,
    key: Option<&CreationKey>,
) -> Result<Option<directory::App>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let app = api.deps.directory.app(name).await?;
    let is_repeated = key.has_created(app.creation_key.as_deref())?;
    Ok(is_repeated.then_some(app))
}

/// `GET /v1/apps/{app}`
pub(super) async fn get(State(api): State<Api>, app: directory::App) -> Json<App> {
    let volumes = volumes::count(&api, &app.name, COUNT_DEADLINE).await;
    let mut shown = show(&api, app);
    shown.volume_count = volumes;
    Json(shown)
}

/// `DELETE /v1/apps/{app}?force=`
pub(super) async fn delete(
    State(api): State<Api>,
    app: directory::App,
    query: Query,
) -> Result<impl IntoResponse, ApiError> {
    let force = query.flag("force")?;
    // Spawned, so that a caller who goes away does not leave half of the machines.
    let deleting = tokio::spawn(async move { delete_all(&api, &app, force).await });
    deleting.await.unwrap_or(Err(ApiError::ShuttingDown))?;
    Ok((StatusCode::ACCEPTED, Json(Done { ok: true })))
}

async fn delete_all(api: &Shared, app: &directory::App, force: bool) -> Result<(), ApiError> {
    // On this host. A machine that another host creates at the same moment may stay behind; that
    // its app is gone is seen in lists, and it can be destroyed by its id once the app is made anew.
    let _no_new_machines = api.app_deletion.write().await;
    let machines = api
        .deps
        .catalog
        .list(&Filter::App(app.name.clone()))
        .entries;
    if !machines.is_empty() && !force {
        let name = app.name.to_string();
        return Err(ApiError::AppNotEmpty {
            name,
            machines: machines.len(),
        });
    }
    if !force {
        let volumes = volumes::count(api, &app.name, volumes::LIST_DEADLINE).await;
        if volumes > 0 {
            let name = app.name.to_string();
            return Err(ApiError::AppHasVolumes { name, volumes });
        }
    }
    for entry in machines {
        destroy(api, entry.host, &entry.machine.id).await?;
    }
    if force {
        volumes::delete_all(api, &app.name).await?;
    }
    api.deps.directory.delete_app(&app.name).await?;
    tracing::info!(app = %app.name, "app deleted");
    Ok(())
}

async fn destroy(api: &Shared, host: HostId, id: &MachineId) -> Result<(), ApiError> {
    let deps = &api.deps;
    if host == deps.rpc.host() {
        let worker = deps.worker.permitted(Permit::Override);
        worker.destroy(id, true).await?;
        return Ok(());
    }
    match Remote::new(host, deps.rpc.clone()).destroy(id).await? {
        Destroyed::Recorded => Ok(()),
        Destroyed::Refused { reason } => Err(ApiError::NotDestroyed {
            id: id.clone(),
            host,
            reason,
        }),
    }
}

/// `GET /v1/platform/regions`: those that hosts of this fleet are in.
pub(super) async fn regions(State(api): State<Api>) -> Json<RegionList> {
    let deps = &api.deps;
    let own = (api.region.clone(), Some(deps.worker.capacity()));
    let others = deps.hosts.others(deps.rpc.host()).into_iter();
    let others = others.map(|host| {
        // What cannot be reached has room for nobody; its region is still one.
        let is_there = host.status != HostStatus::Unreachable;
        (
            host.region,
            is_there.then_some(host.capacity.unwrap_or_default()),
        )
    });
    let mut regions: BTreeMap<String, (u32, RegionCapacity)> = BTreeMap::new();
    for (code, capacity) in others.chain([own]) {
        let (hosts, sum) = regions.entry(code).or_default();
        if let Some(capacity) = capacity {
            *hosts += 1;
            sum.cpus += capacity.cpus;
            sum.memory_mb += capacity.memory_mb;
            sum.disk_mb += capacity.disk_mb;
        }
    }
    let regions = regions.into_iter().map(|(code, (hosts, capacity))| Region {
        name: code.clone(),
        geo_region: group(&code).to_owned(),
        code,
        latitude: 0.0,
        longitude: 0.0,
        gateway_available: false,
        requires_paid_plan: false,
        deprecated: false,
        hosts: Some(hosts),
        capacity: Some(capacity),
    });
    Json(RegionList {
        nearest: api.region.clone(),
        regions: regions.collect(),
    })
}

pub(super) fn show(api: &Shared, app: directory::App) -> App {
    let machines = api
        .deps
        .catalog
        .list(&Filter::App(app.name.clone()))
        .entries
        .len();
    let org = api.deps.directory.org(&app.org);
    App {
        internal_numeric_id: number_of(&app.id),
        app_role: app.role,
        id: app.id,
        name: app.name,
        machine_count: machines as u64,
        volume_count: 0,
        network: app.network,
        network_id: app.network_id,
        status: if machines == 0 { "pending" } else { "deployed" }.into(),
        organization: Organization {
            internal_numeric_id: number_of(app.org.as_str()),
            name: org.map_or_else(|| app.org.to_string(), |org| org.name),
            slug: app.org,
        },
        created_at: app.created_at,
    }
}

/// A number for clients that want one, always the same for the same text. It fits 31 bits, and two
/// apps may share one: nothing here is found by it.
pub(super) fn number_of(text: &str) -> u32 {
    let digest = Sha256::digest(text);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 1
}
