//! What happened to a machine, in the words of the Machines API.

use jiff::Timestamp;
use types::machine::{Event, EventRequest, ExitEvent, MachineState, Placement};

use super::{Effect, Machine, unseen_exit};

/// Events that a machine shows; the ledger keeps more.
pub(crate) const SHOWN_MAX: usize = 20;

/// Who wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    User,
    Worker,
}

impl Machine {
    /// The event of a new machine.
    pub(crate) fn record_launch(&mut self, now: Timestamp, placement: Option<Placement>) -> Effect {
        let request = placement.map(|placement| EventRequest {
            placement: Some(placement),
            ..EventRequest::default()
        });
        self.push(now, "launch", MachineState::Created, Source::User, request)
    }

    pub(super) fn record(
        &mut self,
        now: Timestamp,
        kind: &str,
        status: MachineState,
        source: Source,
    ) -> Effect {
        let request = (self.restarts > 0).then(|| EventRequest {
            restart_count: self.restarts,
            ..EventRequest::default()
        });
        self.push(now, kind, status, source, request)
    }

    /// The same, with a reason for people.
    pub(super) fn record_why(
        &mut self,
        now: Timestamp,
        kind: &str,
        status: MachineState,
        source: Source,
        message: String,
    ) -> Effect {
        let request = EventRequest {
            restart_count: self.restarts,
            message,
            ..EventRequest::default()
        };
        self.push(now, kind, status, source, Some(request))
    }

    /// The end of a body that somebody has killed to start it again.
    pub(super) fn record_killed(&mut self, now: Timestamp) -> Effect {
        let exit = ExitEvent {
            requested_stop: true,
            restarting: true,
            ..unseen_exit(now)
        };
        self.record_exit(now, exit, String::new())
    }

    pub(super) fn record_exit(
        &mut self,
        now: Timestamp,
        exit: ExitEvent,
        message: String,
    ) -> Effect {
        let request = EventRequest {
            exit_event: Some(exit),
            restart_count: self.restarts,
            message,
            ..EventRequest::default()
        };
        self.push(
            now,
            "exit",
            MachineState::Stopped,
            Source::Worker,
            Some(request),
        )
    }

    /// A start that came to nothing.
    pub(super) fn record_failure(&mut self, now: Timestamp, reason: &str) -> Effect {
        let (status, source) = (MachineState::Failed, Source::Worker);
        self.record_why(now, "start", status, source, reason.to_owned())
    }

    pub(super) fn record_pull(&mut self, now: Timestamp, message: String) -> Effect {
        let request = EventRequest {
            message,
            ..EventRequest::default()
        };
        let (status, source) = (MachineState::Starting, Source::Worker);
        self.push(now, "pull", status, source, Some(request))
    }

    fn push(
        &mut self,
        now: Timestamp,
        kind: &str,
        status: MachineState,
        source: Source,
        request: Option<EventRequest>,
    ) -> Effect {
        self.updated_at = now;
        let newest = self.events.front().map_or(0, |event| event.timestamp);
        // Ids of one machine rise, also when the host's clock does not.
        let timestamp = now.as_millisecond().max(newest);
        self.events_count += 1;
        let event = Event {
            id: self.event_id(timestamp),
            kind: kind.to_owned(),
            status: status.to_string(),
            source: match source {
                Source::User => "user".to_owned(),
                Source::Worker => "flyd".to_owned(),
            },
            timestamp,
            request,
        };
        self.events.push_front(event.clone());
        self.events.truncate(SHOWN_MAX);
        Effect::Record(event)
    }

    /// A ULID: 48 bits of time, then the number of the event and bits of the machine's id instead
    /// of randomness. Unique, and rising within the machine.
    fn event_id(&self, timestamp: i64) -> String {
        let machine = u64::from_str_radix(self.id.as_str(), 16).unwrap_or_default();
        let low = u128::from(self.events_count) << 48 | u128::from(machine & 0xffff_ffff_ffff);
        ulid::Ulid::from_parts(u64::try_from(timestamp).unwrap_or_default(), low).to_string()
    }
}
