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
mod lease;
mod outcomes;
mod requests;
mod show;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::machine::{ContainerStatus, Event as Happened, ExitEvent, ImageIdentity};
use types::{AppName, BootId, IsolationClass, MachineId, NetworkId, SixPn, VersionId};
use vmm::Report;

use super::check::CheckedConfig;
use super::ports::Allocation;
use super::refused::Refused;
pub(crate) use create::{New, new_version};
pub(crate) use lease::LeaseChange;
pub use lease::{LEASE_TTL_MAX, Lease, LeaseRequest, Nonce, Permit};

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
    /// The last lease that was given, unless it was given back or is known to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Lease>,
    /// Services send nothing to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cordoned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) creation_key: Option<String>,
    #[serde(default)]
    pub(crate) secrets: SecretsWanted,
}

/// Which of its app's secrets a machine gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretsWanted {
    /// None at all.
    pub skip: bool,
    /// Those of at least this version; a boot waits for them.
    pub min_version: Option<u64>,
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
    Lease(LeaseChange),
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
            Event::Lease(change) => self.change_lease(now, change),
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
            Event::Tick => {
                self.expire_lease(now);
                Ok(self.tick(now))
            }
        }
    }

    /// When a [`Event::Tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let lease = self.lease.as_ref().map(|lease| lease.expires_at);
        let state = match &self.state {
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
        };
        state.into_iter().chain(lease).min()
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

    /// Whether it may have its volumes open, or will without being asked.
    pub(crate) fn holds_volumes(&self) -> bool {
        self.holds_room()
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
