//! The next step of a DaemonSet. Pure.
//!
//! ```text
//!   per node:   wanted and none ──create──> one
//!               not wanted, failed, or one too many ──delete──>
//!   over all:   old pods go as far as `maxUnavailable` lets them, or a new one
//!               stands beside the old one as far as `maxSurge` lets it
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::events::News;
use crate::controllers::pods::{self, Available, annotation, number, sooner};
use crate::object;
use crate::rollout::Bound;
use crate::scheduler::{selected, tolerates};

/// Names the revision of a pod.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// What every daemon's pod puts up with, as upstream adds it.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) delete: Vec<Value>,
    pub(super) status: Value,
    pub(super) news: Vec<News>,
    pub(super) again: Option<Duration>,
}

/// `pods` are the set's own; `hash` is that of the present template.
pub(super) fn plan(
    set: &Value,
    pods: &[Value],
    nodes: &[Value],
    hash: &str,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner::new(set, pods, nodes, hash, now);
    planner.plan.status = planner.status();
    if !object::is_terminating(set) {
        planner.manage();
        planner.roll();
        // A pod may be given up for two reasons.
        let mut seen = std::collections::BTreeSet::new();
        let delete = &mut planner.plan.delete;
        delete.retain(|pod| seen.insert(object::uid(pod).to_owned()));
    }
    planner.plan
}

/// The node that a pod is on, or is made for.
pub(super) fn node_of(pod: &Value) -> &str {
    let bound = object::text(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let path = [
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let terms = object::items(pod, &path).iter();
    let mut fields = terms.flat_map(|term| object::items(term, &["matchFields"]));
    let name = fields.find(|field| field["key"] == "metadata.name");
    name.and_then(|field| field["values"][0].as_str())
        .unwrap_or_default()
}

/// The set's pod for a node.
pub(super) fn pod_for(set: &Value, node: &str, hash: &str) -> Value {
    let mut pod = template_pod(set);
    pods::label(&mut pod, HASH_LABEL, hash);
    if let Some(generation) = annotation(set, GENERATION) {
        pods::label(&mut pod, GENERATION_LABEL, generation);
    }
    let spec = object::ensure_at(&mut pod, "spec");
    let affinity = object::ensure_at(spec, "affinity");
    let by_node = object::map_mut(affinity, "nodeAffinity");
    by_node.insert(
        "requiredDuringSchedulingIgnoredDuringExecution".into(),
        json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [node]}]}]}),
    );
    pod
}

/// The pod of the template with its tolerations, for no node in particular.
fn template_pod(set: &Value) -> Value {
    let mut pod = pods::of_template(&set["spec"]["template"], set);
    let is_on_host = pod["spec"]["hostNetwork"] == true;
    let mut tolerations = object::items(&pod, &["spec", "tolerations"]).to_vec();
    let all = TOLERATED.into_iter();
    for (key, effect) in all.chain(is_on_host.then_some(NETWORK_UNAVAILABLE)) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    object::map_mut(&mut pod, "spec").insert("tolerations".into(), tolerations.into());
    pod
}

/// Whether a node is to have a pod, and whether one that is there may stay.
fn wants(pod: &Value, node: &Value) -> (bool, bool) {
    let name = object::text(pod, &["spec", "nodeName"]);
    if (!name.is_empty() && name != object::name(node)) || !selected(pod, node) {
        return (false, false);
    }
    let untolerated = |effect: &str| {
        object::items(node, &["spec", "taints"])
            .iter()
            .any(|taint| {
                let text = |field| object::text(taint, &[field]);
                text("effect") == effect && !tolerates(pod, text("key"), text("value"), effect)
            })
    };
    let may_stay = !untolerated("NoExecute");
    (may_stay && !untolerated("NoSchedule"), may_stay)
}

struct OnNode<'a> {
    runs: bool,
    may_stay: bool,
    /// Oldest first.
    pods: Vec<&'a Value>,
}

struct Planner<'a> {
    set: &'a Value,
    hash: &'a str,
    now: Timestamp,
    nodes: BTreeMap<&'a str, OnNode<'a>>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(
        set: &'a Value,
        pods: &'a [Value],
        nodes: &'a [Value],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let template = template_pod(set);
        let on_node = |node: &'a Value| {
            let (runs, may_stay) = wants(&template, node);
            let pods = Vec::new();
            let on_node = OnNode {
                runs,
                may_stay,
                pods,
            };
            (object::name(node), on_node)
        };
        let mut by_node: BTreeMap<_, _> = nodes.iter().map(on_node).collect();
        let mut plan = Plan::default();
        for pod in pods {
            match by_node.get_mut(node_of(pod)) {
                Some(node) => node.pods.push(pod),
                // Made for a node that has gone before it got there.
                None if object::text(pod, &["spec", "nodeName"]).is_empty()
                    && !object::is_terminating(pod) =>
                {
                    plan.delete.push(pod.clone());
                }
                None => {}
            }
        }
        for node in by_node.values_mut() {
            node.pods.sort_by_cached_key(|pod| {
                let is_bound = !object::text(pod, &["spec", "nodeName"]).is_empty();
                let made = object::meta(pod, "creationTimestamp").unwrap_or_default();
                (!is_bound, made.to_owned(), object::name(pod).to_owned())
            });
        }
        Self {
            set,
            hash,
            now,
            nodes: by_node,
            plan,
        }
    }

    fn is_new(&self, pod: &Value) -> bool {
        object::label(pod, HASH_LABEL) == Some(self.hash)
    }

    fn min_ready_s(&self) -> i64 {
        number(self.set, &["spec", "minReadySeconds"]).unwrap_or(0)
    }

    fn is_available(&self, pod: &Value) -> bool {
        pods::available(pod, self.min_ready_s(), self.now) == Available::Yes
    }

    fn wanted(&self) -> i64 {
        let wanted = self.nodes.values().filter(|node| node.runs).count();
        i64::try_from(wanted).unwrap_or(i64::MAX)
    }

    /// How many pods may be missing, and how many nodes may have two.
    fn limits(&self) -> (usize, usize) {
        let update = &self.set["spec"]["updateStrategy"]["rollingUpdate"];
        let bound = |field: &str| Bound::parse(&update[field]);
        let of = |bound: Option<Bound>, default| {
            let pods = bound.map_or(default, |bound| bound.of(self.wanted(), true));
            usize::try_from(pods).unwrap_or(0)
        };
        let surge = of(bound("maxSurge"), 0);
        let unavailable = of(bound("maxUnavailable"), 1);
        if surge == 0 && unavailable == 0 {
            return (1, 0);
        }
        (unavailable, surge)
    }

    fn status(&mut self) -> Value {
        let (mut current, mut misplaced, mut ready) = (0, 0, 0);
        let (mut available, mut updated) = (0, 0);
        let wanted = self.wanted();
        for node in self.nodes.values() {
            let Some(pod) = node.pods.first() else {
                continue;
            };
            if !node.runs {
                misplaced += 1;
                continue;
            }
            current += 1;
            if pods::is_ready(pod) {
                ready += 1;
            }
            match pods::available(pod, self.min_ready_s(), self.now) {
                Available::Yes => available += 1,
                Available::In(left) => self.plan.again = sooner(self.plan.again, Some(left)),
                Available::No => {}
            }
            updated += i64::from(self.is_new(pod));
        }
        let mut status = json!({
            "currentNumberScheduled": current, "numberMisscheduled": misplaced,
            "desiredNumberScheduled": wanted, "numberReady": ready,
            "observedGeneration": self.set["metadata"]["generation"],
        });
        for (field, count) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", wanted - available),
            (
                "collisionCount",
                number(self.set, &["status", "collisionCount"]).unwrap_or(0),
            ),
        ] {
            // Go leaves zeros out.
            if count > 0 {
                status[field] = count.into();
            }
        }
        if let Some(conditions) = object::at(self.set, &["status", "conditions"]) {
            status["conditions"] = conditions.clone();
        }
        status
    }

    /// One pod on each node that is to have one, and none elsewhere.
    fn manage(&mut self) {
        let (_, surge) = self.limits();
        let mut plan = std::mem::take(&mut self.plan);
        for (name, node) in &self.nodes {
            if node.runs && node.pods.is_empty() {
                plan.create.push(pod_for(self.set, name, self.hash));
                continue;
            }
            let staying = node.pods.iter().copied();
            let staying = staying.filter(|pod| !object::is_terminating(pod));
            if !node.may_stay {
                plan.delete.extend(staying.cloned());
                continue;
            }
            let (ended, running): (Vec<_>, Vec<_>) =
                staying.partition(|pod| pods::is_finished(pod));
            for pod in ended {
                plan.news.push(self.tell_ended(pod, name));
                plan.delete.push(pod.clone());
            }
            plan.delete.extend(self.surplus(&running, surge > 0));
        }
        self.plan = plan;
    }

    fn tell_ended(&self, pod: &Value, node: &str) -> News {
        let namespace = object::namespace(pod).unwrap_or_default();
        let place = format!("{namespace}/{} on node {node}", object::name(pod));
        match pods::phase(pod) {
            "Failed" => {
                let message = format!("Found failed daemon pod {place}, will try to kill it");
                News::warning("FailedDaemonPod", message)
            }
            _ => {
                let message = format!("Found succeeded daemon pod {place}, will try to delete it");
                News::normal("SucceededDaemonPod", message)
            }
        }
    }

    /// All but the oldest; while a new one takes over, the oldest of both.
    fn surplus(&self, running: &[&Value], may_surge: bool) -> Vec<Value> {
        let (mut new, mut old) = (None, None);
        let mut surplus = Vec::new();
        for pod in running {
            let is_new = may_surge && self.is_new(pod);
            let kept = if is_new { &mut new } else { &mut old };
            match kept {
                None => *kept = Some(pod),
                Some(_) => surplus.push((*pod).clone()),
            }
        }
        surplus
    }

    /// Moves nodes from the old to the new template.
    fn roll(&mut self) {
        if object::text(self.set, &["spec", "updateStrategy", "type"]) == "OnDelete" {
            return;
        }
        let (unavailable, surge) = self.limits();
        if surge > 0 {
            self.roll_with_surge(surge);
        } else {
            self.roll_in_place(unavailable);
        }
    }

    /// The new and the old pod of a node that is to have one.
    fn pair(&self, node: &OnNode<'a>) -> (Option<&'a Value>, Option<&'a Value>) {
        let staying = || {
            let pods = node.pods.iter().copied();
            pods.filter(|pod| !object::is_terminating(pod) && !pods::is_finished(pod))
        };
        let new = staying().find(|pod| self.is_new(pod));
        let old = staying().find(|pod| !self.is_new(pod));
        (new, old)
    }

    fn roll_in_place(&mut self, max: usize) {
        let (mut missing, mut broken, mut whole) = (0, Vec::new(), Vec::new());
        for node in self.nodes.values().filter(|node| node.runs) {
            match self.pair(node) {
                (None, None) | (Some(_), Some(_)) => missing += 1,
                (Some(new), None) => missing += usize::from(!self.is_available(new)),
                (None, Some(old)) if !self.is_available(old) => {
                    missing += 1;
                    broken.push(old.clone());
                }
                (None, Some(old)) => whole.push(old.clone()),
            }
        }
        let room = max.saturating_sub(missing);
        self.plan.delete.extend(broken);
        self.plan.delete.extend(whole.into_iter().take(room));
    }

    fn roll_with_surge(&mut self, max: usize) {
        let (mut surging, mut broken, mut whole) = (0, Vec::new(), Vec::new());
        let mut delete = Vec::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.runs) {
            match self.pair(node) {
                (_, None) => {}
                (None, Some(old)) if !self.is_available(old) => broken.push(*name),
                (None, Some(_)) => whole.push(*name),
                (Some(new), Some(old)) if self.is_available(new) => delete.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        let room = max.saturating_sub(surging);
        let names = broken.into_iter().chain(whole.into_iter().take(room));
        let create = names.map(|name| pod_for(self.set, name, self.hash));
        let create: Vec<_> = create.collect();
        self.plan.create.extend(create);
        self.plan.delete.extend(delete);
    }
}
