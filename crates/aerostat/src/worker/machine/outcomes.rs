//! What became of effects and of the body, decided state by state; the restart policy.
//!
//! Every function first asks whether it is still about the boot at hand: what comes late, of a
//! boot that is over, changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use types::BootId;
use types::guest::{ContainerReport, ContainerReportState};
use types::machine::{ExitEvent, ImageIdentity, MachineState, RestartPolicy};
use vmm::{Report, ReportEvent};

use super::events::Source;
use super::{Begin, Effect, Machine, State, Then, later, unseen_exit};

/// Retries of `on-failure` where the configuration does not say: what the Machines API documents.
const RETRIES_DEFAULT: u32 = 10;
/// A run of this length makes earlier restarts count no more (the Machines API's five minutes).
const RESTARTS_COUNTED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// What a shell says of a program that it cannot run.
const NOT_RUN: i32 = 127;
/// Where a boot was expected.
const GONE: &str = "nothing is left of it on this host";
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
        if self.preparing(of).is_none() {
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
        let Some(begin) = self.preparing(of) else {
            return vec![];
        };
        if begin == Begin::Resume && !self.has_images(&images) {
            let reason = "another image has its name now";
            let abandoned = self.resume_failed(now, of, reason);
            return abandoned;
        }
        self.state = State::Booting {
            boot: of,
            deadline,
            begin,
        };
        self.updated_at = now;
        self.set_images(images);
        vec![Effect::Boot { boot: of }]
    }

    /// How the boot is to begin whose images are being made ready; `None` if that was abandoned.
    fn preparing(&self, of: BootId) -> Option<Begin> {
        match self.state {
            State::Preparing { boot, begin } if boot == of => Some(begin),
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Suspended
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    pub(super) fn unprepared(
        &mut self,
        now: Timestamp,
        of: BootId,
        container: &str,
        reason: String,
    ) -> Vec<Effect> {
        match self.preparing(of) {
            None => vec![],
            // Nothing is lost: the next start tries again.
            Some(Begin::Resume) => {
                self.state = State::Suspended;
                let (status, source) = (MachineState::Suspended, Source::Worker);
                vec![self.record_why(now, "start", status, source, reason)]
            }
            Some(Begin::Cold) => {
                self.fail_container(container, &reason);
                let failed = self.record_failure(now, &reason);
                self.state = State::Failed { reason };
                vec![failed]
            }
        }
    }

    pub(super) fn reported(&mut self, now: Timestamp, boot: BootId, report: Report) -> Vec<Effect> {
        // A late report of an earlier boot, or one that was seen before a restart of the worker.
        if self.body() != Some(boot) || report.seq <= self.reports_seen {
            return vec![];
        }
        self.reports_seen = report.seq;
        match report.event {
            ReportEvent::Ready => self.ready(now, boot),
            ReportEvent::Container(report) => {
                self.updated_at = now;
                let end = self.end_of_process(now, &report);
                self.set_container(report);
                end.map(|then| self.begin_stop(now, None, None, then))
                    .into_iter()
                    .collect()
            }
            ReportEvent::Health(report) => {
                self.set_check(now, report);
                vec![]
            }
            ReportEvent::Suspended => self.saved(now, boot),
            ReportEvent::Failed { reason } => self.body_lost(now, boot, reason),
            ReportEvent::Exited { exit } => self.exited(now, boot, exit, String::new()),
        }
    }

    fn ready(&mut self, now: Timestamp, boot: BootId) -> Vec<Effect> {
        let State::Booting { begin, .. } = self.state else {
            return vec![];
        };
        self.state = State::Started { boot, since: now };
        let (status, source) = (MachineState::Started, Source::Worker);
        match begin {
            Begin::Cold => vec![self.record(now, "start", status, source)],
            Begin::Resume => {
                let message = "it goes on where it was suspended".to_owned();
                let started = self.record_why(now, "start", status, source, message);
                let discard = self.saved.map(|boot| Effect::Discard { boot });
                [started].into_iter().chain(discard).collect()
            }
        }
    }

    /// A machine of several processes ends when one of them has, for good.
    fn end_of_process(&self, now: Timestamp, report: &ContainerReport) -> Option<Then> {
        let State::Started { since, .. } = self.state else {
            return None;
        };
        if self.config.as_given().processes.is_empty() {
            return None;
        }
        let exit = match &report.state {
            ContainerReportState::Exited {
                exit,
                restart_after_ms: None,
            } => exit.clone(),
            ContainerReportState::Failed {
                reason: _,
                restart_after_ms: None,
            } => ExitEvent {
                exit_code: NOT_RUN,
                guest_exit_code: NOT_RUN,
                exited_at: now,
                ..ExitEvent::default()
            },
            ContainerReportState::Started { .. }
            | ContainerReportState::Exited { .. }
            | ContainerReportState::Failed { .. } => return None,
        };
        Some(Then::Follow { exit, since })
    }

    /// What follows a boot that has ended so by itself.
    pub(super) fn after_exit(
        &mut self,
        now: Timestamp,
        since: Option<Timestamp>,
        exit: &ExitEvent,
    ) -> Then {
        let failed = exit.exit_code != 0 || exit.oom_killed;
        self.restart_by_policy(now, since, failed)
            .unwrap_or_else(|| self.after_last_boot())
    }

    /// The body has ended; `why` says more than the exit where nobody saw it.
    pub(super) fn exited(
        &mut self,
        now: Timestamp,
        boot: BootId,
        mut exit: ExitEvent,
        mut why: String,
    ) -> Vec<Effect> {
        let then = match self.state.clone() {
            State::Stopping {
                then: Then::Follow { exit: first, since },
                ..
            } => {
                exit = first;
                self.after_exit(now, Some(since), &exit)
            }
            State::Suspending { then, since, .. } if then.needs_saved() => {
                self.after_exit(now, Some(since), &exit)
            }
            State::Stopping { then, .. } | State::Suspending { then, .. } => {
                exit.requested_stop = true;
                then
            }
            State::Started { since, .. } => self.after_exit(now, Some(since), &exit),
            State::Booting {
                begin: Begin::Resume,
                ..
            } => return self.resume_failed(now, boot, "it ended before it was ready"),
            State::Booting {
                begin: Begin::Cold, ..
            } => self.after_exit(now, None, &exit),
            State::Created
            | State::Preparing { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => return vec![],
        };
        exit.restarting = then.is_boot();
        let has_failed = !exit.requested_stop && (exit.exit_code != 0 || exit.oom_killed);
        if has_failed && !exit.restarting && self.restarts > 0 && why.is_empty() {
            why = format!("not started again after {} restarts", self.restarts);
        }
        let recorded = self.record_exit(now, exit, why);
        vec![recorded, self.begin_clear(now, boot, then)]
    }

    /// The body never became ready, or is gone and nobody saw how it ended.
    pub(super) fn body_lost(&mut self, now: Timestamp, of: BootId, reason: String) -> Vec<Effect> {
        if self.body() != Some(of) {
            return vec![];
        }
        match &self.state {
            State::Booting {
                begin: Begin::Resume,
                ..
            } => self.resume_failed(now, of, &reason),
            State::Booting {
                begin: Begin::Cold, ..
            } => {
                let then = self.restart_by_policy(now, None, true);
                let then = then.unwrap_or_else(|| Then::Fail {
                    reason: reason.clone(),
                });
                let failed = self.record_failure(now, &reason);
                vec![failed, self.begin_clear(now, of, then)]
            }
            State::Started { .. } | State::Suspending { .. } | State::Stopping { .. } => {
                self.exited(now, of, unseen_exit(now), reason)
            }
            State::Created
            | State::Preparing { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => vec![],
        }
    }

    /// This host knows nothing of the boot: the worker died before it had begun it, or the host was
    /// started again. A boot that was only about to begin begins anew, and that does not count as
    /// a restart.
    pub(super) fn boot_gone(&mut self, now: Timestamp, of: BootId) -> Vec<Effect> {
        match self.state {
            State::Booting {
                boot,
                begin: Begin::Cold,
                ..
            } if boot == of => vec![self.begin_clear(now, of, Then::Boot)],
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Suspended
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => self.body_lost(now, of, GONE.into()),
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
        self.settle(now, then)
    }

    pub(super) fn forgotten(&mut self, now: Timestamp) -> Vec<Effect> {
        if self.state != State::Destroying {
            return vec![];
        }
        self.state = State::Destroyed;
        self.lease = None;
        self.saved = None;
        self.next_run = None;
        vec![self.record(now, "destroy", MachineState::Destroyed, Source::Worker)]
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        if !self.is_scheduled_now(now) {
            // It runs, or rests in a way that its schedule does not end.
            self.skip_run(now);
        }
        if self.state_due().is_none_or(|due| now < due) {
            return vec![];
        }
        match self.state {
            State::Booting { boot, .. } => {
                self.body_lost(now, boot, "it was not ready in time".into())
            }
            State::Suspending { boot, .. } => {
                self.body_lost(now, boot, "its memory was not saved in time".into())
            }
            State::Stopping { boot, .. } => {
                let why = "it did not end in time and was killed".to_owned();
                self.exited(now, boot, unseen_exit(now), why)
            }
            State::Waiting { .. } => {
                let restart = self.record(now, "restart", MachineState::Starting, Source::Worker);
                vec![restart, self.begin_boot(Begin::Cold)]
            }
            State::Created
            | State::Preparing { .. }
            | State::Started { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => vec![],
        }
    }

    /// Whether the restart policy wants another boot, and counts it.
    fn restart_by_policy(
        &mut self,
        now: Timestamp,
        since: Option<Timestamp>,
        failed: bool,
    ) -> Option<Then> {
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
