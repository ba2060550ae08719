//! One machine, as its worker sees it.
//!
//! ```text
//!  Created ──start──▶ Preparing ──images──▶ Booting ──ready──▶ Started ──stop──▶ Stopping
//!               ▲       ▲   │                  │                │    │               │
//!         resume│       │   └─no image─▶ Failed│fail            │    │exit           │exit, late
//!               │    due│                      │         suspend│    │               │
//!               │       └─────────── Waiting ◀─┼────────┐       ▼    ▼               │
//!               │                              └────▶ Clearing ◀─saved─ Suspending   │
//!               │                                       │  ▲                         │
//!               └── Suspended, Stopped, Failed, ◀───────┘  └─────────────────────────┘
//!                   Destroying                    when nothing is left of it
//! ```
//!
//! `apply` decides and never waits; the driver records what it changed and then performs what it
//! returns, in order. A new boot begins only when nothing is left of the one before, which is why
//! every end leads through `Clearing`, and `Then` says what comes after it. Nothing in this file
//! knows a VMM, SQLite or the network.

mod checks;
mod containers;
mod create;
mod events;
mod lease;
mod outcomes;
mod requests;
mod schedule;
mod show;
mod state;
mod suspend;
mod update;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::machine::MachineState;
use types::machine::{CheckStatus, ContainerStatus, Event as Happened, ExitEvent, ImageIdentity};
use types::{AppName, BootId, IsolationClass, MachineId, NetworkId, SixPn, VersionId};
use vmm::Report;

use super::check::CheckedConfig;
use super::ledger::Retired;
use super::ports::Allocation;
use super::refused::Refused;
pub(crate) use create::{New, new_version};
use events::Source;
pub(crate) use lease::LeaseChange;
pub use lease::{LEASE_TTL_MAX, Lease, LeaseRequest, Nonce, Permit};
pub(crate) use state::{Begin, State, Then};
pub use update::MetadataChange;

/// After the grace the guest kills its containers; a body that has not ended so much later is
/// killed from outside.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Time in which a machine's memory has to be saved. A slow disk takes 10 s for each GiB.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(300);
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
    /// How its checks stood last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<CheckStatus>,
    /// The boot whose memory may be saved on this host, until that is known to be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) saved: Option<BootId>,
    /// When its schedule starts it next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_run: Option<Timestamp>,
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

/// What can happen to a machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Start,
    Stop {
        signal: Option<String>,
        grace: Option<Duration>,
    },
    /// A stop and a start in one step; with `force` the stop is a kill.
    Restart {
        signal: Option<String>,
        grace: Option<Duration>,
        force: bool,
    },
    Suspend,
    Update(Box<Update>),
    Metadata(MetadataChange),
    Cordon(bool),
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
    /// The reports ended without an end.
    ShimGone {
        boot: BootId,
    },
    /// This host knows nothing of the boot.
    BootGone {
        boot: BootId,
    },
    /// Its memory could not be saved, and it goes on.
    SuspendRefused {
        boot: BootId,
        reason: String,
    },
    /// Nothing is left of the memory that this boot left behind.
    Discarded {
        boot: BootId,
    },
    /// Its schedule is due, and there is room for it or not.
    Scheduled {
        lacks: Option<String>,
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
    pub(crate) cordon: bool,
    pub(crate) secrets: SecretsWanted,
}

/// What a decision asks the driver to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Belongs into the same transaction as the new state.
    Record(Happened),
    /// The same, for the configuration that it had until now.
    Retire(Retired),
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
    /// Save its memory and end it.
    Suspend {
        boot: BootId,
    },
    /// Delete the memory that this boot left behind.
    Discard {
        boot: BootId,
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
            Event::Restart {
                signal,
                grace,
                force,
            } => self.restart(now, signal, grace, force),
            Event::Suspend => self.suspend(now),
            Event::Update(update) => self.update(now, *update),
            Event::Metadata(change) => self.change_metadata(now, change),
            Event::Cordon(cordoned) => self.cordon(now, cordoned),
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
            Event::BootGone { boot } => Ok(self.boot_gone(now, boot)),
            Event::SuspendRefused { boot, reason } => Ok(self.suspend_refused(now, boot, &reason)),
            Event::Discarded { boot } => {
                self.saved = self.saved.filter(|saved| *saved != boot);
                Ok(vec![])
            }
            Event::Scheduled { lacks } => Ok(self.scheduled(now, lacks)),
            Event::Cleared { boot } => Ok(self.cleared(now, boot)),
            Event::Forgotten => Ok(self.forgotten(now)),
            Event::Tick => {
                self.expire_lease(now);
                Ok(self.tick(now))
            }
        }
    }

    fn begin_boot(&mut self, begin: Begin) -> Effect {
        self.boots += 1;
        self.reports_seen = 0;
        match begin {
            Begin::Cold => {
                self.reset_containers();
                self.reset_checks();
            }
            // They go on as they were, with the images that they had.
            Begin::Resume => {}
        }
        let boot = BootId(self.boots);
        self.state = State::Preparing { boot, begin };
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
        if !then.needs_saved() {
            self.end_containers(now);
            self.reset_checks();
        }
        self.state = State::Clearing { boot, then };
        Effect::Clear { boot }
    }

    /// Goes on where no body is left.
    fn settle(&mut self, now: Timestamp, then: Then) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !then.needs_saved() {
            self.end_containers(now);
            self.reset_checks();
            effects.extend(self.saved.map(|boot| Effect::Discard { boot }));
        }
        match then {
            Then::Stop | Then::Update { launch: false } => self.state = State::Stopped,
            Then::Fail { reason } => self.state = State::Failed { reason },
            Then::Wait { until } => self.state = State::Waiting { until },
            Then::Boot | Then::Restart | Then::Update { launch: true } => {
                effects.push(self.begin_boot(Begin::Cold));
            }
            Then::Follow { exit, since } => {
                let follows = self.after_exit(now, Some(since), &exit);
                effects.extend(self.settle(now, follows));
            }
            Then::Suspend => {
                self.state = State::Suspended;
                effects.push(self.record(now, "suspend", MachineState::Suspended, Source::Worker));
            }
            Then::Resume => effects.push(self.begin_boot(Begin::Resume)),
            Then::Destroy => {
                self.state = State::Destroying;
                return vec![Effect::Forget];
            }
        }
        effects
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
