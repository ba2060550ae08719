//! Whether a guest that was started is still there: it is asked every ten seconds, and has to
//! answer one question within a minute.
//!
//! `tick` decides and never waits. What counts is questions, not time: a host that has so much to
//! do that the shim itself does not come to run must not take its guests for dead.

use std::time::Duration;

use tokio::time::Instant;

pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// A guest that was silent for a minute.
pub(super) const SILENT_TICKS_MAX: u32 = 6;
/// A tick that comes later than this tells of the shim's host, not of its guest.
const LATE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Watchdog {
    due: Instant,
    /// Ticks in a row, all in time, at which a question had no answer.
    silent_ticks: u32,
    is_asked: bool,
}

/// What a tick asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask,
    /// The question that was asked is still open.
    Wait,
    /// The guest is gone.
    GiveUp,
}

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now + INTERVAL,
            silent_ticks: 0,
            is_asked: false,
        }
    }

    /// When to call [`Self::tick`].
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The guest said something by itself.
    pub(super) fn heard(&mut self) {
        self.silent_ticks = 0;
    }

    /// The question was answered.
    pub(super) fn answered(&mut self) {
        self.silent_ticks = 0;
        self.is_asked = false;
    }

    pub(super) fn tick(&mut self, now: Instant) -> Step {
        let is_late = now > self.due + LATE;
        self.due = now + INTERVAL;
        if !self.is_asked {
            self.is_asked = true;
            return Step::Ask;
        }
        if !is_late {
            self.silent_ticks += 1;
        }
        if self.silent_ticks >= SILENT_TICKS_MAX {
            Step::GiveUp
        } else {
            Step::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_answers_is_asked_again_and_again() {
        let mut now = Instant::now();
        let mut dog = Watchdog::new(now);
        for _ in 0..100 {
            now = dog.due();
            assert_eq!(dog.tick(now), Step::Ask);
            dog.answered();
        }
    }

    #[test]
    fn a_guest_that_is_silent_for_a_minute_is_given_up_and_not_before() {
        let start = Instant::now();
        let mut dog = Watchdog::new(start);
        assert_eq!(dog.tick(dog.due()), Step::Ask);
        let asked = dog.due() - INTERVAL;
        loop {
            let now = dog.due();
            let step = dog.tick(now);
            if now < asked + Duration::from_secs(60) {
                assert_eq!(step, Step::Wait);
            } else {
                assert_eq!(step, Step::GiveUp);
                return;
            }
        }
    }

    #[test]
    fn a_guest_that_says_something_meanwhile_has_another_minute() {
        let mut dog = Watchdog::new(Instant::now());
        assert_eq!(dog.tick(dog.due()), Step::Ask);
        for _ in 0..SILENT_TICKS_MAX - 1 {
            assert_eq!(dog.tick(dog.due()), Step::Wait);
        }
        dog.heard();
        for _ in 0..SILENT_TICKS_MAX - 1 {
            assert_eq!(dog.tick(dog.due()), Step::Wait);
        }
        assert_eq!(dog.tick(dog.due()), Step::GiveUp);
    }

    #[test]
    fn a_shim_that_did_not_run_itself_does_not_blame_its_guest() {
        let mut dog = Watchdog::new(Instant::now());
        assert_eq!(dog.tick(dog.due()), Step::Ask);
        for _ in 0..100 {
            assert_eq!(dog.tick(dog.due() + Duration::from_secs(3600)), Step::Wait);
        }
    }
}
