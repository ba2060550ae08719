//! What the supervisor hears, and what it asks for.

use std::time::Duration;

use jiff::Timestamp;
use types::guest::ContainerReport;
use types::machine::ExitEvent;

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
    /// Last.
    End(ExitEvent),
}
