//! The scheduler: binds each pod that nobody has placed to a node.
//!
//! A node is a region, so what is decided here is little: whether the pod may go there (labels,
//! taints, affinity) and whether the sums fit. Which host gets the machine is placement's
//! business, and whether there really is room is known when the machine is asked for.
//!
//! Follows pods and nodes; a pod that fits nowhere is looked at again when a node changes or
//! another pod leaves.

mod fit;

pub(crate) use self::fit::{selected, tolerates};

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::{Api, Selector};
use crate::controllers::events::{News, Recorder};
use crate::controllers::informer::{self, Change};
use crate::controllers::queue::{self, Outcome, Queue, Worker};
use crate::object;
use crate::resource::{NODES, PODS};
use crate::status::Status;

const NAME: &str = "default-scheduler";

/// Schedules until `shutdown`.
pub async fn run(api: Api, shutdown: CancellationToken) {
    // Upstream's scheduler owns what it writes under its program's name.
    let api = api.acting_as(api.caller().user.clone(), "kube-scheduler");
    let scheduler = Scheduler {
        recorder: Recorder::new(api.clone(), NAME, ""),
        pods: informer::follow(&api, &PODS, Selector::default()),
        nodes: informer::follow(&api, &NODES, Selector::default()),
        cluster: Cluster::default(),
        api,
    };
    tokio::select! {
        () = queue::work(scheduler) => {}
        () = shutdown.cancelled() => {}
    }
}

struct Scheduler {
    api: Api,
    recorder: Recorder,
    pods: mpsc::Receiver<Change>,
    nodes: mpsc::Receiver<Change>,
    cluster: Cluster,
}

enum Told {
    Pod(Change),
    Node(Change),
}

/// Names are the uids of pods.
impl Worker for Scheduler {
    const NAME: &'static str = "scheduler";
    /// The copy shows what somebody else wrote by then; else the next attempt fails as this one.
    const CONFLICT_RETRY: Duration = Duration::from_millis(50);
    type News = Told;

    async fn next(&mut self) -> Told {
        tokio::select! {
            Some(change) = self.pods.recv() => Told::Pod(change),
            Some(change) = self.nodes.recv() => Told::Node(change),
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, told: Told, queue: &mut Queue) {
        let look = match told {
            Told::Pod(change) => self.cluster.take_pod(change),
            Told::Node(change) => self.cluster.take_node(change),
        };
        look.iter().for_each(|uid| queue.add(uid));
    }

    fn is_ready(&self) -> bool {
        self.cluster.is_complete()
    }

    async fn sync(&mut self, uid: &str) -> Result<Outcome, Status> {
        let pod = self.cluster.pods().get(uid);
        let Some(pod) = pod.filter(|pod| fit::is_ours(pod)).cloned() else {
            return Ok(Outcome::Done);
        };
        match place(&self.api, &self.recorder, &self.cluster, &pod).await {
            Ok(Some(bound)) => {
                // A pod that has got its place makes none for others.
                self.cluster.take_pod(Change::Changed(bound));
                Ok(Outcome::Done)
            }
            Ok(None) => Ok(Outcome::Done),
            // The watch tells that it is gone.
            Err(status) if status.is_not_found() => Ok(Outcome::Done),
            Err(status) => Err(status),
        }
    }
}

/// Binds `pod`, or says why not. The bound pod if it was bound.
async fn place(
    api: &Api,
    recorder: &Recorder,
    cluster: &Cluster,
    pod: &Value,
) -> Result<Option<Value>, Status> {
    let namespace = object::namespace(pod).unwrap_or_default();
    let name = object::name(pod);
    match fit::choose(pod, cluster.nodes().values(), cluster.pods().values()) {
        Ok(node) => {
            let bound = api.bind(namespace, name, &node).await?;
            info!(namespace, pod = name, node, "pod bound");
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            recorder.tell(pod, News::normal("Scheduled", message)).await;
            Ok(Some(bound))
        }
        Err(why) => {
            let message = why.to_string();
            let condition = ("Unschedulable", message.as_str());
            api.set_pod_condition(namespace, name, "PodScheduled", "False", Some(condition))
                .await?;
            if said(pod) != message {
                recorder
                    .tell(pod, News::warning("FailedScheduling", message))
                    .await;
            }
            Ok(None)
        }
    }
}

/// What the pod's condition says already.
fn said(pod: &Value) -> &str {
    let conditions = object::items(pod, &["status", "conditions"]);
    let mut conditions = conditions.iter();
    conditions
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .map_or("", |condition| object::text(condition, &["message"]))
}

/// Copies of what decisions are made from. What they take in tells which pods to look at.
#[derive(Debug, Default)]
struct Cluster {
    pods: Option<HashMap<String, Value>>,
    nodes: Option<HashMap<String, Value>>,
}

impl Cluster {
    fn is_complete(&self) -> bool {
        self.pods.is_some() && self.nodes.is_some()
    }

    fn pods(&self) -> &HashMap<String, Value> {
        static NONE: std::sync::LazyLock<HashMap<String, Value>> =
            std::sync::LazyLock::new(HashMap::new);
        self.pods.as_ref().unwrap_or(&NONE)
    }

    fn nodes(&self) -> &HashMap<String, Value> {
        static NONE: std::sync::LazyLock<HashMap<String, Value>> =
            std::sync::LazyLock::new(HashMap::new);
        self.nodes.as_ref().unwrap_or(&NONE)
    }

    fn take_pod(&mut self, change: Change) -> Vec<String> {
        match change {
            Change::Listed(pods) => {
                let pods = pods
                    .into_iter()
                    .map(|pod| (object::uid(&pod).to_owned(), pod));
                self.pods = Some(pods.collect());
                self.waiting()
            }
            Change::Changed(pod) => {
                let uid = object::uid(&pod).to_owned();
                let pods = self.pods.get_or_insert_default();
                let before = pods.get(&uid);
                // The watch is late: a binding of our own is known at once.
                let rev = object::resource_version(&pod);
                if before.is_some_and(|old| object::resource_version(old) > rev) {
                    return Vec::new();
                }
                // Our own condition on a pod is no reason to look at it again.
                let same = before.is_some_and(|old| {
                    old["spec"] == pod["spec"]
                        && old["metadata"]["labels"] == pod["metadata"]["labels"]
                });
                let ended = fit::is_over(&pod) && before.is_some_and(|old| !fit::is_over(old));
                let is_new = !same && fit::is_ours(&pod);
                pods.insert(uid.clone(), pod);
                match (ended, is_new) {
                    (true, _) => self.waiting(),
                    (false, true) => vec![uid],
                    (false, false) => Vec::new(),
                }
            }
            Change::Deleted(pod) => {
                self.pods.get_or_insert_default().remove(object::uid(&pod));
                self.waiting()
            }
        }
    }

    fn take_node(&mut self, change: Change) -> Vec<String> {
        let nodes = self.nodes.get_or_insert_default();
        match change {
            Change::Listed(listed) => {
                let listed = listed.into_iter();
                *nodes = listed
                    .map(|node| (object::name(&node).to_owned(), node))
                    .collect();
            }
            Change::Changed(node) => {
                let before = nodes.insert(object::name(&node).to_owned(), node.clone());
                if before.is_some_and(|before| fit::same(&before, &node)) {
                    return Vec::new();
                }
            }
            Change::Deleted(node) => {
                nodes.remove(object::name(&node));
            }
        }
        self.waiting()
    }

    /// All that wait for a place, in the order of their creation, so that those who wait longest
    /// get room first.
    fn waiting(&self) -> Vec<String> {
        let pods = self.pods.iter().flatten();
        let waiting = pods.filter(|(_, pod)| fit::is_ours(pod));
        let created = |pod: &Value| object::meta(pod, "creationTimestamp").map(str::to_owned);
        let mut waiting: Vec<_> = waiting.map(|(uid, pod)| (created(pod), uid)).collect();
        waiting.sort();
        waiting.into_iter().map(|(_, uid)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, rev: u64, created: &str, node: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": rev.to_string(),
            "creationTimestamp": created}, "spec": {"nodeName": node}})
    }

    #[test]
    fn those_who_wait_longest_are_looked_at_first_and_a_late_watch_unbinds_nobody() {
        let mut cluster = Cluster::default();
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let all = vec![
            pod("b", 1, late, ""),
            pod("a", 2, late, ""),
            pod("c", 3, early, ""),
        ];
        assert_eq!(cluster.take_pod(Change::Listed(all)), ["c", "a", "b"]);
        assert!(!cluster.is_complete());
        assert_eq!(
            cluster.take_node(Change::Listed(Vec::new())),
            ["c", "a", "b"]
        );
        assert!(cluster.is_complete());
        assert!(
            cluster
                .take_pod(Change::Changed(pod("c", 9, early, "n")))
                .is_empty()
        );
        assert!(
            cluster
                .take_pod(Change::Changed(pod("c", 4, early, "")))
                .is_empty()
        );
        assert_eq!(cluster.waiting(), ["a", "b"]);
        // One that goes makes room.
        assert_eq!(
            cluster.take_pod(Change::Deleted(pod("c", 10, early, "n"))),
            ["a", "b"]
        );
    }
}
