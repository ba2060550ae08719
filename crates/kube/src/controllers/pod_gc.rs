//! Pods that nobody looks after any more: on nodes that have gone, and ended ones beyond a number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::hands::Hands;
use super::pods::{is_finished, phase};
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, DeleteOptions, set_condition};
use crate::object;
use crate::resource::{NODES, PODS, Resource};
use crate::status::Status;

/// How long a node may be missing before its pods are given up; upstream's time.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods that are kept; upstream's number.
const ENDED_MAX: usize = 12_500;
/// The queue's name for the look at all ended pods; no node is called so.
const ENDED: &str = "ended pods";

pub(super) struct PodGc {
    hands: Hands,
    missing: Mutex<Missing>,
    /// Pods that have ended, about.
    ended: Mutex<usize>,
}

/// Nodes that have pods and are missing, and since when.
#[derive(Debug, Default)]
struct Missing(HashMap<String, Instant>);

impl Missing {
    /// What is left of a missing node's time. It begins anew when it is over: the pods that came
    /// since have theirs, as their node may only be late.
    fn left(&mut self, node: &str, now: Instant) -> Duration {
        let since = *self.0.entry(node.to_owned()).or_insert(now);
        let left = QUARANTINE.saturating_sub(now.duration_since(since));
        if left.is_zero() {
            self.0.remove(node);
        }
        left
    }

    fn is_back(&mut self, node: &str) {
        self.0.remove(node);
    }
}

impl PodGc {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        Self {
            hands: Hands::new(api, watches, "pod-garbage-collector"),
            missing: Mutex::default(),
            ended: Mutex::default(),
        }
    }
}

/// The oldest ended pods beyond `max`.
fn surplus(mut pods: Vec<Value>, max: usize) -> Vec<Value> {
    pods.retain(|pod| is_finished(pod) && !object::is_terminating(pod));
    pods.sort_by_cached_key(|pod| {
        let made = object::meta(pod, "creationTimestamp").unwrap_or_default();
        (made.to_owned(), object::name(pod).to_owned())
    });
    let surplus = pods.len().saturating_sub(max);
    pods.truncate(surplus);
    pods
}

impl Controller for PodGc {
    const NAME: &'static str = "pod-gc";
    const WATCHED: &'static [&'static Resource] = &[&PODS, &NODES];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&NODES) {
            return vec![object::name(&changed.object).to_owned()];
        }
        let mut concerned = Vec::new();
        let node = object::text(&changed.object, &["spec", "nodeName"]);
        if !node.is_empty() && self.hands.known.get(&NODES, &format!("/{node}")).is_none() {
            concerned.push(node.to_owned());
        }
        if is_finished(&changed.object) {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            *ended += 1;
            if *ended > ENDED_MAX {
                concerned.push(ENDED.to_owned());
            }
        }
        concerned
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        if at == ENDED {
            let pods = self.hands.known.all(&PODS, None);
            let ended = pods.iter().filter(|pod| is_finished(pod)).count();
            for pod in surplus(pods, ENDED_MAX) {
                self.delete(&pod).await?;
            }
            let mut known = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            *known = ended.min(ENDED_MAX);
            return Ok(Outcome::Done);
        }
        let left = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.hands.known.get(&NODES, &format!("/{at}")).is_some() {
                missing.is_back(at);
                return Ok(Outcome::Done);
            }
            missing.left(at, Instant::now())
        };
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        let mut pods = self.hands.known.all(&PODS, None);
        pods.retain(|pod| pod["spec"]["nodeName"] == at);
        for pod in pods {
            self.give_up(pod).await?;
        }
        Ok(Outcome::Done)
    }
}

impl PodGc {
    /// A pod whose node has gone has failed, and then goes without grace.
    async fn give_up(&self, pod: Value) -> Result<(), Status> {
        let mut pod = pod;
        if !matches!(phase(&pod), "Succeeded" | "Failed") {
            let mut failed = pod.clone();
            failed["status"]["phase"] = json!("Failed");
            let why = ("DeletionByPodGC", "PodGC: node no longer exists");
            let now = jiff::Timestamp::now();
            set_condition(&mut failed, "DisruptionTarget", "True", Some(why), now);
            let status = failed["status"].clone();
            pod = self.hands.update_status(&PODS, &pod, status).await?;
        }
        self.delete(&pod).await
    }

    async fn delete(&self, pod: &Value) -> Result<(), Status> {
        let options = DeleteOptions::now().with_uid(object::uid(pod));
        self.hands.delete_with(&PODS, pod, &options).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once the quarantine was over for good, and every further pod of that node went at once: no
    /// StatefulSet or Job there came to anything again.
    #[test]
    fn each_pod_of_a_missing_node_has_the_time_of_grace() {
        let mut missing = Missing::default();
        let start = Instant::now();
        let mut left = |after_s: u64| missing.left("fra", start + Duration::from_secs(after_s));
        assert_eq!(left(0), QUARANTINE);
        assert_eq!(left(39), Duration::from_secs(1));
        assert_eq!(left(40), Duration::ZERO);
        assert_eq!(left(41), QUARANTINE);
        missing.is_back("fra");
        assert_eq!(
            missing.left("fra", start + Duration::from_secs(100)),
            QUARANTINE
        );
    }

    #[test]
    fn the_oldest_ended_pods_go_first_and_running_ones_never() {
        let pod = |name: &str, phase: &str| json!({"metadata": {"name": name, "creationTimestamp": name}, "status": {"phase": phase}});
        let pods = vec![
            pod("3", "Failed"),
            pod("1", "Running"),
            pod("2", "Succeeded"),
        ];
        let gone = surplus(pods, 1);
        assert_eq!(gone.iter().map(object::name).collect::<Vec<_>>(), ["2"]);
    }
}
