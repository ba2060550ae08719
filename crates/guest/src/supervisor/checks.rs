//! Health checks: when each is due, and what its outcomes amount to.
//!
//! ```text
//! Idle --begin--> Waiting --due--> Probing --outcome--> Waiting ...     end, stop --> Idle
//!
//! status: Warning --successes in a row--> Passing
//!            `------failures in a row, after the grace--> Critical, and back in the same way
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use types::guest::{CheckSpec, HealthReport, MachineSpec, Probe};
use types::machine::Health;

use super::event::{Effect, Now};
use super::settings::Refused;

/// Checks of one machine; each costs a connection or a process every now and then.
const CHECKS_MAX: usize = 64;
/// More often than this is a load of its own.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Until the first status a check is made at least this often, so that a machine that is up is seen
/// to be.
const FIRST_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Of what a probe says.
const OUTPUT_BYTES_MAX: usize = 1024;
/// A check that goes on to stand as it stood tells what it says now at most so often: the host
/// writes each report down, and passes over what comes much sooner.
const SAME_STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub passed: bool,
    pub output: String,
}

/// All checks of a machine, in the order of its specification.
#[derive(Debug)]
pub(super) struct Checks {
    all: Vec<Check>,
    has_begun: bool,
}

#[derive(Debug)]
struct Check {
    name: String,
    /// By index; `None` for the machine.
    container: Option<usize>,
    interval: Duration,
    grace: Duration,
    successes: u32,
    failures: u32,
    stop_when_critical: bool,
    activity: Activity,
    status: Health,
    streak: Streak,
    /// Distinguishes probes, so that a late outcome means nothing.
    round: u64,
    reported: Option<Reported>,
}

#[derive(Debug)]
enum Activity {
    Idle,
    Waiting { begun: Duration, due: Duration },
    Probing { begun: Duration, since: Duration },
}

/// Outcomes of one kind in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streak {
    Passed(u32),
    Failed(u32),
}

#[derive(Debug)]
struct Reported {
    status: Health,
    output: String,
    at: Duration,
}

impl Checks {
    /// `index` is that of the containers.
    pub(super) fn new(spec: &MachineSpec, index: &BTreeMap<&str, usize>) -> Result<Self, Refused> {
        let mut names = BTreeSet::new();
        if spec.checks.len() > CHECKS_MAX {
            return Err(Refused::TooManyChecks { max: CHECKS_MAX });
        }
        let all = spec.checks.iter().map(|check| {
            let refused = |reason| Refused::Check {
                name: check.name.clone(),
                reason,
            };
            if !names.insert(check.name.as_str()) {
                return Err(refused("there is one of that name already"));
            }
            if let Some(reason) = wrong(check) {
                return Err(refused(reason));
            }
            let container = match &check.container {
                None => None,
                Some(name) => {
                    let found = index.get(name.as_str());
                    Some(*found.ok_or_else(|| refused("there is no such container"))?)
                }
            };
            Ok(Check::new(check, container))
        });
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
            has_begun: false,
        })
    }

    /// Whether there are checks of that container.
    pub(super) fn are_there(&self, container: usize) -> bool {
        self.of(container).next().is_some()
    }

    /// Whether all checks of that container pass.
    pub(super) fn all_pass(&self, container: usize) -> bool {
        self.are_there(container)
            && self
                .of(container)
                .all(|check| check.status == Health::Passing)
    }

    fn of(&self, container: usize) -> impl Iterator<Item = &Check> {
        let all = self.all.iter();
        all.filter(move |check| check.container == Some(container))
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let dues = self.all.iter().filter_map(|check| match check.activity {
            Activity::Waiting { due, .. } => Some(due),
            Activity::Idle | Activity::Probing { .. } => None,
        });
        dues.min()
    }

    /// A container runs, or with `None` the machine does.
    pub(super) fn begin(&mut self, now: Now, container: Option<usize>, effects: &mut Vec<Effect>) {
        for check in &mut self.all {
            if check.container == container {
                check.begin(now, effects);
            }
        }
    }

    /// A container runs no more.
    pub(super) fn end(&mut self, now: Now, container: usize, effects: &mut Vec<Effect>) {
        for check in &mut self.all {
            if check.container == Some(container) {
                check.activity = Activity::Idle;
                check.status = Health::Critical;
                effects.extend(check.report(now, "the container does not run"));
            }
        }
    }

    /// The machine is being stopped: nobody asks any more.
    pub(super) fn stop(&mut self) {
        self.has_begun = true;
        for check in &mut self.all {
            check.activity = Activity::Idle;
        }
    }

    /// Begins those of the machine, and the probes that are due.
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.has_begun {
            self.has_begun = true;
            self.begin(now, None, effects);
        }
        for (number, check) in self.all.iter_mut().enumerate() {
            match check.activity {
                Activity::Waiting { begun, due } if due <= now.elapsed => {
                    let since = now.elapsed;
                    check.activity = Activity::Probing { begun, since };
                    check.round += 1;
                    effects.push(Effect::Probe {
                        check: number,
                        round: check.round,
                    });
                }
                Activity::Waiting { .. } | Activity::Idle | Activity::Probing { .. } => {}
            }
        }
    }

    /// Takes an outcome. The container, if it is to be stopped for it.
    pub(super) fn probed(
        &mut self,
        now: Now,
        number: usize,
        round: u64,
        outcome: &Outcome,
        effects: &mut Vec<Effect>,
    ) -> Option<usize> {
        let check = self.all.get_mut(number)?;
        let Activity::Probing { begun, since } = check.activity else {
            return None;
        };
        if check.round != round {
            return None;
        }
        check.count(
            outcome.passed,
            now.elapsed.saturating_sub(begun) < check.grace,
        );
        effects.extend(check.report(now, &outcome.output));
        let pause = match check.status {
            Health::Warning => check.interval.min(FIRST_INTERVAL_MAX),
            Health::Passing | Health::Critical => check.interval,
        };
        let due = (since + pause).max(now.elapsed);
        check.activity = Activity::Waiting { begun, due };
        let is_to_stop = check.status == Health::Critical && check.stop_when_critical;
        check.container.filter(|_| is_to_stop)
    }
}

impl Check {
    fn new(spec: &CheckSpec, container: Option<usize>) -> Self {
        Self {
            name: spec.name.clone(),
            container,
            interval: Duration::from_millis(spec.interval_ms).max(INTERVAL_MIN),
            grace: Duration::from_millis(spec.grace_ms),
            successes: spec.success_threshold.max(1),
            failures: spec.failure_threshold.max(1),
            stop_when_critical: spec.stop_when_critical,
            activity: Activity::Idle,
            status: Health::Warning,
            streak: Streak::Passed(0),
            round: 0,
            reported: None,
        }
    }

    fn begin(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.activity = Activity::Waiting {
            begun: now.elapsed,
            due: now.elapsed,
        };
        self.status = Health::Warning;
        self.streak = Streak::Passed(0);
        effects.extend(self.report(now, "not checked yet"));
    }

    fn count(&mut self, passed: bool, is_grace: bool) {
        self.streak = match (passed, self.streak) {
            (true, Streak::Passed(count)) => Streak::Passed(count.saturating_add(1)),
            (true, Streak::Failed(_)) => Streak::Passed(1),
            // Nothing was said about it, except that it does not pass in a row.
            (false, _) if is_grace => Streak::Failed(0),
            (false, Streak::Failed(count)) => Streak::Failed(count.saturating_add(1)),
            (false, Streak::Passed(_)) => Streak::Failed(1),
        };
        match self.streak {
            Streak::Passed(count) if count >= self.successes => self.status = Health::Passing,
            Streak::Failed(count) if count >= self.failures => self.status = Health::Critical,
            Streak::Passed(_) | Streak::Failed(_) => {}
        }
    }

    /// Says how the check stands: at once if its status is new, and later if only its output is.
    fn report(&mut self, now: Now, output: &str) -> Option<Effect> {
        let output = cut(output);
        if let Some(reported) = &self.reported {
            let is_same = reported.status == self.status;
            let is_soon = now.elapsed < reported.at + SAME_STATUS_INTERVAL;
            if is_same && (is_soon || reported.output == output) {
                return None;
            }
        }
        self.reported = Some(Reported {
            status: self.status,
            output: output.to_owned(),
            at: now.elapsed,
        });
        Some(Effect::Health(HealthReport {
            check: self.name.clone(),
            status: self.status,
            output: output.to_owned(),
            unix_ms: now.unix.as_millisecond(),
        }))
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(OUTPUT_BYTES_MAX)).rev();
    let end = end.into_iter().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// What of a check cannot be done, or would be something else than it says.
fn wrong(check: &CheckSpec) -> Option<&'static str> {
    if check.stop_when_critical && check.container.is_none() {
        return Some("only a check of a container can stop one");
    }
    let is_token = |text: &str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(is_plain)
    };
    let is_text = |text: &str| !text.bytes().any(|b| b < b' ' || b == 0x7f);
    match &check.probe {
        Probe::Tcp { port: 0 } | Probe::Http { port: 0, .. } => Some("there is no port 0"),
        Probe::Tcp { .. } => None,
        Probe::Exec { command } if command.is_empty() => Some("it has no command"),
        Probe::Exec { .. } => None,
        Probe::Http { method, .. } if !is_token(method) => Some("its method is none of HTTP's"),
        Probe::Http { path, .. }
            if !path.starts_with('/') || !is_text(path) || path.contains(' ') =>
        {
            Some("its path does not begin with `/`, or holds blanks")
        }
        Probe::Http { headers, .. } => {
            let is_good = |(name, value): &(String, String)| is_token(name) && is_text(value);
            (!headers.iter().all(is_good)).then_some("a header holds what headers cannot")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
