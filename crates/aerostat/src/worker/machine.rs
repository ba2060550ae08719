//! One machine, as its worker sees it.
//!
//! ```text
//!  Created ──start──▶ Preparing ──images──▶ Booting ──ready──▶ Started ──stop──▶ Stopping
//!                       ▲   │                  │                  │                  │
//!                       │   └─no image─▶ Failed│fail              │exit              │exit, late
//!                    due│                      └──────────────▶ Clearing ◀───────────┘
//!                       └─────────── Waiting ◀──restart policy─────┤
//!                                    Stopped, Failed, Destroying ◀─┘ when nothing is left of it
//! ```
//!
//! `apply` decides and never waits; the driver records what it changed and then performs what it
//! returns, in order. A new boot begins only when nothing is left of the one before, which is why
//! every end leads through `Clearing`. Nothing in this file knows a VMM, SQLite or the network.

mod containers;
mod create;
mod events;
mod show;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use types::machine::{
    ContainerStatus, Event as Happened, ExitEvent, ImageIdentity, MachineState, RestartPolicy,
};
use types::{AppName, BootId, IsolationClass, MachineId, NetworkId, SixPn, VersionId};
use vmm::{Report, ReportEvent};

use super::check::CheckedConfig;
use super::ports::Allocation;
use super::refused::Refused;
pub(crate) use create::{New, new_version};
use events::Source;

/// Retries of `on-failure` where the configuration does not say: what the Machines API documents.
const RETRIES_DEFAULT: u32 = 10;
/// A run of this length makes earlier restarts count no more (the Machines API's five minutes).
const RESTARTS_COUNTED_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// First pause before a restart; doubles each time.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// After the grace the guest kills its containers; a body that has not ended so much later is
/// killed from outside.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Grace of a stop where nobody says: the Machines API's default.
const GRACE_DEFAULT: Duration = Duration::from_secs(5);

/// A machine: what the ledger keeps of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) id: MachineId,
    pub(crate) app: AppName,
    pub(crate) network: NetworkId,
    pub(crate) address: SixPnText,
    pub(crate) allocation: Allocation,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) isolation: IsolationClass,
    pub(crate) config: Arc<CheckedConfig>,
    pub(crate) version: VersionId,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) state: State,
    /// Number of the newest boot; 0: none yet.
    pub(crate) boots: u64,
    /// Reports of the newest boot that are already in here.
    pub(crate) reports_seen: u64,
    /// Restarts by policy since somebody last asked for something.
    pub(crate) restarts: u32,
    pub(crate) containers: Vec<ContainerStatus>,
    /// Newest first; the last [`events::SHOWN_MAX`].
    pub(crate) events: VecDeque<Happened>,
    /// Events so far.
    pub(crate) events_count: u32,
}

/// The fields of a 6PN address, as text in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "std::net::Ipv6Addr", into = "std::net::Ipv6Addr")]
pub(crate) struct SixPnText(pub(crate) SixPn);

impl TryFrom<std::net::Ipv6Addr> for SixPnText {
    type Error = String;
    fn try_from(address: std::net::Ipv6Addr) -> Result<Self, String> {
        let fields = SixPn::from_addr(address);
        fields
            .map(Self)
            .ok_or_else(|| format!("{address} is not the address of a machine"))
    }
}

impl From<SixPnText> for std::net::Ipv6Addr {
    fn from(address: SixPnText) -> Self {
        address.0.addr()
    }
}

/// Where a machine stands, with what is known there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    Created,
    /// Its images are being made ready; it has no body yet.
    Preparing {
        boot: BootId,
    },
    Booting {
        boot: BootId,
        deadline: Timestamp,
    },
    Started {
        boot: BootId,
        since: Timestamp,
    },
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
    Destroy,
}

/// What can happen to a machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Start,
    Stop {
        signal: Option<String>,
        grace: Option<Duration>,
    },
    Update(Box<Update>),
    Destroy {
        force: bool,
    },
    /// A container's image is not on this host and is being pulled.
    Pulling {
        boot: BootId,
        container: String,
        image: String,
    },
    /// Its images are ready: one identity for each container, in order.
    Prepared {
        boot: BootId,
        images: Vec<ImageIdentity>,
        deadline: Timestamp,
    },
    /// An image could not be had.
    Unprepared {
        boot: BootId,
        container: String,
        reason: String,
    },
    /// The body could not be started at all.
    BootRefused {
        boot: BootId,
        reason: String,
    },
    Reported {
        boot: BootId,
        report: Report,
    },
    /// The reports ended without an end, or nobody knows the boot.
    ShimGone {
        boot: BootId,
    },
    /// Nothing is left of the boot.
    Cleared {
        boot: BootId,
    },
    /// Nothing is left of the machine.
    Forgotten,
    /// Time has passed.
    Tick,
}

/// A new configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub(crate) config: Arc<CheckedConfig>,
    pub(crate) isolation: IsolationClass,
    pub(crate) version: VersionId,
    pub(crate) launch: bool,
    pub(crate) current_version: Option<VersionId>,
}

/// What a decision asks the driver to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Belongs into the same transaction as the new state.
    Record(Happened),
    /// Make the images ready.
    Prepare {
        boot: BootId,
    },
    /// Stop making them ready.
    Abandon,
    Boot {
        boot: BootId,
    },
    /// Listen to a boot of an earlier worker.
    Adopt {
        boot: BootId,
        after: u64,
    },
    Signal {
        boot: BootId,
        signal: Option<String>,
        grace: Duration,
    },
    /// Kill what is left of the boot and take its link away.
    Clear {
        boot: BootId,
    },
    /// Delete what the machine keeps.
    Forget,
}

impl Machine {
    /// Decides what `event` means. On refusal nothing has changed.
    pub(crate) fn apply(&mut self, now: Timestamp, event: Event) -> Result<Vec<Effect>, Refused> {
        match event {
            Event::Start => self.start(now),
            Event::Stop { signal, grace } => self.stop(now, signal, grace),
            Event::Update(update) => self.update(now, *update),
            Event::Destroy { force } => self.destroy(now, force),
            Event::Pulling {
                boot,
                container,
                image,
            } => Ok(self.pulling(now, boot, &container, &image)),
            Event::Prepared {
                boot,
                images,
                deadline,
            } => Ok(self.prepared(now, boot, images, deadline)),
            Event::Unprepared {
                boot,
                container,
                reason,
            } => Ok(self.unprepared(now, boot, &container, reason)),
            Event::BootRefused { boot, reason } => Ok(self.body_lost(now, boot, reason)),
            Event::Reported { boot, report } => Ok(self.reported(now, boot, report)),
            Event::ShimGone { boot } => Ok(self.body_lost(
                now,
                boot,
                "the machine's supervising process is gone".into(),
            )),
            Event::Cleared { boot } => Ok(self.cleared(now, boot)),
            Event::Forgotten => Ok(self.forgotten(now)),
            Event::Tick => Ok(self.tick(now)),
        }
    }

    /// When a [`Event::Tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        match &self.state {
            State::Booting { deadline, .. } => Some(*deadline),
            State::Stopping { kill_at, .. } => Some(*kill_at),
            State::Waiting { until } => Some(*until),
            State::Created
            | State::Preparing { .. }
            | State::Started { .. }
            | State::Clearing { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    /// What has to be done (again) when a worker finds this machine in its ledger.
    pub(crate) fn recover(&self, now: Timestamp) -> Vec<Effect> {
        let adopt = |boot: &BootId| Effect::Adopt {
            boot: *boot,
            after: self.reports_seen,
        };
        match &self.state {
            State::Preparing { boot } => vec![Effect::Prepare { boot: *boot }],
            State::Booting { boot, .. } | State::Started { boot, .. } => vec![adopt(boot)],
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
                vec![
                    adopt(boot),
                    Effect::Signal {
                        boot: *boot,
                        signal: signal.clone(),
                        grace,
                    },
                ]
            }
            State::Clearing { boot, .. } => vec![Effect::Clear { boot: *boot }],
            State::Destroying => vec![Effect::Forget],
            State::Created
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroyed => Vec::new(),
        }
    }

    /// Whether the machine needs its memory: it runs, or will without being asked.
    pub(crate) fn holds_room(&self) -> bool {
        match self.state {
            State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. } => true,
            State::Created
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => false,
        }
    }

    /// The boot that one can reach into.
    pub(crate) fn reachable(&self) -> Option<BootId> {
        match self.state {
            State::Started { boot, .. } | State::Stopping { boot, .. } => Some(boot),
            State::Created
            | State::Preparing { .. }
            | State::Booting { .. }
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
            State::Booting { .. } | State::Started { .. } | State::Stopping { .. } => self.body(),
            State::Created
            | State::Preparing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    fn start(&mut self, now: Timestamp) -> Result<Vec<Effect>, Refused> {
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

    fn stop(
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

    fn update(&mut self, now: Timestamp, update: Update) -> Result<Vec<Effect>, Refused> {
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

    fn destroy(&mut self, now: Timestamp, force: bool) -> Result<Vec<Effect>, Refused> {
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

    fn pulling(&mut self, now: Timestamp, of: BootId, container: &str, image: &str) -> Vec<Effect> {
        if self.state != (State::Preparing { boot: of }) {
            return vec![];
        }
        let message = format!("pulling image {image}");
        self.set_message(container, &message);
        vec![self.record_pull(now, message)]
    }

    fn prepared(
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

    fn unprepared(
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

    /// The boot whose body exists, as far as this machine knows.
    fn body(&self) -> Option<BootId> {
        match self.state {
            State::Booting { boot, .. }
            | State::Started { boot, .. }
            | State::Stopping { boot, .. } => Some(boot),
            State::Created
            | State::Preparing { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Stopped
            | State::Failed { .. }
            | State::Destroying
            | State::Destroyed => None,
        }
    }

    fn reported(&mut self, now: Timestamp, boot: BootId, report: Report) -> Vec<Effect> {
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
            ReportEvent::Failed { reason } => self.body_lost(now, boot, reason),
            ReportEvent::Exited { exit } => self.exited(now, boot, exit),
        }
    }

    fn exited(&mut self, now: Timestamp, boot: BootId, mut exit: ExitEvent) -> Vec<Effect> {
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
    fn body_lost(&mut self, now: Timestamp, of: BootId, reason: String) -> Vec<Effect> {
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

    fn cleared(&mut self, now: Timestamp, of: BootId) -> Vec<Effect> {
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

    fn forgotten(&mut self, now: Timestamp) -> Vec<Effect> {
        if self.state != State::Destroying {
            return vec![];
        }
        self.state = State::Destroyed;
        vec![self.record(now, "destroy", MachineState::Destroyed, Source::Worker)]
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
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

    fn begin_boot(&mut self) -> Effect {
        self.boots += 1;
        self.reports_seen = 0;
        self.reset_containers();
        let boot = BootId(self.boots);
        self.state = State::Preparing { boot };
        Effect::Prepare { boot }
    }

    fn begin_stop(
        &mut self,
        now: Timestamp,
        signal: Option<String>,
        grace: Option<Duration>,
        then: Then,
    ) -> Effect {
        let boot = BootId(self.boots);
        let (own_signal, own_grace) = self.stop_settings();
        let (signal, grace) = (signal.or(own_signal), grace.unwrap_or(own_grace));
        let kill_at = later(now, grace + STOP_MARGIN);
        self.state = State::Stopping {
            boot,
            signal: signal.clone(),
            kill_at,
            then,
        };
        Effect::Signal {
            boot,
            signal,
            grace,
        }
    }

    fn begin_clear(&mut self, now: Timestamp, boot: BootId, then: Then) -> Effect {
        self.end_containers(now);
        self.state = State::Clearing { boot, then };
        Effect::Clear { boot }
    }

    /// Goes on where no body is left.
    fn settle(&mut self, then: Then) -> Vec<Effect> {
        match then {
            Then::Stop => self.state = State::Stopped,
            Then::Fail { reason } => self.state = State::Failed { reason },
            Then::Wait { until } => self.state = State::Waiting { until },
            Then::Boot => return vec![self.begin_boot()],
            Then::Destroy => {
                self.state = State::Destroying;
                return vec![Effect::Forget];
            }
        }
        vec![]
    }

    /// What follows the last boot for now.
    fn after_last_boot(&self) -> Then {
        if self.config.as_given().auto_destroy {
            Then::Destroy
        } else {
            Then::Stop
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

    /// Signal and grace of a stop for which nobody says how: the machine's own, else the longest
    /// grace of its containers.
    fn stop_settings(&self) -> (Option<String>, Duration) {
        let config = self.config.as_given();
        let own = config.stop_config.clone().unwrap_or_default();
        let containers = config
            .containers
            .iter()
            .filter_map(|c| c.stop.as_ref()?.timeout)
            .max();
        let grace = own
            .timeout
            .or(containers)
            .map_or(GRACE_DEFAULT, |grace| grace.0);
        (own.signal, grace)
    }

    fn wrong_state(&self, verb: &'static str) -> Refused {
        Refused::WrongState {
            verb,
            state: self.shown_state(),
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

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The end of a body that nobody saw: 137, which is what a killed one would have left.
fn unseen_exit(now: Timestamp) -> ExitEvent {
    ExitEvent {
        exit_code: 137,
        guest_signal: 9,
        signal: 9,
        exited_at: now,
        ..ExitEvent::default()
    }
}

#[cfg(test)]
mod tests;
