//! How a machine begins.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use types::machine::{Event as Happened, Placement};
use types::{HostId, IsolationClass, SixPn, VersionId};

use super::{Effect, Event, Lease, Machine, Nonce, SixPnText, State};
use crate::worker::handle::CreateRequest;
use crate::worker::ports::Allocation;

/// What a new machine was asked to be, and what it was given.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) request: CreateRequest,
    pub(crate) isolation: IsolationClass,
    pub(crate) region: String,
    pub(crate) host: HostId,
    pub(crate) allocation: Allocation,
}

/// A version. Versions of one machine sort by time.
pub(crate) fn new_version(now: Timestamp) -> VersionId {
    let unix_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let text = ulid::Ulid::from_parts(unix_ms, rand::random()).to_string();
    text.parse().expect("a ULID is a version")
}

impl Machine {
    pub(crate) fn create(given: New, now: Timestamp) -> Self {
        let New {
            request,
            isolation,
            region,
            host,
            allocation,
        } = given;
        let lease = request.lease;
        let address = SixPn::of_machine(request.network, host, allocation.field);
        let mut machine = Self {
            id: request.id,
            app: request.app,
            network: request.network,
            address: SixPnText(address),
            allocation,
            name: request.name,
            region,
            isolation,
            config: Arc::new(request.config),
            version: new_version(now),
            created_at: now,
            updated_at: now,
            state: State::Created,
            boots: 0,
            reports_seen: 0,
            restarts: 0,
            containers: Vec::new(),
            events: VecDeque::new(),
            events_count: 0,
            lease: lease.map(|lease| Lease::begin(lease, Nonce::random(), now)),
            cordoned: request.cordoned,
            creation_key: request.creation_key,
            secrets: request.secrets,
            checks: Vec::new(),
            saved: None,
            next_run: None,
        };
        machine.reset_containers();
        machine.reset_checks();
        machine.next_run = machine.run_after(now);
        machine
    }

    /// The new machine with its first events, as it is recorded: started at once if asked for.
    /// What has to be done is what a worker would do that finds it.
    pub(crate) fn launch(
        mut self,
        now: Timestamp,
        start: bool,
        placement: Option<Placement>,
    ) -> (Self, Vec<Happened>) {
        let mut effects = vec![self.record_launch(now, placement)];
        if start {
            // A created machine can always be started.
            effects.extend(self.apply(now, Event::Start).unwrap_or_default());
        }
        let events = effects.into_iter().filter_map(|effect| match effect {
            Effect::Record(event) => Some(event),
            Effect::Retire(_)
            | Effect::Prepare { .. }
            | Effect::Abandon
            | Effect::Boot { .. }
            | Effect::Adopt { .. }
            | Effect::Signal { .. }
            | Effect::Suspend { .. }
            | Effect::Discard { .. }
            | Effect::Clear { .. }
            | Effect::Forget => None,
        });
        let events = events.collect();
        (self, events)
    }
}
