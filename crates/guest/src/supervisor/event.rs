//! What the supervisor hears, and what it asks for.

use std::time::Duration;

use jiff::Timestamp;
use types::guest::{ContainerReport, HealthReport};
use types::machine::ExitEvent;

use super::checks::Outcome;
use crate::reaper::ExitStatus;

/// The time of an event.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since any fixed moment; never goes back.
    pub elapsed: Duration,
    /// For records.
    pub unix: Timestamp,
}

/// Something that happened. Containers are named by their index in the specification.
#[derive(Debug, Clone)]
pub enum Event {
    Started {
        container: usize,
        run: u32,
        pid: i32,
    },
    StartFailed {
        container: usize,
        run: u32,
        reason: String,
    },
    Exited {
        container: usize,
        run: u32,
        status: ExitStatus,
        oom_killed: bool,
    },
    /// A later one may only shorten the time.
    Stop {
        signal: Option<i32>,
        grace: Duration,
    },
    /// A probe of a check has its outcome.
    Probed {
        check: usize,
        round: u64,
        outcome: Outcome,
    },
    /// Supervision begins, or a deadline has passed.
    Tick,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Start {
        container: usize,
        run: u32,
    },
    Signal {
        container: usize,
        pid: i32,
        signal: i32,
    },
    Kill {
        container: usize,
        pid: i32,
    },
    Report(ContainerReport),
    /// Make a check; the answer is [`Event::Probed`] with the same numbers, in the check's time.
    Probe {
        check: usize,
        round: u64,
    },
    Health(HealthReport),
    /// Last.
    End(ExitEvent),
}
