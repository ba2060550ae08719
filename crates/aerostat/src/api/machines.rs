//! Machines: the verbs that return when their change is recorded.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::response::IntoResponse;
use serde_json::Value;
use types::api::UpdateMachine;
use types::api::{CreateMachine, Ok as Done, REVISION_HEADER, StartAnswer, StopMachine};
use types::machine::{Event, Machine, MachineState};
use types::{MachineId, VersionId};

use super::error::ApiError;
use super::extract::{Body, Query, Target};
use super::lease::{self, Asked};
use super::{Api, State as Shared, names};
use crate::catalog::Filter;
use crate::worker::{self, BidRequest, CreateRequest, Refused, StopRequest, UpdateRequest};
use crate::{directory, placement};

/// Fly's default and bound for a list of events.
const EVENTS_DEFAULT: usize = 20;
const EVENTS_MAX: usize = 50;
/// How often a made-up id or name is made up anew when it is taken.
const ATTEMPTS_MAX: usize = 3;
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

/// `POST …/machines`: check, place, create.
pub(super) async fn create(
    State(api): State<Api>,
    app: directory::App,
    Body(body): Body<CreateMachine>,
) -> Result<Json<Machine>, ApiError> {
    refuse_unbuilt(&body.other)?;
    if !body.name.is_empty() && !names::is_name(&body.name) {
        return Err(ApiError::bad(format!(
            "`{}` cannot be the name of a machine: use up to 63 letters, digits, dashes, dots and \
             underscores",
            body.name.chars().take(80).collect::<String>()
        )));
    }
    let config = worker::check(body.config)?;
    let _no_deletion = api.app_deletion.read().await;
    // Again, now that no deletion can come in between.
    let app = api.deps.directory.app(&app.name).await?;
    let lease = match body.lease_ttl {
        None | Some(0) => None,
        Some(ttl_s) => Some(lease::request(&app, ttl_s, String::new())?),
    };
    let request = BidRequest {
        app: app.name.clone(),
        network: app.network_id,
        region: body.region,
        config: config.clone(),
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let place = placement::place(std::slice::from_ref(&api.deps.worker), &request).await;
        let place = place.map_err(ApiError::NoPlace)?;
        let made_up = body.name.is_empty();
        let created = place
            .worker
            .create(CreateRequest {
                reservation: place.reservation,
                id: MachineId::from_bits(rand::random()),
                app: app.name.clone(),
                network: app.network_id,
                name: if made_up {
                    names::name(rand::random())
                } else {
                    body.name.clone()
                },
                config: config.clone(),
                launch: !body.skip_launch,
                lease: lease.clone(),
            })
            .await;
        match created {
            Err(Refused::IdTaken { .. }) if attempt < ATTEMPTS_MAX => {}
            Err(Refused::NameTaken { .. }) if made_up && attempt < ATTEMPTS_MAX => {}
            answer => return Ok(Json(answer?)),
        }
    }
}

/// Members beside the configuration that would change what the machine is. What only tunes Fly's
/// own platform is ignored, and so is what says nothing.
fn refuse_unbuilt(other: &std::collections::BTreeMap<String, Value>) -> Result<(), ApiError> {
    for (member, feature) in [
        // Of an update; a new machine may begin with one.
        ("lease_ttl", "leases that an update begins"),
        ("min_secrets_version", "secrets"),
        ("lsvd", "volumes"),
    ] {
        let value = other.get(member).unwrap_or(&Value::Null);
        let says_nothing = value.is_null() || *value == false || *value == 0;
        if !says_nothing {
            return Err(ApiError::NotBuilt { feature });
        }
    }
    Ok(())
}

/// `GET …/machines/{id}`
pub(super) async fn get(State(api): State<Api>, target: Target) -> Result<Json<Machine>, ApiError> {
    let machine = api
        .deps
        .worker
        .get(&target.id)
        .ok_or(ApiError::MachineNotFound)?;
    Ok(Json(machine))
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
    fn what_says_nothing_may_stand_beside_a_configuration() {
        let other = |text: &str| {
            let body: CreateMachine = serde_json::from_str(text).unwrap();
            refuse_unbuilt(&body.other)
        };
        let fly = r#"{"config":{},"skip_secrets":false,"lsvd":false,
            "min_secrets_version":null,"skip_service_registration":true}"#;
        assert!(other(fly).is_ok());
        let lsvd = other(r#"{"config":{},"lsvd":true}"#).unwrap_err();
        assert_eq!(lsvd.to_string(), "volumes are not built yet");
    }

    #[test]
    fn a_restart_takes_go_s_text_or_seconds() {
        assert_eq!(seconds("10").unwrap(), Duration::from_secs(10));
        assert_eq!(seconds("1m30s").unwrap(), Duration::from_secs(90));
        assert!(seconds("soon").is_err());
    }
}
