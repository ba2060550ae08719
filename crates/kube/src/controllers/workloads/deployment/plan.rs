//! What a Deployment does next with its ReplicaSets, as upstream decides it. Pure.
//!
//! ```text
//!   number changed or paused ──> scale all sets in proportion, nothing else
//!   Recreate                 ──> old sets to 0 ─> their pods gone ─> new set to full size
//!   RollingUpdate            ──> new set up to wanted + surge, else old sets down to
//!                                wanted - unavailable, pods that serve nobody first
//!   complete                 ──> delete what is beyond the history limit
//! ```
//!
//! One step at a time: the status that a step leads to is what the next is decided by.

use serde_json::Value;

use super::sets::{
    available, by_age, find_new, is_outdated, make, max_then, number, refreshed, revision, scaled,
    total, wanted,
};
use crate::object;
use crate::rollout::Limits;

/// Changes of ReplicaSets.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controllers::workloads) struct Plan {
    pub(in crate::controllers::workloads) create: Option<Value>,
    pub(in crate::controllers::workloads) update: Vec<Value>,
    pub(in crate::controllers::workloads) delete: Vec<Value>,
}

/// The next step. `sets` are the Deployment's own; `old_pods` tells whether any pod of a set but
/// the new one still runs.
pub(in crate::controllers::workloads) fn plan(
    deployment: &Value,
    sets: &[Value],
    old_pods: bool,
) -> Plan {
    if object::is_terminating(deployment) {
        return Plan::default();
    }
    let new = find_new(deployment, sets);
    let mut old = sets.to_vec();
    old.retain(|set| Some(object::name(set)) != new.map(object::name));
    old.sort_by_key(by_age);
    let is_paused = deployment["spec"]["paused"] == true;
    if is_paused || sets.iter().any(|set| is_outdated(deployment, set)) {
        let update = scale(deployment, new, &old);
        return Plan {
            update,
            ..Plan::default()
        };
    }
    let next = old.iter().map(revision).max().unwrap_or(0) + 1;
    let is_recreate = deployment["spec"]["strategy"]["type"] == "Recreate";
    if is_recreate && (old.iter().any(|set| wanted(set) > 0) || (old_pods && new.is_none())) {
        let active = old.iter().filter(|set| wanted(set) > 0);
        let update = active.map(|set| scaled(deployment, set, 0)).collect();
        return Plan {
            update,
            ..Plan::default()
        };
    }
    let Some(new) = new else {
        let replicas = grown(deployment, 0, total(&old));
        return Plan {
            create: Some(make(deployment, next, replicas)),
            ..Plan::default()
        };
    };
    let refreshed = refreshed(deployment, next, new);
    let size = grown(deployment, wanted(new), total(sets));
    if size != wanted(new) || refreshed != *new {
        let update = vec![scaled(deployment, &refreshed, size)];
        return Plan {
            update,
            ..Plan::default()
        };
    }
    let update = shrink_old(deployment, new, &old);
    if !update.is_empty() || !is_complete(deployment, &deployment["status"]) {
        return Plan {
            update,
            ..Plan::default()
        };
    }
    Plan {
        delete: beyond_history(deployment, old),
        ..Plan::default()
    }
}

/// The size of the new set: as large as the surge lets it be.
fn grown(deployment: &Value, size: i64, all: i64) -> i64 {
    let wanted = wanted(deployment);
    if size > wanted || deployment["spec"]["strategy"]["type"] == "Recreate" {
        return wanted;
    }
    let room = wanted + Limits::of(deployment).surge - all;
    size + room.clamp(0, wanted - size)
}

/// Takes pods from the old sets, those that are not available first, while enough stay available.
fn shrink_old(deployment: &Value, new: &Value, old: &[Value]) -> Vec<Value> {
    let enough = wanted(deployment) - Limits::of(deployment).unavailable;
    let new_missing = (wanted(new) - serving(new)).max(0);
    let mut spare = total(old) + wanted(new) - enough - new_missing;
    let mut sizes: Vec<_> = old.iter().map(wanted).collect();
    if spare <= 0 {
        return Vec::new();
    }
    for (set, size) in old.iter().zip(&mut sizes) {
        let useless = (*size - serving(set)).clamp(0, spare);
        *size -= useless;
        spare -= useless;
    }
    let all = old.iter().map(serving).sum::<i64>() + serving(new);
    let mut spare = (all - enough).max(0);
    for size in &mut sizes {
        let less = (*size).min(spare);
        *size -= less;
        spare -= less;
    }
    let changed = old
        .iter()
        .zip(sizes)
        .filter(|(set, size)| wanted(set) != *size);
    changed
        .map(|(set, size)| scaled(deployment, set, size))
        .collect()
}

/// Available pods that the set keeps: its status may be of before it was made smaller.
fn serving(set: &Value) -> i64 {
    available(set).min(wanted(set))
}

/// Gives every set its share of a changed number.
fn scale(deployment: &Value, new: Option<&Value>, old: &[Value]) -> Vec<Value> {
    let goal = wanted(deployment);
    let all: Vec<_> = old.iter().chain(new).collect();
    let active: Vec<_> = all.iter().copied().filter(|set| wanted(set) > 0).collect();
    let resize = |set: &Value, size: i64| {
        let resized = scaled(deployment, set, size);
        (resized != *set).then_some(resized)
    };
    if active.len() <= 1 {
        let latest = || old.iter().max_by_key(|set| by_age(set));
        let only = active.first().copied().or(new).or_else(latest);
        return only.and_then(|set| resize(set, goal)).into_iter().collect();
    }
    let is_saturated = new.is_some_and(|new| wanted(new) == goal && available(new) == goal);
    if is_saturated || deployment["spec"]["strategy"]["type"] == "Recreate" {
        let of_old = active
            .iter()
            .filter(|set| Some(object::name(set)) != new.map(object::name));
        return of_old.filter_map(|set| resize(set, 0)).collect();
    }
    let allowed = match goal {
        0 => 0,
        goal => goal + Limits::of(deployment).surge,
    };
    let sum: i64 = active.iter().map(|set| wanted(set)).sum();
    let change = allowed - sum;
    let mut ranked = active;
    // Large before small; among equals the newer grows and the older shrinks.
    ranked.sort_by(|a, b| {
        let age = by_age(a).cmp(&by_age(b));
        let age = if change > 0 { age.reverse() } else { age };
        wanted(b).cmp(&wanted(a)).then(age)
    });
    let mut left = change;
    let mut sizes = Vec::new();
    for set in &ranked {
        let share = share(deployment, set, allowed, change, left);
        left -= share;
        sizes.push(wanted(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    ranked
        .into_iter()
        .zip(sizes)
        .filter_map(|(set, size)| resize(set, size))
        .collect()
}

/// The part of `change` that falls on one set, never more than is `left`.
fn share(deployment: &Value, set: &Value, allowed: i64, change: i64, left: i64) -> i64 {
    let size = wanted(set);
    let max = max_then(deployment, set);
    let in_proportion = if allowed == 0 {
        0
    } else {
        // Rounded to the nearest.
        (size.saturating_mul(allowed).saturating_mul(2) + max) / (2 * max)
    };
    let share = in_proportion - size;
    if change > 0 {
        share.clamp(0, left.max(0))
    } else {
        share.clamp(left.min(0), 0)
    }
}

/// Every pod that is wanted is of the new template and available, and no other is left.
pub(super) fn is_complete(deployment: &Value, status: &Value) -> bool {
    let goal = wanted(deployment);
    ["updatedReplicas", "replicas", "availableReplicas"]
        .iter()
        .all(|field| number(status, &[field]) == goal)
        && number(status, &["observedGeneration"])
            >= number(deployment, &["metadata", "generation"])
}

fn beyond_history(deployment: &Value, mut old: Vec<Value>) -> Vec<Value> {
    old.retain(|set| !object::is_terminating(set));
    let limit = number(deployment, &["spec", "revisionHistoryLimit"]);
    let beyond = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(revision);
    old.truncate(beyond);
    old.retain(|set| {
        wanted(set) == 0
            && number(set, &["status", "replicas"]) == 0
            && number(set, &["status", "observedGeneration"])
                >= number(set, &["metadata", "generation"])
    });
    old
}
