//! A machine whose memory is saved, so that a later boot goes on where it stood.
//!
//! The saved memory belongs to the disks as they were at that moment, so it is used at most once:
//! it is deleted when a boot goes on from it, fails to, or begins without it. `Machine::saved` says
//! that there may be some, until its deletion is recorded.

use jiff::Timestamp;
use types::machine::MachineState;
use types::{BootId, IsolationClass};
use vmm::VmmError;

use super::events::Source;
use super::{Effect, Machine, SUSPEND_TIMEOUT, State, Then, later};
use crate::worker::refused::Refused;

impl Machine {
    pub(super) fn suspend(&mut self, now: Timestamp) -> Result<Vec<Effect>, Refused> {
        match &mut self.state {
            State::Started { boot, since } => {
                let (boot, since) = (*boot, *since);
                match self.isolation {
                    IsolationClass::Microvm | IsolationClass::Emulated => {}
                    class @ IsolationClass::Container => {
                        let (id, source) = (self.id.clone(), VmmError::CannotSuspend { class });
                        return Err(Refused::Vmm { id, source });
                    }
                }
                self.state = State::Suspending {
                    boot,
                    since,
                    deadline: later(now, SUSPEND_TIMEOUT),
                    then: Then::Suspend,
                };
                self.saved = Some(boot);
                let suspending =
                    self.record(now, "suspend", MachineState::Suspending, Source::User);
                Ok(vec![suspending, Effect::Suspend { boot }])
            }
            State::Suspending { then, .. } | State::Clearing { then, .. } if then.needs_saved() => {
                *then = Then::Suspend;
                Ok(vec![])
            }
            State::Suspended => Ok(vec![]),
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Suspending { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => Err(self.wrong_state("suspend")),
        }
    }

    /// The VMM says that the memory is saved and the body gone.
    pub(super) fn saved(&mut self, now: Timestamp, boot: BootId) -> Vec<Effect> {
        self.saved = Some(boot);
        let then = match &self.state {
            State::Suspending { then, .. } | State::Stopping { then, .. } => match then {
                // Its process had ended before, and nothing can say how the others would have.
                Then::Follow { exit, since } => {
                    let (exit, since) = (exit.clone(), *since);
                    self.after_exit(now, Some(since), &exit)
                }
                Then::Stop
                | Then::Fail { .. }
                | Then::Wait { .. }
                | Then::Boot
                | Then::Restart
                | Then::Update { .. }
                | Then::Suspend
                | Then::Resume
                | Then::Destroy => then.clone(),
            },
            // The worker that asked for it did not live to hear of it.
            State::Started { .. } => Then::Suspend,
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => {
                return self.body_lost(now, boot, "it was saved before it was ready".into());
            }
        };
        vec![self.begin_clear(now, boot, then)]
    }

    pub(super) fn suspend_refused(
        &mut self,
        now: Timestamp,
        of: BootId,
        reason: &str,
    ) -> Vec<Effect> {
        let State::Suspending {
            boot, since, then, ..
        } = &self.state
        else {
            return vec![];
        };
        if *boot != of {
            return vec![];
        }
        let (boot, since, then) = (*boot, *since, then.clone());
        let message = format!("cannot be suspended: {reason}");
        self.state = State::Started { boot, since };
        let refused = self.record_why(
            now,
            "suspend",
            MachineState::Started,
            Source::Worker,
            message,
        );
        let mut effects = vec![refused, Effect::Discard { boot }];
        if !then.needs_saved() {
            effects.push(self.begin_stop(now, None, None, then));
        }
        effects
    }

    /// A boot that should have gone on from the saved memory came to nothing: the next one begins
    /// afresh, and does not count as a restart.
    pub(super) fn resume_failed(
        &mut self,
        now: Timestamp,
        of: BootId,
        reason: &str,
    ) -> Vec<Effect> {
        let message = format!("cannot resume, so it starts afresh: {reason}");
        let failed = self.record_why(
            now,
            "start",
            MachineState::Starting,
            Source::Worker,
            message,
        );
        vec![failed, self.begin_clear(now, of, Then::Boot)]
    }
}
