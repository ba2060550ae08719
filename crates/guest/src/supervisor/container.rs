//! One container of the machine: what it is doing, and what was asked of it.

use std::time::Duration;

use types::guest::{ContainerReport, ContainerReportState};
use types::machine::ExitEvent;

use super::event::{Effect, Now};
use super::settings::Settings;

/// Exit code of a container that could not be started: what a shell says of such a command.
pub(super) const CANNOT_START: i32 = 127;

#[derive(Debug)]
pub(super) struct Container {
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) run: u32,
    /// Restarts since the last long run.
    pub(super) retries: u32,
    pub(super) was_started: bool,
    pub(super) has_succeeded: bool,
    /// Whether all of its checks have passed at some time.
    pub(super) was_healthy: bool,
}

#[derive(Debug)]
pub(super) enum State {
    Pending,
    Starting,
    Running {
        pid: i32,
        since: Duration,
        asked: Asked,
    },
    BackingOff {
        until: Duration,
        /// Reported again if the restart is called off.
        past: ContainerReportState,
    },
    Ended,
}

/// What a running container was told about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Signalled,
    /// Signalled because a check is critical; whatever its exit, that is a failure.
    Unhealthy {
        kill_at: Duration,
    },
    Killed,
}

impl Container {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Pending,
            run: 0,
            retries: 0,
            was_started: false,
            has_succeeded: false,
            was_healthy: false,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When it is to be killed for not ending after a check had become critical.
    pub(super) fn kill_at(&self) -> Option<Duration> {
        match self.state {
            State::Running {
                asked: Asked::Unhealthy { kill_at },
                ..
            } => Some(kill_at),
            State::Running { .. }
            | State::Pending
            | State::Starting
            | State::BackingOff { .. }
            | State::Ended => None,
        }
    }

    pub(super) fn report(&self, state: ContainerReportState) -> Effect {
        Effect::Report(ContainerReport {
            container: self.settings.name.clone(),
            run: self.run,
            state,
        })
    }
}

pub(super) fn cannot_start(now: Now, requested_stop: bool) -> ExitEvent {
    ExitEvent {
        exit_code: CANNOT_START,
        requested_stop,
        exited_at: now.unix,
        ..ExitEvent::default()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
