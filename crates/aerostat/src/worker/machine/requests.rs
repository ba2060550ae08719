//! What somebody asks of a machine, decided state by state.

use std::time::Duration;

use jiff::Timestamp;
use types::machine::MachineState;

use super::events::Source;
use super::{Begin, Effect, GRACE_DEFAULT, Machine, STOP_MARGIN, State, Then, later};
use crate::worker::refused::Refused;

impl Machine {
    pub(super) fn start(&mut self, now: Timestamp) -> Result<Vec<Effect>, Refused> {
        if self.is_going() {
            return Err(self.wrong_state("start"));
        }
        let start = |machine: &mut Self| {
            machine.restarts = 0;
            machine.record(now, "start", MachineState::Starting, Source::User)
        };
        match &mut self.state {
            State::Created | State::Stopped | State::Failed { .. } | State::Waiting { .. } => {
                Ok(vec![start(self), self.begin_boot(Begin::Cold)])
            }
            State::Suspended => Ok(vec![start(self), self.begin_boot(Begin::Resume)]),
            State::Preparing { .. } | State::Booting { .. } | State::Started { .. } => Ok(vec![]),
            State::Suspending { then, .. }
            | State::Stopping { then, .. }
            | State::Clearing { then, .. } => {
                match then {
                    Then::Boot
                    | Then::Restart
                    | Then::Update { launch: true }
                    | Then::Resume
                    | Then::Destroy => return Ok(vec![]),
                    Then::Suspend => *then = Then::Resume,
                    Then::Update { launch } => *launch = true,
                    Then::Stop | Then::Fail { .. } | Then::Wait { .. } | Then::Follow { .. } => {
                        *then = Then::Boot;
                    }
                }
                Ok(vec![start(self)])
            }
            State::Destroying | State::Destroyed => Err(self.wrong_state("start")),
        }
    }

    /// Stops and starts in one step. One that does not run starts.
    pub(super) fn restart(
        &mut self,
        now: Timestamp,
        signal: Option<String>,
        grace: Option<Duration>,
        force: bool,
    ) -> Result<Vec<Effect>, Refused> {
        if self.is_going() {
            return Err(self.wrong_state("restart"));
        }
        self.restarts = 0;
        let mut effects = Vec::new();
        let status = match &mut self.state {
            State::Started { boot, .. }
            | State::Booting { boot, .. }
            | State::Stopping { boot, .. }
                if force =>
            {
                let boot = *boot;
                effects.push(self.record_killed(now));
                effects.push(self.begin_clear(now, boot, Then::Restart));
                MachineState::Restarting
            }
            State::Booting { .. } | State::Started { .. } => {
                effects.push(self.begin_stop(now, signal, grace, Then::Restart));
                MachineState::Restarting
            }
            State::Suspending { then, .. }
            | State::Stopping { then, .. }
            | State::Clearing { then, .. } => {
                *then = Then::Restart;
                MachineState::Restarting
            }
            State::Preparing { .. } => {
                effects.push(Effect::Abandon);
                effects.extend(self.settle(now, Then::Restart));
                MachineState::Starting
            }
            State::Created
            | State::Suspended
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. } => {
                effects.extend(self.settle(now, Then::Restart));
                MachineState::Starting
            }
            State::Destroying | State::Destroyed => return Err(self.wrong_state("restart")),
        };
        effects.insert(0, self.record(now, "restart", status, Source::User));
        Ok(effects)
    }

    pub(super) fn stop(
        &mut self,
        now: Timestamp,
        signal: Option<String>,
        grace: Option<Duration>,
    ) -> Result<Vec<Effect>, Refused> {
        let settled = self.after_last_boot();
        match &mut self.state {
            State::Booting { .. } | State::Started { .. } => {
                let stop = self.record(now, "stop", MachineState::Stopping, Source::User);
                let signal = self.begin_stop(now, signal, grace, settled);
                Ok(vec![stop, signal])
            }
            State::Stopping {
                then: Then::Destroy,
                ..
            }
            | State::Clearing {
                then: Then::Destroy,
                ..
            } => Ok(vec![]),
            State::Stopping {
                boot,
                signal: asked,
                kill_at,
                then,
            } => {
                let grace = grace.unwrap_or(GRACE_DEFAULT);
                *kill_at = (*kill_at).min(later(now, grace + STOP_MARGIN));
                asked.clone_from(&signal);
                *then = settled;
                Ok(vec![Effect::Signal {
                    boot: *boot,
                    signal,
                    grace,
                }])
            }
            State::Suspending { then, .. } | State::Clearing { then, .. } => {
                match then {
                    Then::Stop
                    | Then::Fail { .. }
                    | Then::Update { launch: false }
                    | Then::Destroy => return Ok(vec![]),
                    Then::Update { launch } => *launch = false,
                    Then::Wait { .. }
                    | Then::Boot
                    | Then::Restart
                    | Then::Follow { .. }
                    | Then::Suspend
                    | Then::Resume => *then = settled,
                }
                let stop = self.record(now, "stop", MachineState::Stopping, Source::User);
                Ok(vec![stop])
            }
            State::Preparing { .. } => {
                let stop = self.record(now, "stop", MachineState::Stopped, Source::User);
                let mut effects = vec![stop, Effect::Abandon];
                effects.extend(self.settle(now, settled));
                Ok(effects)
            }
            State::Created | State::Suspended | State::Waiting { .. } => {
                let mut effects =
                    vec![self.record(now, "stop", MachineState::Stopped, Source::User)];
                effects.extend(self.settle(now, settled));
                Ok(effects)
            }
            State::Stopped | State::Failed { .. } => Ok(vec![]),
            State::Destroying | State::Destroyed => Err(self.wrong_state("stop")),
        }
    }

    pub(super) fn destroy(&mut self, now: Timestamp, force: bool) -> Result<Vec<Effect>, Refused> {
        let destroy = |machine: &mut Self| {
            machine.record(now, "destroy", MachineState::Destroying, Source::User)
        };
        match &mut self.state {
            State::Destroying
            | State::Destroyed
            | State::Clearing {
                then: Then::Destroy,
                ..
            } => Ok(vec![]),
            State::Created | State::Suspended | State::Stopped | State::Failed { .. } => {
                let mut effects = vec![destroy(self)];
                effects.extend(self.settle(now, Then::Destroy));
                Ok(effects)
            }
            // Its body is over, unless it comes back.
            State::Clearing { then, .. } if force || !then.is_boot() => {
                *then = Then::Destroy;
                Ok(vec![destroy(self)])
            }
            State::Waiting { .. }
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
                if !force =>
            {
                Err(self.wrong_state("destroy"))
            }
            State::Waiting { .. } | State::Preparing { .. } => {
                let mut effects = vec![destroy(self), Effect::Abandon];
                effects.extend(self.settle(now, Then::Destroy));
                Ok(effects)
            }
            State::Booting { boot, .. }
            | State::Started { boot, .. }
            | State::Suspending { boot, .. }
            | State::Stopping { boot, .. }
            | State::Clearing { boot, .. } => {
                let boot = *boot;
                let destroy = destroy(self);
                Ok(vec![destroy, self.begin_clear(now, boot, Then::Destroy)])
            }
        }
    }
}
