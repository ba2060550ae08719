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

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::{Api, Selector};
use crate::controllers::events::{News, Recorder};
use crate::controllers::informer::{self, Change};
use crate::object;
use crate::resource::{NODES, PODS};
use crate::status::Status;

const NAME: &str = "default-scheduler";
/// Time before a binding that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Schedules until `shutdown`.
pub async fn run(api: Api, shutdown: CancellationToken) {
    // Upstream's scheduler owns what it writes under its program's name.
    let api = api.acting_as(api.caller().user.clone(), "kube-scheduler");
    let recorder = Recorder::new(api.clone(), NAME, "");
    let mut pods = informer::follow(&api, &PODS, Selector::default());
    let mut nodes = informer::follow(&api, &NODES, Selector::default());
    let mut cluster = Cluster::default();
    loop {
        let retry = async {
            match cluster.failed.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            Some(change) = pods.recv() => cluster.take_pod(change),
            Some(change) = nodes.recv() => cluster.take_node(change),
            () = retry => cluster.pending = std::mem::take(&mut cluster.failed),
            () = shutdown.cancelled() => return,
        }
        if !cluster.is_complete() {
            continue;
        }
        for uid in cluster.take_pending() {
            let Some(pod) = cluster.pods().get(&uid).cloned() else {
                continue;
            };
            match place(&api, &recorder, &cluster, &pod).await {
                Ok(Some(bound)) => cluster.take_pod(Change::Changed(bound)),
                Ok(None) => {}
                // Bound, changed or deleted by somebody else: the watch tells what it is now.
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    debug!(pod = object::name(&pod), %error, "pod changed under the scheduler");
                }
                Err(error) => {
                    warn!(pod = object::name(&pod), %error, "pod not scheduled");
                    cluster.failed.insert(uid);
                }
            }
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

/// Copies of what decisions are made from.
#[derive(Debug, Default)]
struct Cluster {
    pods: Option<HashMap<String, Value>>,
    nodes: Option<HashMap<String, Value>>,
    /// Pods to look at, by uid.
    pending: HashSet<String>,
    /// Pods whose binding could not be written.
    failed: HashSet<String>,
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

    /// In the order of their creation, so that those who wait longest get room first.
    fn take_pending(&mut self) -> Vec<String> {
        let mut uids: Vec<_> = self.pending.drain().collect();
        let pods = self.pods.as_ref();
        let created = |uid: &String| {
            let pod = pods.and_then(|pods| pods.get(uid));
            pod.and_then(|pod| object::meta(pod, "creationTimestamp"))
                .map(str::to_owned)
        };
        uids.sort_by_cached_key(|uid| (created(uid), uid.clone()));
        uids
    }

    fn take_pod(&mut self, change: Change) {
        match change {
            Change::Listed(pods) => {
                let pods = pods
                    .into_iter()
                    .map(|pod| (object::uid(&pod).to_owned(), pod));
                self.pods = Some(pods.collect());
                self.reconsider();
            }
            Change::Changed(pod) => {
                let uid = object::uid(&pod).to_owned();
                let pods = self.pods.get_or_insert_default();
                let before = pods.get(&uid);
                // Our own condition on a pod is no reason to look at it again.
                let same = before.is_some_and(|old| {
                    old["spec"] == pod["spec"]
                        && old["metadata"]["labels"] == pod["metadata"]["labels"]
                });
                let ended = fit::is_over(&pod) && before.is_some_and(|old| !fit::is_over(old));
                if !same && fit::is_ours(&pod) {
                    self.pending.insert(uid.clone());
                }
                pods.insert(uid, pod);
                if ended {
                    self.reconsider();
                }
            }
            Change::Deleted(pod) => {
                self.pods.get_or_insert_default().remove(object::uid(&pod));
                self.reconsider();
            }
        }
    }

    fn take_node(&mut self, change: Change) {
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
                    return;
                }
            }
            Change::Deleted(node) => {
                nodes.remove(object::name(&node));
            }
        }
        self.reconsider();
    }

    fn reconsider(&mut self) {
        let pods = self.pods.iter().flatten();
        let waiting = pods.filter(|(_, pod)| fit::is_ours(pod));
        self.pending.extend(waiting.map(|(uid, _)| uid.clone()));
    }
}
