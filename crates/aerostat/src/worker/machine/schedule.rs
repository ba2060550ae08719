//! Machines that start by the clock: `schedule`, counted from the machine's creation.
//!
//! The next start is a point in time in the machine's row. When it has come (or was missed while
//! no worker ran: then once), the machine is started if it rests, and the next one is counted.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use types::machine::{MachineState, Schedule};

use super::events::Source;
use super::{Begin, Effect, Machine, State, later};

const HOUR: Duration = Duration::from_secs(3600);

impl Machine {
    /// The first start of its schedule after `now`.
    pub(super) fn run_after(&self, now: Timestamp) -> Option<Timestamp> {
        let schedule = self.config.as_given().schedule?;
        Some(next(schedule, self.created_at, now))
    }

    /// Whether a start by schedule is due; then [`super::Event::Scheduled`] decides it.
    pub(crate) fn is_scheduled_now(&self, now: Timestamp) -> bool {
        let rests = match self.state {
            State::Created | State::Stopped | State::Failed { .. } => true,
            State::Preparing { .. }
            | State::Booting { .. }
            | State::Started { .. }
            | State::Suspending { .. }
            | State::Suspended
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Destroying
            | State::Destroyed => false,
        };
        rests && self.next_run.is_some_and(|due| due <= now)
    }

    /// Starts a machine whose schedule is due; `lacks` says why there is no room for it.
    pub(super) fn scheduled(&mut self, now: Timestamp, lacks: Option<String>) -> Vec<Effect> {
        if !self.is_scheduled_now(now) {
            return vec![];
        }
        self.skip_run(now);
        self.restarts = 0;
        match lacks {
            Some(reason) => vec![self.record_failure(now, &reason)],
            None => {
                let message = "its schedule is due".to_owned();
                let source = Source::Worker;
                let start = self.record_why(now, "start", MachineState::Starting, source, message);
                vec![start, self.begin_boot(Begin::Cold)]
            }
        }
    }

    /// Counts the next start anew if the one that was next is over.
    pub(super) fn skip_run(&mut self, now: Timestamp) {
        if self.next_run.is_some_and(|due| due <= now) {
            self.next_run = self.run_after(now);
        }
    }
}

/// The first of `from` + n intervals after `now`, n at least 1.
fn next(schedule: Schedule, from: Timestamp, now: Timestamp) -> Timestamp {
    let interval = match schedule {
        Schedule::Hourly => HOUR,
        Schedule::Daily => 24 * HOUR,
        Schedule::Weekly => 7 * 24 * HOUR,
        Schedule::Monthly => return next_month(from, now),
    };
    let passed = now.duration_since(from).as_secs().max(0).unsigned_abs();
    let number = passed / interval.as_secs() + 1;
    later(from, Duration::from_secs(number * interval.as_secs()))
}

/// The same day of a later month, or its last where a month is too short; in UTC.
fn next_month(from: Timestamp, now: Timestamp) -> Timestamp {
    let start = from.to_zoned(TimeZone::UTC);
    // Not more than this many months have passed, and at most two fewer.
    let days = now.duration_since(from).as_secs().max(0) / (24 * 3600);
    let passed = (days / 31 - 1).max(0);
    for months in passed + 1.. {
        let Ok(due) = start.checked_add(months.months()) else {
            return Timestamp::MAX;
        };
        if due.timestamp() > now {
            return due.timestamp();
        }
    }
    Timestamp::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn intervals_are_counted_from_the_creation_and_never_drift() {
        let from = time("2026-01-31T10:00:00Z");
        for (schedule, now, expected) in [
            (
                Schedule::Hourly,
                "2026-01-31T10:00:00Z",
                "2026-01-31T11:00:00Z",
            ),
            (
                Schedule::Hourly,
                "2026-01-31T12:59:59Z",
                "2026-01-31T13:00:00Z",
            ),
            (
                Schedule::Daily,
                "2026-02-03T10:00:00Z",
                "2026-02-04T10:00:00Z",
            ),
            (
                Schedule::Weekly,
                "2026-02-06T00:00:00Z",
                "2026-02-07T10:00:00Z",
            ),
            (
                Schedule::Monthly,
                "2026-02-01T00:00:00Z",
                "2026-02-28T10:00:00Z",
            ),
            (
                Schedule::Monthly,
                "2026-02-28T10:00:00Z",
                "2026-03-31T10:00:00Z",
            ),
            (
                Schedule::Monthly,
                "2030-05-01T00:00:00Z",
                "2030-05-31T10:00:00Z",
            ),
            // The clock was set back behind the creation.
            (
                Schedule::Daily,
                "2025-01-01T00:00:00Z",
                "2026-02-01T10:00:00Z",
            ),
            (
                Schedule::Monthly,
                "2025-01-01T00:00:00Z",
                "2026-02-28T10:00:00Z",
            ),
        ] {
            assert_eq!(
                next(schedule, from, time(now)),
                time(expected),
                "{schedule:?} at {now}"
            );
        }
    }
}
