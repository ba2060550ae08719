//! What the supervisor has to know of each container, and specifications that make no sense.

use std::collections::BTreeMap;
use std::time::Duration;

use types::guest::{ContainerSpec, MachineSpec};
use types::machine::{DependsOnCondition, Restart, RestartPolicy};

use super::checks::Checks;
use super::mounts;
use crate::signal;

/// Back-off before the first restart; each further one doubles it, as the kubelet does.
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// Restarts of `on-failure` when the configuration does not say.
const ON_FAILURE_RETRIES_MAX: u32 = 10;

const SIGTERM: i32 = 15;

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
    #[error("two volumes or directories are named `{name}`")]
    SourceTaken { name: String },
    #[error("container `{name}` cannot have a mount at `{path}`: {reason}")]
    Mount {
        name: String,
        path: String,
        reason: &'static str,
    },
    #[error("container `{name}` waits for `{on}` to be healthy, but that has no health checks")]
    Healthy { name: String, on: String },
    #[error("there are more than {max} health checks")]
    TooManyChecks { max: usize },
    #[error("health check `{name}` is not possible: {reason}")]
    Check { name: String, reason: &'static str },
}

/// One container's part of the specification.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) restart: Restart,
    pub(super) stop_signal: i32,
    /// By index.
    pub(super) depends_on: Vec<(usize, DependsOnCondition)>,
}

/// Reads a specification, in its order.
pub(super) fn check(spec: &MachineSpec) -> Result<(Vec<Settings>, Checks), Refused> {
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
    mounts::check(spec)?;
    let containers = spec.containers.iter();
    let containers = containers.map(|container| Settings::new(container, &index));
    let containers = containers.collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = first_of_a_cycle(&containers) {
        return Err(Refused::Cycle { name });
    }
    let checks = Checks::new(spec, &index)?;
    for container in &containers {
        let mut waits = container.depends_on.iter();
        let never = waits.find(|(on, condition)| {
            *condition == DependsOnCondition::Healthy && !checks.are_there(*on)
        });
        if let Some(&(on, _)) = never {
            return Err(Refused::Healthy {
                name: container.name.clone(),
                on: containers[on].name.clone(),
            });
        }
    }
    Ok((containers, checks))
}

fn first_of_a_cycle(containers: &[Settings]) -> Option<String> {
    let mut is_ordered = vec![false; containers.len()];
    loop {
        let next = (0..containers.len()).find(|&number| {
            let on = &containers[number].depends_on;
            !is_ordered[number] && on.iter().all(|&(on, _)| is_ordered[on])
        });
        match next {
            Some(number) => is_ordered[number] = true,
            None => break,
        }
    }
    let left = is_ordered.iter().position(|ordered| !ordered)?;
    Some(containers[left].name.clone())
}

impl Settings {
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
                (Some(&number), condition) => depends_on.push((number, condition)),
            }
        }
        Ok(Self {
            name,
            restart: spec.restart.clone(),
            stop_signal,
            depends_on,
        })
    }

    /// How long to wait before the next run; `None` if there is to be none.
    pub(super) fn retry_after(&self, retries: u32, has_failed: bool) -> Option<Duration> {
        let retries_max = match self.restart.policy {
            RestartPolicy::No => return None,
            RestartPolicy::OnFailure if !has_failed => return None,
            RestartPolicy::OnFailure => self.restart.max_retries.unwrap_or(ON_FAILURE_RETRIES_MAX),
            RestartPolicy::Always => self.restart.max_retries.unwrap_or(u32::MAX),
        };
        if retries >= retries_max {
            return None;
        }
        // 2^5 * 10 s is beyond the maximum.
        Some((BACK_OFF_MIN * (1 << retries.min(5))).min(BACK_OFF_MAX))
    }
}
