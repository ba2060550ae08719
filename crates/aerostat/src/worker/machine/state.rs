//! Where a machine stands, and what follows from that alone.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::BootId;
use types::machine::{ExitEvent, MachineState};

use super::{Effect, Machine, STOP_MARGIN};

/// Where a machine stands, with what is known there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    Created,
    /// Its images are being made ready; it has no body yet.
    Preparing {
        boot: BootId,
        #[serde(default)]
        begin: Begin,
    },
    Booting {
        boot: BootId,
        deadline: Timestamp,
        #[serde(default)]
        begin: Begin,
    },
    Started {
        boot: BootId,
        since: Timestamp,
    },
    /// Its memory is being saved.
    Suspending {
        boot: BootId,
        since: Timestamp,
        deadline: Timestamp,
        then: Then,
    },
    /// Nothing of it runs, and its memory is saved.
    Suspended,
    /// Asked to end.
    Stopping {
        boot: BootId,
        signal: Option<String>,
        kill_at: Timestamp,
        then: Then,
    },
    /// The body is over; what is left of it is being removed.
    Clearing {
        boot: BootId,
        then: Then,
    },
    /// Will be started again.
    Waiting {
        until: Timestamp,
    },
    Stopped,
    Failed {
        reason: String,
    },
    /// What it keeps on disk is being deleted.
    Destroying,
    Destroyed,
}

impl State {
    /// For crash points.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::Created => "record-created",
            Self::Preparing { .. } => "record-preparing",
            Self::Booting { .. } => "record-booting",
            Self::Started { .. } => "record-started",
            Self::Suspending { .. } => "record-suspending",
            Self::Suspended => "record-suspended",
            Self::Stopping { .. } => "record-stopping",
            Self::Clearing { .. } => "record-clearing",
            Self::Waiting { .. } => "record-waiting",
            Self::Stopped => "record-stopped",
            Self::Failed { .. } => "record-failed",
            Self::Destroying => "record-destroying",
            Self::Destroyed => "record-destroyed",
        }
    }
}

/// How a boot begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Begin {
    #[default]
    Cold,
    /// Where the boot before it was saved.
    Resume,
}

/// What comes when nothing is left of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "snake_case")]
pub(crate) enum Then {
    Stop,
    Fail {
        reason: String,
    },
    /// A restart by policy.
    Wait {
        until: Timestamp,
    },
    /// A new boot at once, because somebody asked for it.
    Boot,
    /// The same, and it was asked for in one step with the stop.
    Restart,
    /// Another configuration has taken the place of the one that this boot had.
    Update {
        launch: bool,
    },
    /// One of its processes has ended so, and the policy decides when all have.
    Follow {
        exit: ExitEvent,
        since: Timestamp,
    },
    /// Its memory stays saved.
    Suspend,
    /// A boot that goes on from the saved memory.
    Resume,
    Destroy,
}

impl Then {
    /// Whether the machine runs again without anybody asking.
    pub(super) fn is_boot(&self) -> bool {
        match self {
            Self::Wait { .. }
            | Self::Boot
            | Self::Restart
            | Self::Update { launch: true }
            | Self::Resume => true,
            Self::Stop
            | Self::Fail { .. }
            | Self::Update { launch: false }
            | Self::Follow { .. }
            | Self::Suspend
            | Self::Destroy => false,
        }
    }

    /// Whether saved memory has a use.
    pub(super) fn needs_saved(&self) -> bool {
        matches!(self, Self::Suspend | Self::Resume)
    }

    /// The word for a machine on its way there.
    fn shown(&self) -> MachineState {
        match self {
            Self::Stop
            | Self::Fail { .. }
            | Self::Wait { .. }
            | Self::Boot
            | Self::Follow { .. } => MachineState::Stopping,
            Self::Restart => MachineState::Restarting,
            Self::Update { .. } => MachineState::Updating,
            Self::Suspend | Self::Resume => MachineState::Suspending,
            Self::Destroy => MachineState::Destroying,
        }
    }
}

impl Machine {
    /// The state in the API's words. A machine that waits for its restart is `starting`: nobody
    /// has to do anything for it to come back.
    pub(crate) fn shown_state(&self) -> MachineState {
        match &self.state {
            State::Created => MachineState::Created,
            State::Preparing { .. } | State::Booting { .. } | State::Waiting { .. } => {
                MachineState::Starting
            }
            State::Started { .. } => MachineState::Started,
            State::Suspended => MachineState::Suspended,
            // One that goes when it has ended can still be told something else.
            State::Stopping {
                then: Then::Destroy,
                ..
            } => MachineState::Stopping,
            State::Suspending { then, .. }
            | State::Stopping { then, .. }
            | State::Clearing { then, .. } => then.shown(),
            State::Stopped => MachineState::Stopped,
            State::Failed { .. } => MachineState::Failed,
            State::Destroying => MachineState::Destroying,
            State::Destroyed => MachineState::Destroyed,
        }
    }

    /// When a [`super::Event::Tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let lease = self.lease.as_ref().map(|lease| lease.expires_at);
        let state = self.state_due();
        let scheduled = self.next_run.filter(|_| !self.is_going());
        state.into_iter().chain(lease).chain(scheduled).min()
    }

    /// When the state itself ends.
    pub(super) fn state_due(&self) -> Option<Timestamp> {
        match &self.state {
            State::Booting { deadline, .. } | State::Suspending { deadline, .. } => Some(*deadline),
            State::Stopping { kill_at, .. } => Some(*kill_at),
            State::Waiting { until } => Some(*until),
            State::Created
            | State::Preparing { .. }
            | State::Started { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    /// Whether it is being destroyed, or is.
    pub(super) fn is_going(&self) -> bool {
        match &self.state {
            State::Suspending { then, .. } | State::Clearing { then, .. } => *then == Then::Destroy,
            State::Stopping { then, .. } => *then == Then::Destroy,
            State::Destroying | State::Destroyed => true,
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspended
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. } => false,
        }
    }

    /// What has to be done (again) when a worker finds this machine in its ledger.
    pub(crate) fn recover(&self, now: Timestamp) -> Vec<Effect> {
        let discard = self.saved.filter(|_| !self.may_need_saved());
        let mut effects: Vec<Effect> = discard
            .map(|boot| Effect::Discard { boot })
            .into_iter()
            .collect();
        let adopt = |boot: &BootId| Effect::Adopt {
            boot: *boot,
            after: self.reports_seen,
        };
        match &self.state {
            State::Preparing { boot, .. } => effects.push(Effect::Prepare { boot: *boot }),
            State::Booting { boot, .. } | State::Started { boot, .. } => effects.push(adopt(boot)),
            State::Suspending { boot, .. } => {
                effects.extend([adopt(boot), Effect::Suspend { boot: *boot }]);
            }
            State::Stopping {
                boot,
                signal,
                kill_at,
                ..
            } => {
                let left = kill_at
                    .duration_since(now)
                    .try_into()
                    .unwrap_or(Duration::ZERO);
                let grace = left.saturating_sub(STOP_MARGIN);
                effects.extend([
                    adopt(boot),
                    Effect::Signal {
                        boot: *boot,
                        signal: signal.clone(),
                        grace,
                    },
                ]);
            }
            State::Clearing { boot, .. } => effects.push(Effect::Clear { boot: *boot }),
            State::Destroying => effects.push(Effect::Forget),
            State::Created
            | State::Suspended
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroyed => {}
        }
        effects
    }

    /// Whether the boot that is to begin goes on from saved memory.
    pub(crate) fn resumes(&self) -> bool {
        match &self.state {
            State::Preparing { begin, .. } | State::Booting { begin, .. } => {
                *begin == Begin::Resume
            }
            State::Created
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Suspended
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => false,
        }
    }

    /// Whether saved memory is needed, or what becomes of it is decided when the body is gone.
    fn may_need_saved(&self) -> bool {
        match &self.state {
            State::Preparing { begin, .. } | State::Booting { begin, .. } => {
                *begin == Begin::Resume
            }
            State::Suspending { .. }
            | State::Suspended
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Destroying
            | State::Destroyed => true,
            State::Created
            | State::Started { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. } => false,
        }
    }

    /// Whether the machine needs its memory: it runs, or will without being asked.
    pub(crate) fn holds_room(&self) -> bool {
        match self.state {
            State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. } => true,
            State::Created
            | State::Suspended
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => false,
        }
    }

    /// Whether it may have its volumes open (in its saved memory too), or will without being asked.
    pub(crate) fn holds_volumes(&self) -> bool {
        self.holds_room() || self.state == State::Suspended
    }

    /// The boot that one can reach into.
    pub(crate) fn reachable(&self) -> Option<BootId> {
        match self.state {
            State::Started { boot, .. } | State::Stopping { boot, .. } => Some(boot),
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
            | State::Suspending { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    /// The boot of which something may be on the host.
    pub(crate) fn present_boot(&self) -> Option<BootId> {
        match self.state {
            State::Clearing { boot, .. } => Some(boot),
            State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Stopping { .. } => self.body(),
            State::Created
            | State::Preparing { .. }
            | State::Suspended
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    /// The boot whose body exists, as far as this machine knows.
    pub(super) fn body(&self) -> Option<BootId> {
        match self.state {
            State::Booting { boot, .. }
            | State::Started { boot, .. }
            | State::Suspending { boot, .. }
            | State::Stopping { boot, .. } => Some(boot),
            State::Created
            | State::Preparing { .. }
            | State::Suspended
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }
}
