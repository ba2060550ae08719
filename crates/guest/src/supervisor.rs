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

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use types::guest::{ContainerReport, ContainerReportState, ContainerSpec, MachineSpec};
use types::machine::{DependsOnCondition, ExitEvent, Restart, RestartPolicy};

use crate::reaper::ExitStatus;
use crate::signal;

#[cfg(test)]
pub(crate) mod tests;

/// Back-off before the first restart; each further one doubles it, as the kubelet does.
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// A run of this length was a success: the count of retries begins anew.
const RUN_FORGIVES: Duration = Duration::from_secs(600);

/// Restarts of `on-failure` when the configuration does not say.
const ON_FAILURE_RETRIES_MAX: u32 = 10;

const SIGTERM: i32 = 15;

/// Exit code of a container that could not be started: what a shell says of such a command.
const CANNOT_START: i32 = 127;

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

/// A specification that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the machine has no containers")]
    NoContainers,
    #[error("two containers are named `{name}`")]
    NameTaken { name: String },
    #[error("container `{name}` has no command, and neither has its image")]
    NoCommand { name: String },
    #[error("container `{name}`: `{signal}` is no signal")]
    Signal { name: String, signal: String },
    #[error("container `{name}` depends on `{on}`, which there is not")]
    UnknownDependency { name: String, on: String },
    #[error("container `{name}` depends on itself, through others or directly")]
    Cycle { name: String },
    #[error(
        "container `{name}` waits for `{on}` to be healthy, but health checks do not exist yet; \
         `started` and `exited_successfully` do"
    )]
    Healthy { name: String, on: String },
}

#[derive(Debug)]
struct Container {
    name: String,
    restart: Restart,
    stop_signal: i32,
    depends_on: Vec<(usize, DependsOnCondition)>,
    state: State,
    run: u32,
    /// Restarts since the last long run.
    retries: u32,
    was_started: bool,
    has_succeeded: bool,
}

#[derive(Debug)]
enum State {
    Pending,
    Starting,
    Running {
        pid: i32,
        since: Duration,
        asked: Asked,
    },
    BackingOff {
        until: Duration,
        /// Reported again if the restart is called off.
        past: ContainerReportState,
    },
    Ended,
}

/// What a running container was told about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Signalled,
    Killed,
}

#[derive(Debug)]
struct Stop {
    signal: Option<i32>,
    deadline: Duration,
}

/// The supervisor's state of one machine.
#[derive(Debug)]
pub struct Machine {
    containers: Vec<Container>,
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
        if spec.containers.is_empty() {
            return Err(Refused::NoContainers);
        }
        let mut index = BTreeMap::new();
        for (number, container) in spec.containers.iter().enumerate() {
            if index.insert(container.name.as_str(), number).is_some() {
                let name = container.name.clone();
                return Err(Refused::NameTaken { name });
            }
        }
        let containers = spec.containers.iter();
        let containers = containers.map(|container| Container::new(container, &index));
        let machine = Self {
            containers: containers.collect::<Result<_, _>>()?,
            stop: None,
            ends: Vec::new(),
            has_ended: false,
        };
        match machine.first_of_a_cycle() {
            Some(name) => Err(Refused::Cycle { name }),
            None => Ok(machine),
        }
    }

    fn first_of_a_cycle(&self) -> Option<String> {
        let mut is_ordered = vec![false; self.containers.len()];
        loop {
            let next = (0..self.containers.len()).find(|&number| {
                let on = &self.containers[number].depends_on;
                !is_ordered[number] && on.iter().all(|&(on, _)| is_ordered[on])
            });
            match next {
                Some(number) => is_ordered[number] = true,
                None => break,
            }
        }
        let left = is_ordered.iter().position(|ordered| !ordered)?;
        Some(self.containers[left].name.clone())
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
        back_offs.chain(stop.map(|stop| stop.deadline)).min()
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
            Event::Stop { signal, grace } => {
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
        let restart_after = container.retry_after(true).filter(|_| !is_stopping);
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
        let State::Running { since, .. } = container.state else {
            return;
        };
        if container.run != run {
            return;
        }
        if now.elapsed.saturating_sub(since) >= RUN_FORGIVES {
            container.retries = 0;
        }
        let has_failed = exit.exit_code != 0;
        container.has_succeeded |= !has_failed;
        let restart_after = container.retry_after(has_failed).filter(|_| !is_stopping);
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
            None => while self.advance_one(now, effects) {},
            Some(stop) => {
                let (signal, deadline) = (stop.signal, stop.deadline);
                self.call_off(now, effects);
                self.wind_down(now, signal, deadline, effects);
            }
        }
        if self.containers.iter().all(Container::has_ended) {
            self.has_ended = true;
            effects.push(Effect::End(self.exit()));
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
        for &(on, condition) in &container.depends_on {
            let on = &self.containers[on];
            let is_met = match condition {
                DependsOnCondition::Started => on.was_started,
                DependsOnCondition::ExitedSuccessfully => on.has_succeeded,
                // Refused by `Container::new`.
                DependsOnCondition::Healthy => false,
            };
            if !is_met && on.has_ended() {
                return Dependencies::Lost(on.name.clone());
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
                !other.has_ended() && other.depends_on.iter().any(|&(on, _)| on == at)
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
                    signal: signal.unwrap_or(container.stop_signal),
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

impl Container {
    fn new(spec: &ContainerSpec, index: &BTreeMap<&str, usize>) -> Result<Self, Refused> {
        let name = spec.name.clone();
        if spec.command.is_empty() {
            return Err(Refused::NoCommand { name });
        }
        let stop_signal = match &spec.stop_signal {
            None => SIGTERM,
            Some(text) => signal::parse(text).ok_or_else(|| Refused::Signal {
                name: name.clone(),
                signal: text.clone(),
            })?,
        };
        let mut depends_on = Vec::new();
        for dependency in &spec.depends_on {
            let on = dependency.name.clone();
            match (index.get(on.as_str()), dependency.condition) {
                (None, _) => return Err(Refused::UnknownDependency { name, on }),
                (Some(_), DependsOnCondition::Healthy) => {
                    return Err(Refused::Healthy { name, on });
                }
                (
                    Some(&number),
                    condition @ (DependsOnCondition::Started
                    | DependsOnCondition::ExitedSuccessfully),
                ) => depends_on.push((number, condition)),
            }
        }
        Ok(Self {
            name,
            restart: spec.restart.clone(),
            stop_signal,
            depends_on,
            state: State::Pending,
            run: 0,
            retries: 0,
            was_started: false,
            has_succeeded: false,
        })
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn report(&self, state: ContainerReportState) -> Effect {
        Effect::Report(ContainerReport {
            container: self.name.clone(),
            run: self.run,
            state,
        })
    }

    /// How long to wait before the next run; `None` if there is to be none.
    fn retry_after(&self, has_failed: bool) -> Option<Duration> {
        let retries_max = match self.restart.policy {
            RestartPolicy::No => return None,
            RestartPolicy::OnFailure if !has_failed => return None,
            RestartPolicy::OnFailure => self.restart.max_retries.unwrap_or(ON_FAILURE_RETRIES_MAX),
            RestartPolicy::Always => self.restart.max_retries.unwrap_or(u32::MAX),
        };
        if self.retries >= retries_max {
            return None;
        }
        // 2^5 * 10 s is beyond the maximum.
        Some((BACK_OFF_MIN * (1 << self.retries.min(5))).min(BACK_OFF_MAX))
    }
}

fn cannot_start(now: Now, requested_stop: bool) -> ExitEvent {
    ExitEvent {
        exit_code: CANNOT_START,
        requested_stop,
        exited_at: now.unix,
        ..ExitEvent::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
