//! Nodes that fall silent, and pods that a node's taints throw out.
//!
//! ```text
//!   lease renewed ──> as the node says itself
//!   lease older than 50 s ──> Ready: Unknown, tainted unreachable ──> pods go when their
//!                                                                    toleration has run out
//! ```
//!
//! A node without a lease is somebody else's business.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::events::News;
use super::hands::Hands;
use super::pods::{condition, is_finished, sooner};
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, set_condition};
use crate::object;
use crate::resource::{LEASES, NODES, PODS, Resource};
use crate::scheduler::tolerates;
use crate::status::Status;
use crate::time;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Upstream's time of grace.
const GRACE: SignedDuration = SignedDuration::from_secs(50);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct NodeLifecycle {
    hands: Hands,
}

impl NodeLifecycle {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "node-controller");
        Self { hands }
    }
}

/// What is left of a node's grace; none if it has no lease.
fn grace(lease: Option<&Value>, now: Timestamp) -> Option<Duration> {
    let renewed = time::parse(object::text(lease?, &["spec", "renewTime"]))?;
    let left = (renewed + GRACE).duration_since(now);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

fn readiness(node: &Value) -> &str {
    condition(node, "Ready").map_or("", |one| object::text(one, &["status"]))
}

/// The taints that the node's readiness asks for, beside those that are not ours.
fn taints(node: &Value, now: Timestamp) -> Vec<Value> {
    let present = object::items(node, &["spec", "taints"]);
    let is_ours = |taint: &&Value| taint["key"] == UNREACHABLE || taint["key"] == NOT_READY;
    let mut wanted: Vec<_> = present
        .iter()
        .filter(|one| !is_ours(one))
        .cloned()
        .collect();
    let key = match readiness(node) {
        "True" | "" => return wanted,
        "False" => NOT_READY,
        _ => UNREACHABLE,
    };
    for effect in ["NoSchedule", "NoExecute"] {
        let is_it = |one: &&Value| one["key"] == key && one["effect"] == effect;
        let taint = present.iter().find(is_it).cloned();
        wanted.push(taint.unwrap_or_else(|| {
            let mut taint = json!({"key": key, "effect": effect});
            if effect == "NoExecute" {
                taint["timeAdded"] = time::seconds(now).into();
            }
            taint
        }));
    }
    wanted
}

/// When the node's taints throw the pod out: now, later, or never.
fn eviction(pod: &Value, node: &Value, now: Timestamp) -> Option<Duration> {
    let mut soonest = None;
    for taint in object::items(node, &["spec", "taints"]) {
        if taint["effect"] != "NoExecute" {
            continue;
        }
        let text = |field: &str| object::text(taint, &[field]);
        if !tolerates(pod, text("key"), text("value"), "NoExecute") {
            return Some(Duration::ZERO);
        }
        let added = time::parse(text("timeAdded")).unwrap_or(now);
        // The shortest of the tolerations that fit.
        for toleration in object::items(pod, &["spec", "tolerations"]) {
            let alone = json!({"spec": {"tolerations": [toleration]}});
            if !tolerates(&alone, text("key"), text("value"), "NoExecute") {
                continue;
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                let end = added + SignedDuration::from_secs(seconds.max(0));
                let left = Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO);
                soonest = sooner(soonest, Some(left));
            }
        }
    }
    soonest
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle";
    const WATCHED: &'static [&'static Resource] = &[&NODES, &LEASES, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let object = &changed.object;
        if changed.is(&NODES) {
            return vec![object::name(object).to_owned()];
        }
        if changed.is(&LEASES) {
            let is_of_node = object::namespace(object) == Some(LEASE_NAMESPACE);
            let name = object::name(object).to_owned();
            return is_of_node.then_some(name).into_iter().collect();
        }
        let node = object::text(object, &["spec", "nodeName"]);
        let has_taints = self.hands.known.get(&NODES, &format!("/{node}"));
        let has_taints =
            has_taints.is_some_and(|node| !object::items(&node, &["spec", "taints"]).is_empty());
        has_taints.then(|| node.to_owned()).into_iter().collect()
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(mut node) = hands.known.get(&NODES, &format!("/{at}")) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let lease = hands.known.get(&LEASES, &format!("{LEASE_NAMESPACE}/{at}"));
        let grace = grace(lease.as_ref(), now);
        let mut again = grace.filter(|left| !left.is_zero());
        if grace == Some(Duration::ZERO) && readiness(&node) != "Unknown" {
            let mut silent = node.clone();
            let why = ("NodeStatusUnknown", "Kubelet stopped posting node status.");
            set_condition(&mut silent, "Ready", "Unknown", Some(why), now);
            let status = silent["status"].clone();
            node = hands.update_status(&NODES, &node, status).await?;
            let message = format!("Node {at} status is now: NodeNotReady");
            hands
                .tell(&node, News::normal("NodeNotReady", message))
                .await;
        }
        // A node that has no lease keeps its own taints in order.
        if lease.is_some() {
            let wanted = taints(&node, now);
            if object::items(&node, &["spec", "taints"]) != wanted {
                object::map_mut(&mut node, "spec").insert("taints".into(), wanted.into());
                node = hands.update(&NODES, node).await?;
            }
        }
        let throws_out = object::items(&node, &["spec", "taints"])
            .iter()
            .any(|taint| taint["effect"] == "NoExecute");
        if throws_out {
            again = sooner(again, self.evict(&node, now).await?);
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl NodeLifecycle {
    async fn evict(&self, node: &Value, now: Timestamp) -> Result<Option<Duration>, Status> {
        let mut again = None;
        let mut pods = self.hands.known.all(&PODS, None);
        pods.retain(|pod| {
            let is_here = pod["spec"]["nodeName"] == object::name(node);
            is_here && !is_finished(pod) && !object::is_terminating(pod)
        });
        for pod in pods {
            match eviction(&pod, node, now) {
                Some(left) if left.is_zero() => {
                    let (namespace, name) = (object::namespace(&pod), object::name(&pod));
                    let at = format!("{}/{name}", namespace.unwrap_or_default());
                    let message = format!("Marking for deletion Pod {at}");
                    let news = News::normal("TaintManagerEviction", message);
                    self.hands.tell(&pod, news).await;
                    self.hands.delete(&PODS, &pod).await?;
                }
                left => again = sooner(again, left),
            }
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str) -> Value {
        json!({"metadata": {"name": "fra"}, "spec": {"taints": [{"key": "own", "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn a_node_that_falls_silent_is_tainted_and_clean_again_when_it_is_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lease = json!({"spec": {"renewTime": "1970-01-01T00:00:10.000000Z"}});
        assert_eq!(grace(Some(&lease), at(20)), Some(Duration::from_secs(40)));
        assert_eq!(grace(Some(&lease), at(61)), Some(Duration::ZERO));
        assert_eq!(grace(None, at(61)), None);
        let tainted = taints(&node("Unknown"), at(61));
        assert_eq!(tainted.len(), 3);
        assert_eq!(tainted[2]["timeAdded"], "1970-01-01T00:01:01Z");
        let mut back = node("True");
        back["spec"]["taints"] = tainted.into();
        assert_eq!(
            taints(&back, at(70)),
            object::items(&node("True"), &["spec", "taints"])
        );
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut node = node("Unknown");
        node["spec"]["taints"] = json!([{"key": UNREACHABLE, "effect": "NoExecute",
            "timeAdded": "1970-01-01T00:00:00Z"}]);
        let pod = |tolerations: Value| json!({"spec": {"tolerations": tolerations}});
        let own = json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"});
        let mut short = own.clone();
        short["tolerationSeconds"] = 300.into();
        assert_eq!(
            eviction(&pod(json!([])), &node, at(5)),
            Some(Duration::ZERO)
        );
        assert_eq!(eviction(&pod(json!([own])), &node, at(5)), None);
        let limited = pod(json!([short]));
        assert_eq!(
            eviction(&limited, &node, at(5)),
            Some(Duration::from_secs(295))
        );
    }
}
