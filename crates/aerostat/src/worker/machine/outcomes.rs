//! What became of effects and of the body, decided state by state; the restart policy.
//!
//! Every function first asks whether it is still about the boot at hand: what comes late, of a
//! boot that is over, changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use types::BootId;
use types::machine::{ExitEvent, ImageIdentity, MachineState, RestartPolicy};
use vmm::{Report, ReportEvent};

use super::events::Source;
use super::{Effect, Machine, State, Then, later, unseen_exit};

/// Retries of `on-failure` where the configuration does not say: what the Machines API documents.
const RETRIES_DEFAULT: u32 = 10;
/// A run of this length makes earlier restarts count no more (the Machines API's five minutes).
const RESTARTS_COUNTED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// First pause before a restart; doubles each time.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

impl Machine {
    pub(super) fn pulling(
        &mut self,
        now: Timestamp,
        of: BootId,
        container: &str,
        image: &str,
    ) -> Vec<Effect> {
        if self.state != (State::Preparing { boot: of }) {
            return vec![];
        }
        let message = format!("pulling image {image}");
        self.set_message(container, &message);
        vec![self.record_pull(now, message)]
    }

    pub(super) fn prepared(
        &mut self,
        now: Timestamp,
        of: BootId,
        images: Vec<ImageIdentity>,
        deadline: Timestamp,
    ) -> Vec<Effect> {
        // Else it is of a boot that was abandoned.
        if self.state != (State::Preparing { boot: of }) {
            return vec![];
        }
        self.state = State::Booting { boot: of, deadline };
        self.updated_at = now;
        self.set_images(images);
        vec![Effect::Boot { boot: of }]
    }

    pub(super) fn unprepared(
        &mut self,
        now: Timestamp,
        of: BootId,
        container: &str,
        reason: String,
    ) -> Vec<Effect> {
        if self.state != (State::Preparing { boot: of }) {
            return vec![];
        }
        self.fail_container(container, &reason);
        let failed = self.record_failure(now, &reason);
        self.state = State::Failed { reason };
        vec![failed]
    }

    pub(super) fn reported(&mut self, now: Timestamp, boot: BootId, report: Report) -> Vec<Effect> {
        // A late report of an earlier boot, or one that was seen before a restart of the worker.
        if self.body() != Some(boot) || report.seq <= self.reports_seen {
            return vec![];
        }
        self.reports_seen = report.seq;
        match report.event {
            ReportEvent::Ready => {
                if let State::Booting { .. } = self.state {
                    self.state = State::Started { boot, since: now };
                    return vec![self.record(now, "start", MachineState::Started, Source::Worker)];
                }
                vec![]
            }
            ReportEvent::Container(report) => {
                self.updated_at = now;
                self.set_container(report);
                vec![]
            }
            // Nothing asks for checks or for a suspension yet.
            ReportEvent::Health(_) => vec![],
            ReportEvent::Suspended => self.body_lost(
                now,
                boot,
                "the machine was saved, which nobody asked for".into(),
            ),
            ReportEvent::Failed { reason } => self.body_lost(now, boot, reason),
            ReportEvent::Exited { exit } => self.exited(now, boot, exit),
        }
    }

    pub(super) fn exited(
        &mut self,
        now: Timestamp,
        boot: BootId,
        mut exit: ExitEvent,
    ) -> Vec<Effect> {
        let then = match &self.state {
            State::Stopping { then, .. } => {
                exit.requested_stop = true;
                then.clone()
            }
            State::Started { since, .. } => {
                let since = *since;
                let failed = exit.exit_code != 0 || exit.oom_killed;
                self.restart(now, Some(since), failed)
                    .unwrap_or_else(|| self.after_last_boot())
            }
            State::Booting { .. } => {
                let failed = exit.exit_code != 0 || exit.oom_killed;
                self.restart(now, None, failed)
                    .unwrap_or_else(|| self.after_last_boot())
            }
            State::Created
            | State::Preparing { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => return vec![],
        };
        exit.restarting = matches!(then, Then::Boot | Then::Wait { .. });
        let recorded = self.record_exit(now, exit);
        vec![recorded, self.begin_clear(now, boot, then)]
    }

    /// The body never became ready, or is gone and nobody saw how it ended.
    pub(super) fn body_lost(&mut self, now: Timestamp, of: BootId, reason: String) -> Vec<Effect> {
        if self.body() != Some(of) {
            return vec![];
        }
        match &self.state {
            State::Booting { .. } => {
                let then = self.restart(now, None, true);
                let then = then.unwrap_or_else(|| Then::Fail {
                    reason: reason.clone(),
                });
                let failed = self.record_failure(now, &reason);
                vec![failed, self.begin_clear(now, of, then)]
            }
            State::Started { .. } | State::Stopping { .. } => {
                self.exited(now, of, unseen_exit(now))
            }
            State::Created
            | State::Preparing { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => vec![],
        }
    }

    pub(super) fn cleared(&mut self, now: Timestamp, of: BootId) -> Vec<Effect> {
        let State::Clearing { boot, then } = &self.state else {
            return vec![];
        };
        if *boot != of {
            return vec![];
        }
        let then = then.clone();
        self.updated_at = now;
        self.settle(then)
    }

    pub(super) fn forgotten(&mut self, now: Timestamp) -> Vec<Effect> {
        if self.state != State::Destroying {
            return vec![];
        }
        self.state = State::Destroyed;
        self.lease = None;
        vec![self.record(now, "destroy", MachineState::Destroyed, Source::Worker)]
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        if self.due().is_none_or(|due| now < due) {
            return vec![];
        }
        match self.state {
            State::Booting { boot, .. } => {
                self.body_lost(now, boot, "it was not ready in time".into())
            }
            State::Stopping { boot, .. } => self.exited(now, boot, unseen_exit(now)),
            State::Waiting { .. } => {
                let restart = self.record(now, "restart", MachineState::Starting, Source::Worker);
                vec![restart, self.begin_boot()]
            }
            State::Created
            | State::Preparing { .. }
            | State::Started { .. }
            | State::Clearing { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => vec![],
        }
    }

    /// Whether the restart policy wants another boot, and counts it.
    fn restart(&mut self, now: Timestamp, since: Option<Timestamp>, failed: bool) -> Option<Then> {
        if since.is_some_and(|since| now.duration_since(since) >= RESTARTS_COUNTED_WITHIN) {
            self.restarts = 0;
        }
        let restart = self.config.restart();
        let retries_max = match restart.policy {
            RestartPolicy::No => return None,
            RestartPolicy::OnFailure if !failed => return None,
            RestartPolicy::OnFailure => restart.max_retries.unwrap_or(RETRIES_DEFAULT),
            RestartPolicy::Always => restart.max_retries.unwrap_or(u32::MAX),
        };
        if self.restarts >= retries_max {
            return None;
        }
        let pause = BACK_OFF_MIN * 2u32.saturating_pow(self.restarts.min(16));
        self.restarts = self.restarts.saturating_add(1);
        Some(Then::Wait {
            until: later(now, pause.min(BACK_OFF_MAX)),
        })
    }
}
