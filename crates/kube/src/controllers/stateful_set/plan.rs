//! The next step of a StatefulSet. Pure.
//!
//! ```text
//!   lowest first:   missing ──create──> pending ──> ready ──> available ──> the next one
//!   then:           beyond the wanted number, highest first ──delete──> gone
//!   then:           of another revision, highest first, down to the partition ──delete──> missing
//! ```
//!
//! With `OrderedReady` one step at a time, and each waits for the one before; with `Parallel` pods
//! are made and given up all at once, and only the rolling update goes one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::{self, REVISION_LABEL, first_ordinal, ordinal, replicas};
use crate::controllers::events::News;
use crate::controllers::history;
use crate::controllers::pods::{self, Available, number, sooner};
use crate::object;
use crate::rollout::Bound;

/// What is decided from.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) set: &'a Value,
    /// The set's own, also those that are going.
    pub(super) pods: &'a [Value],
    /// Claims by name.
    pub(super) claims: &'a BTreeMap<String, Value>,
    /// ControllerRevisions.
    pub(super) current: &'a Value,
    pub(super) update: &'a Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// For the pod of this name.
    CreateClaim {
        claim: Value,
        pod: String,
    },
    UpdateClaim(Value),
    CreatePod(Value),
    UpdatePod(Value),
    DeletePod {
        pod: Value,
        why: Option<News>,
    },
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) status: Value,
    /// A ready pod becomes available then.
    pub(super) again: Option<Duration>,
}

pub(super) fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let mut planner = Planner::new(view, now);
    planner.plan.status = planner.status();
    if !object::is_terminating(view.set) {
        // Each says whether the next may follow now.
        let _ = planner.fill() && planner.shrink() && planner.roll();
    }
    planner.plan
}

struct Planner<'a> {
    view: &'a View<'a>,
    now: Timestamp,
    /// Wanted pods, lowest number first.
    slots: Vec<(i64, Option<&'a Value>)>,
    /// Pods beyond the wanted number, highest number first.
    condemned: Vec<(i64, &'a Value)>,
    is_ordered: bool,
    plan: Plan,
}

fn is_healthy(pod: &Value) -> bool {
    is_running(pod) && !object::is_terminating(pod)
}

fn is_running(pod: &Value) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

impl<'a> Planner<'a> {
    fn new(view: &'a View<'a>, now: Timestamp) -> Self {
        let first = first_ordinal(view.set);
        let end = first + replicas(view.set);
        let mut slots: Vec<_> = (first..end).map(|ordinal| (ordinal, None)).collect();
        let mut condemned = Vec::new();
        for pod in view.pods {
            let Some(ordinal) = ordinal(view.set, pod) else {
                continue;
            };
            match slots.iter_mut().find(|(slot, _)| *slot == ordinal) {
                Some((_, slot)) => *slot = Some(pod),
                None => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        Self {
            view,
            now,
            slots,
            condemned,
            is_ordered: object::text(view.set, &["spec", "podManagementPolicy"]) != "Parallel",
            plan: Plan::default(),
        }
    }

    fn is_available(&self, pod: &Value) -> bool {
        let min_ready = number(self.view.set, &["spec", "minReadySeconds"]).unwrap_or(0);
        pods::phase(pod) == "Running" && pods::available(pod, min_ready, self.now) == Available::Yes
    }

    fn status(&mut self) -> Value {
        let view = self.view;
        let (current, update) = (object::name(view.current), object::name(view.update));
        let min_ready = number(view.set, &["spec", "minReadySeconds"]).unwrap_or(0);
        let (mut all, mut ready, mut available) = (0, 0, 0);
        let (mut of_current, mut of_update) = (0, 0);
        let slots = self.slots.iter().filter_map(|(_, pod)| *pod);
        for pod in slots.chain(self.condemned.iter().map(|(_, pod)| *pod)) {
            all += 1;
            if is_running(pod) {
                ready += 1;
                match pods::available(pod, min_ready, self.now) {
                    Available::Yes => available += 1,
                    Available::In(left) => self.plan.again = sooner(self.plan.again, Some(left)),
                    Available::No => {}
                }
            }
            if !object::is_terminating(pod) {
                let revision = object::label(pod, REVISION_LABEL);
                of_current += i64::from(revision == Some(current));
                of_update += i64::from(revision == Some(update));
            }
        }
        let mut current = current;
        let is_rolling = object::text(view.set, &["spec", "updateStrategy", "type"]) != "OnDelete";
        if is_rolling && of_update == all && ready == all {
            (current, of_current) = (update, of_update);
        }
        let mut status = json!({
            "observedGeneration": view.set["metadata"]["generation"],
            "replicas": all, "availableReplicas": available,
            "currentRevision": current, "updateRevision": update,
            "collisionCount": number(view.set, &["status", "collisionCount"]).unwrap_or(0),
        });
        for (field, count) in [
            ("readyReplicas", ready),
            ("currentReplicas", of_current),
            ("updatedReplicas", of_update),
        ] {
            // Go leaves zeros out.
            if count > 0 {
                status[field] = count.into();
            }
        }
        if let Some(conditions) = object::at(view.set, &["status", "conditions"]) {
            status["conditions"] = conditions.clone();
        }
        status
    }

    /// Makes and mends the wanted pods. Whether what follows may follow.
    fn fill(&mut self) -> bool {
        for (ordinal, pod) in self.slots.clone() {
            let goes_on = match pod {
                None => {
                    self.create(ordinal);
                    false
                }
                Some(pod) => self.mend(ordinal, pod),
            };
            if !goes_on && self.is_ordered {
                return false;
            }
        }
        true
    }

    fn create(&mut self, ordinal: i64) {
        let set = self.view.set;
        let name = format!("{}-{ordinal}", object::name(set));
        let wanted = identity::claims(set, ordinal);
        let known = |claim: &Value| self.view.claims.get(object::name(claim));
        let waits =
            |claim: &Value| object::is_terminating(claim) || identity::is_stale(claim, &name, None);
        // What is left of a former pod goes first.
        if wanted.iter().filter_map(known).any(waits) {
            return;
        }
        self.claim(&wanted, ordinal, None);
        let revision = if self.needs_current(ordinal) {
            self.view.current
        } else {
            self.view.update
        };
        let template = history::template(revision);
        let pod = identity::pod(set, &template, object::name(revision), ordinal);
        self.plan.actions.push(Action::CreatePod(pod));
    }

    /// Below the partition pods stay with the revision that they had.
    fn needs_current(&self, ordinal: i64) -> bool {
        let set = self.view.set;
        let strategy = &set["spec"]["updateStrategy"];
        if object::text(strategy, &["type"]) == "OnDelete" {
            return false;
        }
        let kept = match strategy.get("rollingUpdate") {
            Some(rolling) if rolling.is_object() => number(rolling, &["partition"]),
            Some(_) | None => number(set, &["status", "currentReplicas"]),
        };
        ordinal < first_ordinal(set) + kept.unwrap_or(0)
    }

    /// Claims that are missing are made, and those that are there get their owner.
    fn claim(&mut self, wanted: &[Value], ordinal: i64, condemned: Option<&Value>) {
        for claim in wanted {
            let action = match self.view.claims.get(object::name(claim)) {
                None if condemned.is_some() => None,
                None => {
                    let made = identity::retained(self.view.set, claim, None);
                    let claim = made.unwrap_or_else(|| claim.clone());
                    let pod = format!("{}-{ordinal}", object::name(self.view.set));
                    Some(Action::CreateClaim { claim, pod })
                }
                Some(present) => {
                    identity::retained(self.view.set, present, condemned).map(Action::UpdateClaim)
                }
            };
            self.plan.actions.extend(action);
        }
    }

    /// Whether the pod is as it should be, so that the next may follow.
    fn mend(&mut self, ordinal: i64, pod: &Value) -> bool {
        let set = self.view.set;
        if pods::is_finished(pod) {
            if !object::is_terminating(pod) {
                let place = format!(
                    "StatefulSet {}/{} is recreating",
                    object::namespace(set).unwrap_or_default(),
                    object::name(set)
                );
                let name = object::name(pod);
                let why = match pods::phase(pod) {
                    "Failed" => {
                        let message = format!("{place} failed Pod {name}");
                        News::warning("RecreatingFailedPod", message)
                    }
                    _ => {
                        let message = format!("{place} terminated Pod {name}");
                        News::normal("RecreatingTerminatedPod", message)
                    }
                };
                self.delete(pod, Some(why));
            }
            return false;
        }
        let wanted = identity::claims(set, ordinal);
        if pods::phase(pod) == "Pending" && !object::is_terminating(pod) {
            self.claim(&wanted, ordinal, None);
        }
        if object::is_terminating(pod) || !is_running(pod) || !self.is_available(pod) {
            return false;
        }
        if let Some(mended) = identity::mended(pod, ordinal) {
            self.plan.actions.push(Action::UpdatePod(mended));
        }
        self.claim(&wanted, ordinal, None);
        true
    }

    fn delete(&mut self, pod: &Value, why: Option<News>) {
        let pod = pod.clone();
        self.plan.actions.push(Action::DeletePod { pod, why });
    }

    /// Gives up what is too much. Whether what follows may follow.
    fn shrink(&mut self) -> bool {
        let condemned = self.condemned.clone();
        for (ordinal, pod) in &condemned {
            if !object::is_terminating(pod) {
                let wanted = identity::claims(self.view.set, *ordinal);
                self.claim(&wanted, *ordinal, Some(pod));
            }
        }
        let mut unhealthy = condemned.iter().rev().filter(|(_, pod)| !is_healthy(pod));
        let first_unhealthy = unhealthy.next().map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in condemned {
            if object::is_terminating(pod) {
                if self.is_ordered {
                    return false;
                }
                continue;
            }
            // One that is not well waits until it is, unless it is the first of these. One that
            // has ended never will be.
            let is_well = pods::is_finished(pod) || is_running(pod) && self.is_available(pod);
            if self.is_ordered && !is_well && first_unhealthy != Some(ordinal) {
                return false;
            }
            self.delete(pod, None);
            if self.is_ordered {
                return false;
            }
        }
        true
    }

    /// Gives up pods of another revision, so that they are made anew.
    fn roll(&mut self) -> bool {
        let strategy = &self.view.set["spec"]["updateStrategy"];
        if object::text(strategy, &["type"]) == "OnDelete" {
            return true;
        }
        let partition = number(strategy, &["rollingUpdate", "partition"]).unwrap_or(0);
        let partition = usize::try_from(partition).unwrap_or(0);
        let update = object::name(self.view.update);
        let is_old = |pod: &Value| {
            object::label(pod, REVISION_LABEL) != Some(update) && !object::is_terminating(pod)
        };
        let slots: Vec<_> = self.slots.iter().map(|(_, pod)| *pod).collect();
        let rest = slots.get(partition..).unwrap_or_default();
        let max = Bound::parse(&strategy["rollingUpdate"]["maxUnavailable"])
            .map_or(1, |bound| bound.of(replicas(self.view.set), true).max(1));
        if max > 1 {
            let is_well = |pod: &Option<&Value>| pod.is_some_and(|pod| self.is_available(pod));
            let missing = slots.iter().filter(|pod| !is_well(pod)).count();
            let room = usize::try_from(max).unwrap_or(1).saturating_sub(missing);
            let old: Vec<_> = rest
                .iter()
                .rev()
                .flatten()
                .filter(|pod| is_old(pod))
                .collect();
            for pod in old.into_iter().take(room) {
                self.delete(pod, None);
            }
            return true;
        }
        for pod in rest.iter().rev() {
            match pod {
                Some(pod) if is_old(pod) => {
                    self.delete(pod, None);
                    return false;
                }
                Some(pod) if is_healthy(pod) && self.is_available(pod) => {}
                Some(_) | None => return false,
            }
        }
        true
    }
}
