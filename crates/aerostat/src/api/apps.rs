//! Apps and regions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use types::AppName;
use types::api::{App, AppList, CreateApp, Ok as Done, Organization, Region, RegionList};

use super::error::ApiError;
use super::extract::{Body, Query};
use super::{Api, State as Shared};
use crate::catalog::Filter;
use crate::directory::{self, NewApp, PERSONAL};
use crate::worker::Permit;

/// `GET /v1/apps`
pub(super) async fn list(State(api): State<Api>, query: Query) -> Json<AppList> {
    let org = query.get("org_slug");
    let apps = api.deps.directory.apps().into_iter();
    let apps = apps.filter(|app| org.is_none_or(|slug| slug == app.org.as_str()));
    let apps: Vec<App> = apps.map(|app| show(&api, app)).collect();
    Json(AppList {
        total_apps: apps.len() as u64,
        apps,
    })
}

/// `POST /v1/apps`; `?wait=true`, which Fly's clients send, is the only way here.
pub(super) async fn create(
    State(api): State<Api>,
    Body(body): Body<CreateApp>,
) -> Result<impl IntoResponse, ApiError> {
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
    let new = NewApp {
        name,
        org,
        network: body.network,
    };
    let app = api.deps.directory.create_app(new, Timestamp::now()).await;
    let app = app?;
    tracing::info!(app = %app.name, network = %app.network_id, "app created");
    Ok((StatusCode::CREATED, Json(show(&api, app))))
}

/// `GET /v1/apps/{app}`
pub(super) async fn get(State(api): State<Api>, app: directory::App) -> Json<App> {
    Json(show(&api, app))
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
    let worker = api.deps.worker.permitted(Permit::Override);
    for entry in machines {
        worker.destroy(&entry.machine.id, true).await?;
    }
    api.deps.directory.delete_app(&app.name).await?;
    tracing::info!(app = %app.name, "app deleted");
    Ok(())
}

/// `GET /v1/platform/regions`: the one that this host is in.
pub(super) async fn regions(State(api): State<Api>) -> Json<RegionList> {
    let region = Region {
        code: api.region.clone(),
        name: api.region.clone(),
        latitude: 0.0,
        longitude: 0.0,
        gateway_available: false,
        requires_paid_plan: false,
        deprecated: false,
    };
    Json(RegionList {
        nearest: api.region.clone(),
        regions: vec![region],
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
        id: app.id,
        name: app.name,
        machine_count: machines as u64,
        volume_count: 0,
        network: app.network,
        network_id: app.network_id,
        status: if machines == 0 { "pending" } else { "deployed" }.into(),
        organization: Organization {
            name: org.map_or_else(|| app.org.to_string(), |org| org.name),
            slug: app.org,
        },
        created_at: app.created_at,
    }
}
