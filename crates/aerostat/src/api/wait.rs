//! `GET …/machines/{id}/wait`: answers when a machine has become what the caller wants, when it
//! is clear that it will not, or when the time is over.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use types::VersionId;
use types::api::WaitAnswer;
use types::machine::{Machine, MachineState};

use super::Api;
use super::error::ApiError;
use super::extract::{Query, Target};
use super::machines::{states, version};
use crate::catalog::NotReached;

/// Fly's default, and its bounds.
const TIMEOUT_S_DEFAULT: u64 = 60;
const TIMEOUT_S_MAX: u64 = 60;

/// What the caller wants to see.
#[derive(Debug, PartialEq)]
struct Wanted {
    states: Vec<MachineState>,
    settled: bool,
    version: Option<VersionId>,
    from_event_id: Option<String>,
}

/// What a machine is in the light of that.
#[derive(Debug, PartialEq)]
enum Progress {
    Reached,
    /// It may still come.
    Waiting,
    /// It will not come by itself; the word says what the machine is instead.
    Elsewhere(&'static str),
}

pub(super) async fn wait(
    State(api): State<Api>,
    target: Target,
    query: Query,
) -> Result<Json<WaitAnswer>, ApiError> {
    let wanted = Wanted::read(&query)?;
    let timeout_s = query
        .parse("timeout", "a number of seconds")?
        .unwrap_or(TIMEOUT_S_DEFAULT);
    if !(1..=TIMEOUT_S_MAX).contains(&timeout_s) {
        return Err(ApiError::bad(format!(
            "timeout must be 1 to {TIMEOUT_S_MAX} seconds"
        )));
    }
    let timeout = Duration::from_secs(timeout_s);
    let ended = tokio::select! {
        ended = api.deps.catalog.wait_for(&target.id, timeout, |entry| {
            wanted.progress(&entry.machine) != Progress::Waiting
        }) => ended,
        () = api.drain.cancelled() => return Err(ApiError::ShuttingDown),
    };
    let entry = match ended {
        Ok(entry) => entry,
        Err(NotReached::NotFound) => return Err(ApiError::MachineNotFound),
        Err(NotReached::Late(entry)) => {
            let state = entry.machine.state;
            return Err(ApiError::WaitTimeout {
                wanted: wanted.words(),
                state,
            });
        }
    };
    if let Progress::Elsewhere(state) = wanted.progress(&entry.machine) {
        return Err(ApiError::WaitElsewhere {
            wanted: wanted.words(),
            state: state.into(),
        });
    }
    Ok(Json(WaitAnswer {
        ok: true,
        state: entry.machine.state,
        version: entry.machine.version.to_string(),
        event_id: newest_event(&entry.machine).to_owned(),
    }))
}

fn newest_event(machine: &Machine) -> &str {
    machine.events.first().map_or("", |event| &event.id)
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, ApiError> {
        let mut words = query.csv("state");
        let settled = words.contains(&"settled");
        words.retain(|word| *word != "settled");
        let mut states = states(&words)?;
        if states.is_empty() && query.csv("state").is_empty() {
            states.push(MachineState::Started);
        }
        // `instance_id` is what older clients call it.
        let text = query.get("version").or_else(|| query.get("instance_id"));
        Ok(Self {
            states,
            settled,
            version: text.map(version).transpose()?,
            from_event_id: query.get("from_event_id").map(str::to_owned),
        })
    }

    fn words(&self) -> String {
        let settled = self.settled.then_some("settled");
        let states = self.states.iter().map(|state| state.as_str());
        states.chain(settled).collect::<Vec<_>>().join(" or ")
    }

    fn progress(&self, machine: &Machine) -> Progress {
        use MachineState::{
            Created, Destroyed, Destroying, Failed, Restarting, Started, Starting, Stopped,
            Stopping, Suspended, Suspending, Updating,
        };
        let state = machine.state;
        if let Some(version) = &self.version {
            // Versions are ULIDs and sort by time.
            match version.cmp(&machine.version) {
                std::cmp::Ordering::Less => return Progress::Elsewhere("replaced"),
                std::cmp::Ordering::Greater => return Progress::Waiting,
                std::cmp::Ordering::Equal => {}
            }
        }
        let seen = self.from_event_id.as_deref().unwrap_or_default();
        if !seen.is_empty() && newest_event(machine) <= seen && state != Destroyed {
            return Progress::Waiting;
        }
        if self.states.contains(&state) || (self.settled && state.is_settled()) {
            return Progress::Reached;
        }
        let only = |wanted| self.states == [wanted] && !self.settled;
        match state {
            Destroyed => Progress::Elsewhere(state.as_str()),
            // Ended, or never came up: it is for somebody to start it again.
            Stopped | Suspended | Failed if only(Started) => Progress::Elsewhere(state.as_str()),
            // What does not run cannot be suspended.
            Stopped | Failed if only(Suspended) => Progress::Elsewhere(state.as_str()),
            Created | Starting | Started | Suspending | Suspended | Stopping | Stopped
            | Restarting | Updating | Failed | Destroying => Progress::Waiting,
        }
    }
}

#[cfg(test)]
mod tests;
