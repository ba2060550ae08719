//! Machines: the verbs that return when their change is recorded.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use types::VersionId;
use types::api::{Ok as Done, REVISION_HEADER, StartAnswer, StopMachine, UpdateMachine};
use types::machine::{Event, Machine, MachineState};

use super::error::ApiError;
use super::extract::{Body, Configured, Query, Target};
use super::guard::Ends;
use super::lease::{self, Asked};
use super::watch::{self, Whose};
use super::{Api, members};
use crate::catalog::Filter;
use crate::directory;
use crate::worker::{self, SecretsWanted, StopRequest, UpdateRequest};

/// Fly's default and bound for a list of events.
const EVENTS_DEFAULT: usize = 20;
const EVENTS_MAX: usize = 50;

/// What a summary leaves out, as Fly's document lists it.
const NOT_IN_SUMMARIES: [&str; 6] = [
    "config",
    "checks",
    "containers",
    "events",
    "host_status",
    "nonce",
];

/// `GET …/machines?state=&region=&metadata.{key}=&include_deleted=&summary=`, or with
/// `watch=true` what happens to them.
pub(super) async fn list(
    State(api): State<Api>,
    app: directory::App,
    ends: Ends,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if query.flag("watch")? {
        return watch::answer(&api, Whose::App(app.name), ends, &query, &headers);
    }
    let wanted = states(&wanted_states(&query))?;
    let destroyed = query.flag("include_deleted")? || wanted.contains(&MachineState::Destroyed);
    let filter = Filter::App(app.name);
    let snapshot = match destroyed {
        true => api.deps.catalog.list_with_destroyed(&filter),
        false => api.deps.catalog.list(&filter),
    };
    let fits = |machine: &Machine| {
        (wanted.is_empty() || wanted.contains(&machine.state))
            && query
                .get("region")
                .is_none_or(|region| region == machine.region)
            && query
                .with_prefix("metadata.")
                .all(|(key, value)| machine.config.metadata.get(key).is_some_and(|v| v == value))
    };
    let machines = snapshot.entries.iter().map(|entry| &entry.machine);
    let machines: Vec<&Machine> = machines.filter(|machine| fits(machine)).collect();
    let revision = (
        HeaderName::from_static(REVISION_HEADER),
        snapshot.revision.to_string(),
    );
    Ok(match query.flag("summary")? {
        false => ([revision], Json(machines)).into_response(),
        true => {
            let summaries: Vec<Value> = machines.into_iter().map(summary).collect();
            ([revision], Json(summaries)).into_response()
        }
    })
}

fn summary(machine: &Machine) -> Value {
    // Our own type: maps with string keys and no failing serialisers.
    let mut summary = serde_json::to_value(machine).unwrap_or_default();
    if let Some(members) = summary.as_object_mut() {
        members.retain(|name, _| !NOT_IN_SUMMARIES.contains(&name.as_str()));
    }
    summary
}

/// The states that a list is filtered by: `?state=a,b`, or without a name as Fly's client writes
/// it.
pub(super) fn wanted_states(query: &Query) -> Vec<&str> {
    let known = |word: &&str| {
        MachineState::ALL
            .iter()
            .any(|state| state.as_str() == *word)
    };
    let bare = query.bare().filter(known);
    query.csv("state").into_iter().chain(bare).collect()
}

/// States by name, as in `?state=`.
pub(super) fn states(texts: &[&str]) -> Result<Vec<MachineState>, ApiError> {
    let find = |text: &&str| {
        let known = MachineState::ALL
            .into_iter()
            .find(|state| state.as_str() == *text);
        known.ok_or_else(|| ApiError::bad(format!("`{text}` is no state of a machine")))
    };
    texts.iter().map(find).collect()
}

/// `GET …/machines/{id}`
pub(super) async fn get(State(api): State<Api>, target: Target) -> Result<Json<Machine>, ApiError> {
    // That of another host comes here when the host cannot be asked.
    let entry = api.deps.catalog.get(&target.id).unwrap_or(target.entry);
    Ok(Json(entry.machine.clone()))
}

/// `POST …/machines/{id}`
pub(super) async fn update(
    State(api): State<Api>,
    target: Target,
    Asked(worker): Asked,
    Configured(body): Configured<UpdateMachine>,
) -> Result<Json<Machine>, ApiError> {
    // Fly's clients say again what it is called and where it is.
    members::check_other(&body.other, &["name", "region"])?;
    let machine = &target.entry.machine;
    for (member, has) in [("name", &machine.name), ("region", &machine.region)] {
        let said = body
            .other
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !said.is_empty() && said != has {
            return Err(ApiError::bad(format!(
                "{member}: a machine keeps its own, which is `{has}`; leave it out"
            )));
        }
    }
    let current_version = match body.current_version.as_deref() {
        None | Some("") => None,
        Some(text) => Some(version(text)?),
    };
    let lease = match body.lease_ttl {
        None | Some(0) => None,
        Some(ttl_s) => {
            let app = api.deps.directory.app(&target.entry.app).await?;
            Some(lease::request(&app, ttl_s, String::new())?)
        }
    };
    let config = worker::check(body.config)?;
    let request = UpdateRequest {
        config,
        launch: !body.skip_launch,
        current_version,
        cordon: body.skip_service_registration,
        secrets: SecretsWanted {
            skip: body.skip_secrets,
            min_version: body.min_secrets_version,
        },
    };
    let mut machine = worker.update(&target.id, request).await?;
    if let Some(lease) = lease {
        let lease = worker.acquire_lease(&target.id, lease).await?;
        machine.nonce = Some(lease.nonce.to_string());
    }
    Ok(Json(machine))
}

/// A version by its text.
pub(super) fn version(text: &str) -> Result<VersionId, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad(format!("{error}")))
}

/// `DELETE …/machines/{id}?force=` (or `?kill=`)
pub(super) async fn destroy(
    target: Target,
    query: Query,
    Asked(worker): Asked,
) -> Result<Json<Done>, ApiError> {
    let force = query.flag("force")? || query.flag("kill")?;
    match target.entry.machine.state {
        MachineState::Destroyed => {}
        MachineState::Created
        | MachineState::Starting
        | MachineState::Started
        | MachineState::Suspending
        | MachineState::Suspended
        | MachineState::Restarting
        | MachineState::Updating
        | MachineState::Stopping
        | MachineState::Stopped
        | MachineState::Failed
        | MachineState::Destroying => {
            worker.destroy(&target.id, force).await?;
        }
    }
    Ok(Json(Done { ok: true }))
}

/// `POST …/machines/{id}/start`
pub(super) async fn start(
    target: Target,
    Asked(worker): Asked,
) -> Result<Json<StartAnswer>, ApiError> {
    let previous_state = worker.start(&target.id).await?;
    Ok(Json(StartAnswer {
        previous_state,
        migrated: false,
        new_host: String::new(),
    }))
}

/// `POST …/machines/{id}/stop`
pub(super) async fn stop(
    target: Target,
    Asked(worker): Asked,
    Body(body): Body<StopMachine>,
) -> Result<Json<Done>, ApiError> {
    if body.id.is_some_and(|id| id != target.id.as_str()) {
        return Err(ApiError::bad(
            "id: is another machine than the path's; leave it out".into(),
        ));
    }
    let request = StopRequest {
        signal: body.signal.filter(|signal| !signal.is_empty()),
        timeout: body
            .timeout
            .map(|timeout| timeout.0)
            .filter(|timeout| !timeout.is_zero()),
    };
    worker.stop(&target.id, request).await?;
    Ok(Json(Done { ok: true }))
}

/// `GET …/machines/{id}/events?limit=`
pub(super) async fn events(
    State(api): State<Api>,
    target: Target,
    query: Query,
) -> Result<Json<Vec<Event>>, ApiError> {
    let limit = query
        .parse("limit", "a number")?
        .unwrap_or(EVENTS_DEFAULT)
        .min(EVENTS_MAX);
    Ok(Json(api.deps.worker.events(&target.id, limit).await?))
}
