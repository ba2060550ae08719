//! Machines: the verbs that return when their change is recorded.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::response::IntoResponse;
use types::api::{Ok as Done, REVISION_HEADER, StartAnswer, StopMachine, UpdateMachine};
use types::machine::{Event, Machine, MachineState};
use types::{MachineId, VersionId};

use super::create::refuse_unbuilt;
use super::error::ApiError;
use super::extract::{Body, Query, Target};
use super::lease::Asked;
use super::{Api, State as Shared};
use crate::catalog::Filter;
use crate::directory;
use crate::worker::{self, SecretsWanted, StopRequest, UpdateRequest};

/// Fly's default and bound for a list of events.
const EVENTS_DEFAULT: usize = 20;
const EVENTS_MAX: usize = 50;
/// A restart waits this long for the stop. Longer than the longest grace that a configuration may
/// ask for (300 s).
const RESTART_STOP_TIMEOUT: Duration = Duration::from_secs(330);

/// `GET …/machines?state=&region=&metadata.{key}=&include_deleted=&summary=`
pub(super) async fn list(
    State(api): State<Api>,
    app: directory::App,
    query: Query,
) -> Result<impl IntoResponse, ApiError> {
    let wanted = states(&query.csv("state"))?;
    let summary = query.flag("summary")?;
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
    let entries = snapshot.entries.iter().filter(|entry| fits(&entry.machine));
    let machines: Vec<Machine> = entries
        .map(|entry| {
            let mut machine = entry.machine.clone();
            if summary {
                machine.events.clear();
                machine.checks.clear();
            }
            machine
        })
        .collect();
    let revision = (
        HeaderName::from_static(REVISION_HEADER),
        snapshot.revision.to_string(),
    );
    Ok(([revision], Json(machines)))
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
    target: Target,
    Asked(worker): Asked,
    Body(body): Body<UpdateMachine>,
) -> Result<Json<Machine>, ApiError> {
    refuse_unbuilt(&body.other)?;
    let current_version = match body.current_version.as_deref() {
        None | Some("") => None,
        Some(text) => Some(version(text)?),
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
    Ok(Json(worker.update(&target.id, request).await?))
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

/// `POST …/machines/{id}/restart?timeout=&signal=&force_stop=`: stop, wait, start.
pub(super) async fn restart(
    State(api): State<Api>,
    target: Target,
    query: Query,
    Asked(worker): Asked,
) -> Result<Json<Done>, ApiError> {
    let timeout = match (query.get("timeout"), query.flag("force_stop")?) {
        (_, true) => Some(Duration::ZERO),
        (Some(text), false) => Some(seconds(text)?),
        (None, false) => None,
    };
    let request = StopRequest {
        signal: query.get("signal").map(str::to_owned),
        timeout,
    };
    // Spawned, so that a caller who goes away does not leave the machine stopped.
    let restarting =
        tokio::spawn(async move { stop_and_start(&api, &worker, &target.id, request).await });
    restarting.await.unwrap_or(Err(ApiError::ShuttingDown))?;
    Ok(Json(Done { ok: true }))
}

/// Go's text (`1m30s`) or whole seconds.
fn seconds(text: &str) -> Result<Duration, ApiError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: Result<types::machine::Duration, ()> = text.parse();
    let problem = |()| ApiError::bad("timeout must be seconds, or text like 1m30s".into());
    parsed.map(|duration| duration.0).map_err(problem)
}

async fn stop_and_start(
    api: &Shared,
    worker: &worker::Handle,
    id: &MachineId,
    request: StopRequest,
) -> Result<(), ApiError> {
    worker.stop(id, request).await?;
    let resting = |state| {
        matches!(
            state,
            MachineState::Created | MachineState::Stopped | MachineState::Failed
        )
    };
    let catalog = &api.deps.catalog;
    let stopped = catalog
        .wait_for(id, RESTART_STOP_TIMEOUT, |entry| {
            resting(entry.machine.state)
        })
        .await;
    if stopped.is_err() {
        return Err(ApiError::TooSlow {
            limit: RESTART_STOP_TIMEOUT,
        });
    }
    worker.start(id).await?;
    Ok(())
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

/// `GET …/machines/{id}/metadata`
pub(super) async fn metadata(
    State(api): State<Api>,
    target: Target,
) -> Result<impl IntoResponse, ApiError> {
    let machine = api
        .deps
        .worker
        .get(&target.id)
        .ok_or(ApiError::MachineNotFound)?;
    Ok(Json(machine.config.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_takes_go_s_text_or_seconds() {
        assert_eq!(seconds("10").unwrap(), Duration::from_secs(10));
        assert_eq!(seconds("1m30s").unwrap(), Duration::from_secs(90));
        assert!(seconds("soon").is_err());
    }
}
