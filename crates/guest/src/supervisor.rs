//! What happens to the containers of one machine, decided without waiting.
//!
//! ```text
//! Pending --dependencies met--> Starting --started--> Running --exited--> Ended
//!    |                             |  ^                  |
//!    |                             v  | back-off over    v
//!    |                           BackingOff <-------- restart policy
//!    `--dependency lost, stop--> Ended (never ran)
//! ```
//!
//! The machine ends when every container is `Ended`. A stop signals those that nobody depends on
//! first, then those behind them, and kills whatever is left at its deadline.

use std::time::Duration;

use types::guest::{ContainerReportState, MachineSpec};
use types::machine::{DependsOnCondition, ExitEvent};

use crate::reaper::ExitStatus;

mod checks;
mod container;
mod event;
mod mounts;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

use checks::Checks;
pub use checks::Outcome;
use container::{Asked, Container, State, cannot_start, millis};
pub use event::{Effect, Event, Now};
pub use settings::Refused;
use settings::check;

/// A run of this length was a success: the count of retries begins anew.
const RUN_FORGIVES: Duration = Duration::from_secs(600);

/// What a container with a critical check has to end in; Docker's and most people's grace.
const UNHEALTHY_GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Stop {
    signal: Option<i32>,
    deadline: Duration,
}

/// The supervisor's state of one machine.
#[derive(Debug)]
pub struct Machine {
    containers: Vec<Container>,
    checks: Checks,
    stop: Option<Stop>,
    /// Ends for good, in their order.
    ends: Vec<ExitEvent>,
    has_ended: bool,
}

impl Machine {
    /// Nothing is started before the first [`Machine::apply`].
    ///
    /// # Errors
    /// If the specification cannot be carried out.
    pub fn new(spec: &MachineSpec) -> Result<Self, Refused> {
        let (containers, checks) = check(spec)?;
        Ok(Self {
            containers: containers.into_iter().map(Container::new).collect(),
            checks,
            stop: None,
            ends: Vec::new(),
            has_ended: false,
        })
    }

    /// When a `Tick` is due, on the clock of [`Now::elapsed`].
    pub fn next_deadline(&self) -> Option<Duration> {
        let back_offs = self.containers.iter().filter_map(|c| match c.state {
            State::BackingOff { until, .. } => Some(until),
            State::Pending | State::Starting | State::Running { .. } | State::Ended => None,
        });
        let is_killing = self.containers.iter().any(|c| match c.state {
            State::Running { asked, .. } => asked != Asked::Killed,
            State::Pending | State::Starting | State::BackingOff { .. } | State::Ended => false,
        });
        let stop = self.stop.as_ref().filter(|_| is_killing);
        let kills = self.containers.iter().filter_map(Container::kill_at);
        let due = back_offs.chain(kills).chain(self.checks.next_deadline());
        due.chain(stop.map(|stop| stop.deadline)).min()
    }

    /// Decides what follows from an event. Events of runs that are over mean nothing.
    pub fn apply(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Started {
                container,
                run,
                pid,
            } => self.started(now, container, run, pid, &mut effects),
            Event::StartFailed {
                container,
                run,
                reason,
            } => self.start_failed(now, container, run, reason, &mut effects),
            Event::Exited {
                container,
                run,
                status,
                oom_killed,
            } => {
                let exit = self.exit_event(now, status, oom_killed);
                self.exited(now, container, run, exit, &mut effects);
            }
            Event::Probed {
                check,
                round,
                outcome,
            } => self.probed(now, check, round, &outcome, &mut effects),
            Event::Stop { signal, grace } => {
                self.checks.stop();
                let deadline = now.elapsed + grace;
                let before = self.stop.as_ref().map(|stop| stop.deadline);
                self.stop = Some(Stop {
                    signal: signal.or(self.stop.as_ref().and_then(|stop| stop.signal)),
                    deadline: before.map_or(deadline, |before| before.min(deadline)),
                });
            }
            Event::Tick => {}
        }
        self.settle(now, &mut effects);
        effects
    }

    fn started(&mut self, now: Now, at: usize, run: u32, pid: i32, effects: &mut Vec<Effect>) {
        let container = &mut self.containers[at];
        if !matches!(container.state, State::Starting) || container.run != run {
            return;
        }
        container.was_started = true;
        container.state = State::Running {
            pid,
            since: now.elapsed,
            asked: Asked::Nothing,
        };
        effects.push(container.report(ContainerReportState::Started {
            pid,
            unix_ms: now.unix.as_millisecond(),
        }));
        if self.stop.is_none() {
            self.checks.begin(now, Some(at), effects);
        }
    }

    fn probed(
        &mut self,
        now: Now,
        check: usize,
        round: u64,
        outcome: &Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let to_stop = self.checks.probed(now, check, round, outcome, effects);
        for (at, container) in self.containers.iter_mut().enumerate() {
            container.was_healthy |= self.checks.all_pass(at);
        }
        let Some(at) = to_stop else { return };
        let container = &mut self.containers[at];
        if let State::Running { pid, asked, .. } = &mut container.state
            && *asked == Asked::Nothing
        {
            *asked = Asked::Unhealthy {
                kill_at: now.elapsed + UNHEALTHY_GRACE,
            };
            effects.push(Effect::Signal {
                container: at,
                pid: *pid,
                signal: container.settings.stop_signal,
            });
        }
    }

    fn start_failed(
        &mut self,
        now: Now,
        at: usize,
        run: u32,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        let is_stopping = self.stop.is_some();
        let container = &mut self.containers[at];
        if !matches!(container.state, State::Starting) || container.run != run {
            return;
        }
        let restart_after = container
            .settings
            .retry_after(container.retries, true)
            .filter(|_| !is_stopping);
        let report = |restart_after_ms| ContainerReportState::Failed {
            reason: reason.clone(),
            restart_after_ms,
        };
        effects.push(container.report(report(restart_after.map(millis))));
        match restart_after {
            Some(after) => {
                container.state = State::BackingOff {
                    until: now.elapsed + after,
                    past: report(None),
                };
            }
            None => self.end(at, cannot_start(now, is_stopping)),
        }
    }

    fn exit_event(&self, now: Now, status: ExitStatus, oom_killed: bool) -> ExitEvent {
        ExitEvent {
            exit_code: status.shell_code(),
            signal: match status {
                ExitStatus::Code(_) => -1,
                ExitStatus::Signal(signal) => signal,
            },
            oom_killed,
            requested_stop: self.stop.is_some(),
            exited_at: now.unix,
            ..ExitEvent::default()
        }
    }

    fn exited(
        &mut self,
        now: Now,
        at: usize,
        run: u32,
        mut exit: ExitEvent,
        effects: &mut Vec<Effect>,
    ) {
        let is_stopping = self.stop.is_some();
        let container = &mut self.containers[at];
        let State::Running { since, asked, .. } = container.state else {
            return;
        };
        if container.run != run {
            return;
        }
        if now.elapsed.saturating_sub(since) >= RUN_FORGIVES {
            container.retries = 0;
        }
        let is_unhealthy = matches!(asked, Asked::Unhealthy { .. });
        let has_failed = exit.exit_code != 0 || is_unhealthy;
        container.has_succeeded |= !has_failed;
        let restart_after = container
            .settings
            .retry_after(container.retries, has_failed)
            .filter(|_| !is_stopping);
        let past = ContainerReportState::Exited {
            exit: exit.clone(),
            restart_after_ms: None,
        };
        exit.restarting = restart_after.is_some();
        effects.push(container.report(ContainerReportState::Exited {
            exit: exit.clone(),
            restart_after_ms: restart_after.map(millis),
        }));
        match restart_after {
            Some(after) => {
                let until = now.elapsed + after;
                container.state = State::BackingOff { until, past };
            }
            None => self.end(at, exit),
        }
        if !is_stopping {
            self.checks.end(now, at, effects);
        }
    }

    fn end(&mut self, at: usize, exit: ExitEvent) {
        self.containers[at].state = State::Ended;
        self.ends.push(exit);
    }

    /// Does whatever the states call for, until nothing is left to do.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.has_ended {
            return;
        }
        match &self.stop {
            None => {
                while self.advance_one(now, effects) {}
                self.checks.settle(now, effects);
            }
            Some(stop) => {
                let (signal, deadline) = (stop.signal, stop.deadline);
                self.call_off(now, effects);
                self.wind_down(now, signal, deadline, effects);
            }
        }
        self.kill_unhealthy(now, effects);
        if self.containers.iter().all(Container::has_ended) {
            self.has_ended = true;
            effects.push(Effect::End(self.exit()));
        }
    }

    /// Kills those that a check has stopped and that have not ended in time.
    fn kill_unhealthy(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (at, container) in self.containers.iter_mut().enumerate() {
            if container.kill_at().is_none_or(|at| at > now.elapsed) {
                continue;
            }
            if let State::Running { pid, asked, .. } = &mut container.state {
                *asked = Asked::Killed;
                effects.push(Effect::Kill {
                    container: at,
                    pid: *pid,
                });
            }
        }
    }

    /// Starts or gives up one container. Giving up may cost others their dependency.
    fn advance_one(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        for at in 0..self.containers.len() {
            let container = &self.containers[at];
            match container.state {
                State::Pending => match self.dependencies(container) {
                    Dependencies::Met => {}
                    Dependencies::Waiting => continue,
                    Dependencies::Lost(on) => {
                        let reason = format!("depends on `{on}`, which ended without success");
                        effects.push(container.report(ContainerReportState::Failed {
                            reason,
                            restart_after_ms: None,
                        }));
                        self.end(at, cannot_start(now, false));
                        return true;
                    }
                },
                State::BackingOff { until, .. } if until <= now.elapsed => {
                    let container = &mut self.containers[at];
                    container.run += 1;
                    container.retries += 1;
                }
                State::BackingOff { .. }
                | State::Starting
                | State::Running { .. }
                | State::Ended => continue,
            }
            let container = &mut self.containers[at];
            container.state = State::Starting;
            let run = container.run;
            effects.push(Effect::Start { container: at, run });
            return true;
        }
        false
    }

    fn dependencies(&self, container: &Container) -> Dependencies {
        let mut all = Dependencies::Met;
        for &(on, condition) in &container.settings.depends_on {
            let on = &self.containers[on];
            let is_met = match condition {
                DependsOnCondition::Started => on.was_started,
                DependsOnCondition::ExitedSuccessfully => on.has_succeeded,
                DependsOnCondition::Healthy => on.was_healthy,
            };
            if !is_met && on.has_ended() {
                return Dependencies::Lost(on.settings.name.clone());
            }
            if !is_met {
                all = Dependencies::Waiting;
            }
        }
        all
    }

    /// A stop: what has not started will not.
    fn call_off(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for at in 0..self.containers.len() {
            let container = &mut self.containers[at];
            match &container.state {
                State::Pending => {
                    let exit = ExitEvent {
                        requested_stop: true,
                        exited_at: now.unix,
                        ..ExitEvent::default()
                    };
                    self.end(at, exit);
                }
                State::BackingOff { past, .. } => {
                    let past = past.clone();
                    effects.push(container.report(past.clone()));
                    let exit = match past {
                        ContainerReportState::Exited { exit, .. } => exit,
                        ContainerReportState::Failed { .. }
                        | ContainerReportState::Started { .. } => cannot_start(now, true),
                    };
                    self.end(at, exit);
                }
                State::Starting | State::Running { .. } | State::Ended => {}
            }
        }
    }

    fn wind_down(
        &mut self,
        now: Now,
        signal: Option<i32>,
        deadline: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let is_due = now.elapsed >= deadline;
        for at in 0..self.containers.len() {
            let is_needed = self.containers.iter().any(|other| {
                !other.has_ended() && other.settings.depends_on.iter().any(|&(on, _)| on == at)
            });
            let container = &mut self.containers[at];
            let State::Running { pid, asked, .. } = &mut container.state else {
                continue;
            };
            let pid = *pid;
            if is_due && *asked != Asked::Killed {
                *asked = Asked::Killed;
                effects.push(Effect::Kill { container: at, pid });
            } else if !is_due && !is_needed && *asked == Asked::Nothing {
                *asked = Asked::Signalled;
                effects.push(Effect::Signal {
                    container: at,
                    pid,
                    signal: signal.unwrap_or(container.settings.stop_signal),
                });
            }
        }
    }

    /// That of the first container that failed, else of the last that ended.
    fn exit(&self) -> ExitEvent {
        let failed = self.ends.iter().find(|exit| exit.exit_code != 0);
        failed.or(self.ends.last()).cloned().unwrap_or_default()
    }
}

enum Dependencies {
    Met,
    Waiting,
    /// Never again: the named container has ended for good.
    Lost(String),
}
