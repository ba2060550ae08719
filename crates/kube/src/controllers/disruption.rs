//! PodDisruptionBudgets: how many of the selected pods may be taken away now.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::events::News;
use super::hands::Hands;
use super::owner;
use super::pods::{is_finished, is_ready, number, sooner};
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource,
    STATEFUL_SETS,
};
use crate::rollout::Bound;
use crate::status::Status;
use crate::time;

/// A pod that was to be evicted and is still there after this counts again; upstream's time.
const EVICTION_MAX: SignedDuration = SignedDuration::from_mins(2);

pub(super) struct Disruption {
    hands: Hands,
}

impl Disruption {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "disruption-controller");
        Self { hands }
    }
}

/// How many pods the budget's owners want, by uid; an error if somebody's pod has no owner that
/// tells.
type Wanted = Result<BTreeMap<String, i64>, String>;

/// How many pods there should be, and how many have to be healthy.
fn expectation(budget: &Value, pods: &[Value], wanted: &Wanted) -> Result<(i64, i64), String> {
    let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let bound = |field: &str| Bound::parse(&budget["spec"][field]);
    let total = || wanted.as_ref().map(|wanted| wanted.values().sum::<i64>());
    if let Some(max) = bound("maxUnavailable") {
        let expected = total().map_err(Clone::clone)?;
        return Ok((expected, (expected - max.of(expected, true)).max(0)));
    }
    match bound("minAvailable") {
        Some(Bound::Pods(pods)) => Ok((count, pods)),
        Some(share @ Bound::Percent(_)) => {
            let expected = total().map_err(Clone::clone)?;
            Ok((expected, share.of(expected, true)))
        }
        None => Ok((count, 0)),
    }
}

/// The status, and when an eviction that came to nothing is forgotten.
fn status(
    budget: &Value,
    pods: &[Value],
    wanted: &Wanted,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let mut status = budget["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let generation = &budget["metadata"]["generation"];
    let (expected, desired) = match expectation(budget, pods, wanted) {
        Ok(found) => found,
        Err(why) => {
            status["disruptionsAllowed"] = 0.into();
            condition(&mut status, "False", "SyncFailed", &why, generation, now);
            return (status, None);
        }
    };
    let mut again = None;
    let mut evicted = serde_json::Map::new();
    let told = budget["status"]["disruptedPods"].as_object();
    for (name, at) in told.into_iter().flatten() {
        let is_there = |pod: &&Value| object::name(pod) == name && !object::is_terminating(pod);
        let since = at.as_str().and_then(time::parse).unwrap_or(now);
        let left = Duration::try_from((since + EVICTION_MAX).duration_since(now));
        if let (Some(_), Ok(left)) = (pods.iter().find(is_there), left)
            && !left.is_zero()
        {
            again = sooner(again, Some(left));
            evicted.insert(name.clone(), at.clone());
        }
    }
    let is_healthy = |pod: &&Value| {
        is_ready(pod) && !object::is_terminating(pod) && !evicted.contains_key(object::name(pod))
    };
    let healthy = pods.iter().filter(is_healthy).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if expected > 0 {
        (healthy - desired).max(0)
    } else {
        0
    };
    for (field, number) in [
        ("currentHealthy", healthy),
        ("desiredHealthy", desired),
        ("expectedPods", expected),
        ("disruptionsAllowed", allowed),
    ] {
        status[field] = number.into();
    }
    status["observedGeneration"] = generation.clone();
    let map = object::map_mut(&mut status, "disruptedPods");
    *map = evicted;
    if map.is_empty()
        && let Some(status) = status.as_object_mut()
    {
        status.remove("disruptedPods");
    }
    let (is_so, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    condition(&mut status, is_so, reason, "", generation, now);
    (status, again)
}

fn condition(
    status: &mut Value,
    is_so: &str,
    reason: &str,
    message: &str,
    generation: &Value,
    now: Timestamp,
) {
    let mut all = object::items(status, &["conditions"]).to_vec();
    let kind = "DisruptionAllowed";
    let present = all.iter().find(|one| one["type"] == kind);
    let same = present.filter(|one| one["status"] == is_so);
    let since = same.map_or(json!(time::seconds(now)), |one| {
        one["lastTransitionTime"].clone()
    });
    let condition = json!({"type": kind, "status": is_so, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": since});
    all.retain(|one| one["type"] != kind);
    all.push(condition);
    status["conditions"] = all.into();
}

impl Controller for Disruption {
    const NAME: &'static str = "disruption";
    const WATCHED: &'static [&'static Resource] = &[
        &POD_DISRUPTION_BUDGETS,
        &PODS,
        &REPLICA_SETS,
        &DEPLOYMENTS,
        &STATEFUL_SETS,
        &REPLICATION_CONTROLLERS,
    ];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&POD_DISRUPTION_BUDGETS) {
            return vec![changed.key()];
        }
        let known = &self.hands.known;
        let namespace = Some(changed.namespace());
        if changed.is(&PODS) {
            return known.keys(&POD_DISRUPTION_BUDGETS, namespace, |budget| {
                changed.is_or_was_selected(&budget["spec"]["selector"])
            });
        }
        // A workload's number matters to the budgets that its pods fall under.
        let labels = &changed.object["spec"]["template"]["metadata"]["labels"];
        known.keys(&POD_DISRUPTION_BUDGETS, namespace, |budget| {
            crate::label_selector::matches(&budget["spec"]["selector"], labels)
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(budget) = hands.known.get(&POD_DISRUPTION_BUDGETS, at) else {
            return Ok(Outcome::Done);
        };
        let namespace = object::namespace(&budget).unwrap_or_default();
        let selector = &budget["spec"]["selector"];
        let mut pods = hands.known.selected(&PODS, namespace, selector);
        pods.retain(|pod| !is_finished(pod));
        if pods.is_empty() {
            let news = News::normal("NoPods", "No matching pods found");
            hands.tell(&budget, news).await;
        }
        let wanted = self.wanted(namespace, &pods);
        let (status, again) = status(&budget, &pods, &wanted, Timestamp::now());
        hands
            .update_status(&POD_DISRUPTION_BUDGETS, &budget, status)
            .await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Disruption {
    fn wanted(&self, namespace: &str, pods: &[Value]) -> Wanted {
        let mut wanted = BTreeMap::new();
        for pod in pods {
            let name = object::name(pod);
            let reference = owner::controller(pod)
                .ok_or_else(|| format!("found no controller ref for pod {name:?}"))?;
            let found = self.owner_of(namespace, reference);
            let found = found.ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
            wanted.insert(
                object::uid(&found).to_owned(),
                number(&found, &["spec", "replicas"]).unwrap_or(1),
            );
        }
        Ok(wanted)
    }

    /// Who says how many there should be: a ReplicaSet's Deployment, if it has one.
    fn owner_of(&self, namespace: &str, reference: &Value) -> Option<Value> {
        let text = |field: &str| object::text(reference, &[field]);
        let key = format!("{namespace}/{}", text("name"));
        let known = &self.hands.known;
        let found = match text("kind") {
            "ReplicaSet" => {
                let set = known.get(&REPLICA_SETS, &key)?;
                if let Some(reference) = owner::controller(&set) {
                    return self.owner_of(namespace, reference);
                }
                set
            }
            "Deployment" => known.get(&DEPLOYMENTS, &key)?,
            "StatefulSet" => known.get(&STATEFUL_SETS, &key)?,
            "ReplicationController" => known.get(&REPLICATION_CONTROLLERS, &key)?,
            // A custom resource with a scale.
            kind => {
                let row = self
                    .hands
                    .api
                    .resources()
                    .find_kind(text("apiVersion"), kind)?;
                known.get(&row, &key)?
            }
        };
        (object::uid(&found) == text("uid")).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(ready: usize, unready: usize) -> Vec<Value> {
        let pod = |index: usize| {
            let is_ready = if index < ready { "True" } else { "False" };
            json!({"metadata": {"name": format!("p{index}")}, "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": is_ready}]}})
        };
        (0..ready + unready).map(pod).collect()
    }

    fn numbers(spec: Value, pods: &[Value], wanted: &Wanted) -> [i64; 4] {
        let budget = json!({"metadata": {"generation": 1}, "spec": spec});
        let (status, _) = status(&budget, pods, wanted, Timestamp::UNIX_EPOCH);
        [
            "expectedPods",
            "desiredHealthy",
            "currentHealthy",
            "disruptionsAllowed",
        ]
        .map(|field| status[field].as_i64().unwrap_or(-1))
    }

    #[test]
    fn a_budget_allows_what_is_healthy_beyond_what_must_be() {
        let wanted = Ok(BTreeMap::from([("u".to_owned(), 5)]));
        let cases = [
            (json!({"minAvailable": 2}), [3, 2, 3, 1]),
            (json!({"minAvailable": "50%"}), [5, 3, 3, 0]),
            (json!({"maxUnavailable": 1}), [5, 4, 3, 0]),
            (json!({"maxUnavailable": "60%"}), [5, 2, 3, 1]),
        ];
        for (spec, expected) in cases {
            assert_eq!(
                numbers(spec.clone(), &pods(3, 0), &wanted),
                expected,
                "{spec}"
            );
        }
        assert_eq!(
            numbers(json!({"minAvailable": 0}), &[], &wanted),
            [0, 0, 0, 0]
        );
        let unowned = Err("found no controllers for pod \"p0\"".to_owned());
        assert_eq!(
            numbers(json!({"maxUnavailable": 1}), &pods(3, 0), &unowned)[3],
            0
        );
    }

    #[test]
    fn a_pod_that_is_being_evicted_counts_no_more_for_two_minutes() {
        let mut budget = json!({"metadata": {"generation": 1}, "spec": {"minAvailable": 1},
            "status": {"disruptedPods": {"p0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"}}});
        let at = |second| Timestamp::from_second(second).unwrap();
        let (during, again) = status(&budget, &pods(3, 0), &Ok(BTreeMap::new()), at(20));
        assert_eq!(
            during["disruptedPods"],
            json!({"p0": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(
            (&during["disruptionsAllowed"], again),
            (&json!(1), Some(Duration::from_secs(100)))
        );
        budget["status"] = during;
        let (after, _) = status(&budget, &pods(3, 0), &Ok(BTreeMap::new()), at(121));
        assert_eq!(after["disruptedPods"], Value::Null);
        assert_eq!(after["disruptionsAllowed"], 2);
        assert_eq!(after["conditions"][0]["reason"], "SufficientPods");
    }
}
