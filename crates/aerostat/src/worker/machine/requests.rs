//! What somebody asks of a machine, decided state by state.

use std::time::Duration;

use jiff::Timestamp;
use types::VersionId;
use types::machine::MachineState;

use super::events::Source;
use super::{Effect, GRACE_DEFAULT, Machine, STOP_MARGIN, State, Then, Update, later};
use crate::worker::refused::Refused;
use crate::worker::volumes::{VolumeRefused, named};

impl Machine {
    pub(super) fn start(&mut self, now: Timestamp) -> Result<Vec<Effect>, Refused> {
        match &mut self.state {
            State::Created | State::Stopped | State::Failed { .. } | State::Waiting { .. } => {
                self.restarts = 0;
                let started = self.record(now, "start", MachineState::Starting, Source::User);
                Ok(vec![started, self.begin_boot()])
            }
            State::Preparing { .. } | State::Booting { .. } | State::Started { .. } => Ok(vec![]),
            State::Stopping {
                then: Then::Destroy,
                ..
            }
            | State::Clearing {
                then: Then::Destroy,
                ..
            }
            | State::Destroying
            | State::Destroyed => Err(self.wrong_state("start")),
            State::Stopping { then, .. } | State::Clearing { then, .. } => {
                if *then == Then::Boot {
                    return Ok(vec![]);
                }
                *then = Then::Boot;
                self.restarts = 0;
                Ok(vec![self.record(
                    now,
                    "start",
                    MachineState::Starting,
                    Source::User,
                )])
            }
        }
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
            State::Clearing {
                then: then @ (Then::Boot | Then::Wait { .. }),
                ..
            } => {
                *then = settled;
                Ok(vec![self.record(
                    now,
                    "stop",
                    MachineState::Stopping,
                    Source::User,
                )])
            }
            State::Clearing {
                then: Then::Stop | Then::Fail { .. },
                ..
            } => Ok(vec![]),
            State::Preparing { .. } => {
                let stop = self.record(now, "stop", MachineState::Stopped, Source::User);
                let mut effects = vec![stop, Effect::Abandon];
                effects.extend(self.settle(settled));
                Ok(effects)
            }
            State::Created | State::Waiting { .. } => {
                let mut effects =
                    vec![self.record(now, "stop", MachineState::Stopped, Source::User)];
                effects.extend(self.settle(settled));
                Ok(effects)
            }
            State::Stopped | State::Failed { .. } => Ok(vec![]),
            State::Destroying | State::Destroyed => Err(self.wrong_state("stop")),
        }
    }

    pub(super) fn update(
        &mut self,
        now: Timestamp,
        update: Update,
    ) -> Result<Vec<Effect>, Refused> {
        if let State::Stopping {
            then: Then::Destroy,
            ..
        }
        | State::Clearing {
            then: Then::Destroy,
            ..
        }
        | State::Destroying
        | State::Destroyed = self.state
        {
            return Err(self.wrong_state("update"));
        }
        if update
            .current_version
            .is_some_and(|version| version != self.version)
        {
            return Err(Refused::VersionMismatch {
                current: self.version.clone(),
            });
        }
        let changes_volumes = || !named(&self.config).eq(named(&update.config));
        if self.holds_volumes() && changes_volumes() {
            let id = self.id.clone();
            return Err(VolumeRefused::Running { id }.into());
        }
        // The running boot ends as its own configuration says.
        let (signal, grace) = self.stop_settings();
        let then = if update.launch {
            Then::Boot
        } else {
            Then::Stop
        };
        self.config = update.config;
        self.isolation = update.isolation;
        // Versions sort by time, also when the host's clock was set back.
        self.version = update.version.max(successor(&self.version));
        self.restarts = 0;
        let status = if update.launch {
            MachineState::Starting
        } else {
            self.shown_state()
        };
        let mut effects = vec![self.record(now, "update", status, Source::User)];
        match &mut self.state {
            State::Booting { .. } | State::Started { .. } => {
                effects.push(self.begin_stop(now, signal, Some(grace), then));
            }
            State::Stopping { then: pending, .. } | State::Clearing { then: pending, .. } => {
                *pending = then;
            }
            State::Preparing { .. } => {
                effects.push(Effect::Abandon);
                effects.extend(self.settle(then));
            }
            State::Waiting { .. } => effects.extend(self.settle(then)),
            State::Created | State::Stopped | State::Failed { .. } => {
                if update.launch {
                    effects.push(self.begin_boot());
                } else {
                    self.reset_containers();
                }
            }
            State::Destroying | State::Destroyed => {}
        }
        Ok(effects)
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
            State::Created | State::Stopped | State::Failed { .. } => {
                let mut effects = vec![destroy(self)];
                effects.extend(self.settle(Then::Destroy));
                Ok(effects)
            }
            State::Clearing { then, .. } => {
                *then = Then::Destroy;
                Ok(vec![destroy(self)])
            }
            State::Waiting { .. }
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Stopping { .. }
                if !force =>
            {
                Err(self.wrong_state("destroy"))
            }
            State::Waiting { .. } | State::Preparing { .. } => {
                let mut effects = vec![destroy(self), Effect::Abandon];
                effects.extend(self.settle(Then::Destroy));
                Ok(effects)
            }
            State::Booting { boot, .. }
            | State::Started { boot, .. }
            | State::Stopping { boot, .. } => {
                let boot = *boot;
                let destroy = destroy(self);
                Ok(vec![destroy, self.begin_clear(now, boot, Then::Destroy)])
            }
        }
    }
}

/// The version right after `version`.
fn successor(version: &VersionId) -> VersionId {
    let next = ulid::Ulid::from_string(version.as_str())
        .ok()
        .and_then(|ulid| ulid.increment());
    next.and_then(|ulid| ulid.to_string().parse().ok())
        .unwrap_or_else(|| version.clone())
}
