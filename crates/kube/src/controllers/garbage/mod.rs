//! Garbage collection: what is owned goes when its owners go, before them, or stays as an orphan.
//!
//! The graph of all owner references is kept up by watches; whether an owner is really gone is
//! asked of the API before anything is deleted, so a watch that is late costs time only.

mod graph;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::graph::{Graph, Node, Owner, Stand, Step};
use super::events::{News, Recorder};
use super::informer::{self, Change};
use super::queue::{self, Outcome, Queue, Worker};
use crate::api::{Api, DeleteOptions, ORPHAN, Part, Patch, Propagation, Selector};
use crate::object;
use crate::resource::{EVENTS, Row, Snapshot};
use crate::status::Status;

/// Somebody else wrote in between.
const CONFLICT_RETRY: Duration = Duration::from_millis(100);

/// A resource that is followed: its group and plural.
type Id = (&'static str, &'static str);

/// All resources that are served, followed from when they come until they go.
#[derive(Default)]
struct Followed {
    changes: SelectAll<BoxStream<'static, (Row, Change)>>,
    ends: HashMap<Id, Follower>,
}

struct Follower {
    is_listed: bool,
    _ends: DropGuard,
}

impl Followed {
    /// Begins with what is new; returns what is no longer served.
    fn follow(&mut self, api: &Api) -> Vec<Id> {
        // Events own nothing and are owned by nobody.
        let mut served = api.resources().stored();
        served.retain(|row| !row.is(&EVENTS));
        let is_served = |id: &Id| served.iter().any(|row| (row.group, row.plural) == *id);
        let gone: Vec<_> = self
            .ends
            .keys()
            .copied()
            .filter(|id| !is_served(id))
            .collect();
        for id in &gone {
            self.ends.remove(id);
        }
        for row in served {
            let id = (row.group, row.plural);
            if self.ends.contains_key(&id) {
                continue;
            }
            let receiver = informer::follow(api, row.clone(), Selector::default());
            let next = |mut receiver: mpsc::Receiver<Change>| async {
                let change = receiver.recv().await?;
                Some((change, receiver))
            };
            let end = CancellationToken::new();
            let changes = futures::stream::unfold(receiver, next);
            let changes = changes.take_until(end.clone().cancelled_owned());
            let changes = changes.map(move |change| (row.clone(), change));
            self.changes.push(changes.boxed());
            let follower = Follower {
                is_listed: false,
                _ends: end.drop_guard(),
            };
            self.ends.insert(id, follower);
        }
        gone
    }

    /// The next change; none that is not of a followed resource.
    async fn next(&mut self) -> Option<(Row, Change)> {
        loop {
            let (row, change) = self.changes.next().await?;
            if let Some(follower) = self.ends.get_mut(&(row.group, row.plural)) {
                follower.is_listed |= matches!(change, Change::Listed(_));
                return Some((row, change));
            }
        }
    }

    /// Dependents have to be known before an owner is let go.
    fn is_listed(&self) -> bool {
        self.ends.values().all(|follower| follower.is_listed)
    }
}

pub(super) async fn run(api: &Api) {
    let mut followed = Followed::default();
    let served = api.resources().changed();
    followed.follow(api);
    let collector = Collector {
        api,
        served,
        followed,
        recorder: Recorder::new(api.clone(), "garbage-collector-controller", ""),
        graph: Graph::default(),
    };
    queue::work(collector).await;
}

struct Collector<'a> {
    api: &'a Api,
    /// What is served has changed.
    served: watch::Receiver<Arc<Snapshot>>,
    followed: Followed,
    recorder: Recorder,
    graph: Graph,
}

enum Told {
    Object(Box<Row>, Change),
    Served,
}

impl Worker for Collector<'_> {
    const NAME: &'static str = "garbage-collector";
    const CONFLICT_RETRY: Duration = CONFLICT_RETRY;
    type News = Told;

    async fn next(&mut self) -> Told {
        tokio::select! {
            Some((resource, change)) = self.followed.next() => {
                Told::Object(Box::new(resource), change)
            }
            Ok(()) = self.served.changed() => Told::Served,
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, told: Told, queue: &mut Queue) {
        match told {
            Told::Object(resource, change) => {
                for uid in take(&mut self.graph, &resource, change) {
                    queue.add(&uid);
                }
            }
            Told::Served => {
                for id in self.followed.follow(self.api) {
                    for uid in self.graph.of(id) {
                        let look = self.graph.remove(&uid);
                        look.iter().for_each(|uid| queue.add(uid));
                    }
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.followed.is_listed()
    }

    async fn sync(&mut self, uid: &str) -> Result<Outcome, Status> {
        tell_misplaced(&self.recorder, &self.graph, uid).await;
        match collect(self.api, &self.graph, uid).await {
            Ok(()) => Ok(Outcome::Done),
            // Gone already, or the watch tells.
            Err(status) if status.is_not_found() => Ok(Outcome::Done),
            Err(status) => Err(status),
        }
    }
}

fn take(graph: &mut Graph, resource: &Row, change: Change) -> Vec<String> {
    match change {
        Change::Listed(all) => {
            let mut look = Vec::new();
            let mut gone = graph.of((resource.group, resource.plural));
            for object in all {
                gone.retain(|uid| uid != object::uid(&object));
                look.extend(graph.put(object::uid(&object), Node::of(resource, &object)));
            }
            look.extend(gone.iter().flat_map(|uid| graph.remove(uid)));
            look
        }
        Change::Changed(object) => graph.put(object::uid(&object), Node::of(resource, &object)),
        Change::Deleted(object) => graph.remove(object::uid(&object)),
    }
}

/// Tells of an owner that can own nothing here, before what it does not own goes.
async fn tell_misplaced(recorder: &Recorder, graph: &Graph, uid: &str) {
    let Some(node) = graph.get(uid) else { return };
    let Some(owner) = graph.misplaced(node) else {
        return;
    };
    let namespace = node.namespace.as_deref().unwrap_or_default();
    let Owner {
        api_version,
        kind,
        name,
        uid: owner,
        ..
    } = owner;
    let message = format!(
        "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {owner}] does \
         not exist in namespace {namespace:?}"
    );
    let mut object = serde_json::json!({"apiVersion": node.resource.api_version(),
        "kind": node.resource.kind, "metadata": {"name": node.name, "uid": uid}});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    let news = News::warning("OwnerRefInvalidNamespace", message);
    recorder.tell(&object, news).await;
}

async fn collect(api: &Api, graph: &Graph, uid: &str) -> Result<(), Status> {
    let Some(node) = graph.get(uid) else {
        return Ok(());
    };
    match graph.step(uid, |owner| stand(api, node, owner)) {
        Step::Nothing => Ok(()),
        Step::Drop(owners) => drop_owners(api, node, uid, &owners).await,
        Step::Delete(propagation) => delete(api, node, uid, propagation).await,
        Step::BreakCycle => break_cycle(api, node, uid).await,
        Step::LetGo(finalizer) => let_go(api, node, uid, finalizer).await,
        Step::Free(dependents) => {
            for dependent in dependents {
                let Some(free) = graph.get(&dependent) else {
                    continue;
                };
                match drop_owners(api, free, &dependent, &[uid.to_owned()]).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    Ok(()) | Err(_) => {}
                }
            }
            free_unknown(api, node, uid).await?;
            let_go(api, node, uid, ORPHAN).await
        }
        Step::DeleteDependents(dependents) => {
            for dependent in dependents {
                let Some(found) = graph.get(&dependent) else {
                    continue;
                };
                let result = match graph.step(&dependent, |owner| stand(api, found, owner)) {
                    Step::Delete(propagation) => delete(api, found, &dependent, propagation).await,
                    Step::Drop(owners) => drop_owners(api, found, &dependent, &owners).await,
                    Step::BreakCycle => break_cycle(api, found, &dependent).await,
                    Step::Nothing | Step::Free(_) | Step::DeleteDependents(_) | Step::LetGo(_) => {
                        Ok(())
                    }
                };
                match result {
                    Err(status) if !status.is_not_found() => return Err(status),
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        }
    }
}

/// Sets free what names this owner and has not been told by its watch yet. All of the owner's
/// namespace is read for it, which is in memory; orphans are rare.
async fn free_unknown(api: &Api, owner: &Node, uid: &str) -> Result<(), Status> {
    let namespace = owner.namespace.as_deref();
    for row in api.resources().stored() {
        if !row.is_namespaced() && namespace.is_some() {
            continue;
        }
        let (objects, _) = api.list(&row, namespace, &Selector::default()).await?;
        for object in objects {
            let node = Node::of(&row, &object);
            if !node.owners.iter().any(|one| one.uid == uid) {
                continue;
            }
            match drop_owners(api, &node, object::uid(&object), &[uid.to_owned()]).await {
                Err(status) if !status.is_not_found() => return Err(status),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// How an owner stands now. One of a kind that is not served is somebody else's business: it
/// stays.
fn stand(api: &Api, node: &Node, owner: &Owner) -> Stand {
    let Some(resource) = api.resources().find_kind(&owner.api_version, &owner.kind) else {
        return Stand::Stays;
    };
    let namespace = node
        .namespace
        .as_deref()
        .filter(|_| resource.is_namespaced());
    if resource.is_namespaced() && namespace.is_none() {
        return Stand::Stays;
    }
    match api.read(&resource, namespace, &owner.name) {
        Ok(found) if object::uid(&found) != owner.uid => Stand::Gone,
        Ok(found) if Node::of(&resource, &found).waits() => Stand::Waits,
        Ok(_) => Stand::Stays,
        Err(status) if status.is_not_found() => Stand::Gone,
        Err(_) => Stand::Stays,
    }
}

/// Deletes it as it is now. The watches of its owner and of itself are not in step: who goes by an
/// older state deletes what has been set free since.
async fn delete(api: &Api, node: &Node, uid: &str, propagation: Propagation) -> Result<(), Status> {
    let found = current(api, node, uid).await?;
    if Node::of(&node.resource, &found).owners != node.owners {
        return Err(Status::modified(&node.resource, &node.name));
    }
    let mut options = DeleteOptions {
        propagation: Some(propagation),
        ..DeleteOptions::default()
    };
    options.preconditions.resource_version = Some(object::resource_version(&found).to_string());
    let options = options.with_uid(uid);
    let resource = served(api, node)?;
    api.delete(&resource, node.namespace.as_deref(), &node.name, &options)
        .await
        .map(drop)
}

async fn break_cycle(api: &Api, node: &Node, uid: &str) -> Result<(), Status> {
    let found = current(api, node, uid).await?;
    let mut references = object::items(&found, &["metadata", "ownerReferences"]).to_vec();
    for reference in &mut references {
        reference["blockOwnerDeletion"] = false.into();
    }
    write_meta(api, node, &found, "ownerReferences", references).await?;
    delete(api, node, uid, Propagation::Foreground).await
}

/// The resource of an object as it is defined now.
fn served(api: &Api, node: &Node) -> Result<Row, Status> {
    let current = api.resources().current(&node.resource);
    current.ok_or_else(|| Status::not_found(&node.resource, &node.name))
}

/// The object as it is, if it is still the one that is meant.
async fn current(api: &Api, node: &Node, uid: &str) -> Result<Value, Status> {
    let found = api
        .get(&node.resource, node.namespace.as_deref(), &node.name)
        .await?;
    if object::uid(&found) == uid {
        Ok(found)
    } else {
        Err(Status::not_found(&node.resource, &node.name))
    }
}

async fn drop_owners(api: &Api, node: &Node, uid: &str, owners: &[String]) -> Result<(), Status> {
    let found = current(api, node, uid).await?;
    let mut references = object::items(&found, &["metadata", "ownerReferences"]).to_vec();
    references.retain(|one| !owners.iter().any(|owner| one["uid"] == owner.as_str()));
    write_meta(api, node, &found, "ownerReferences", references).await
}

async fn let_go(api: &Api, node: &Node, uid: &str, finalizer: &str) -> Result<(), Status> {
    let found = current(api, node, uid).await?;
    let mut finalizers = object::items(&found, &["metadata", "finalizers"]).to_vec();
    finalizers.retain(|one| one != finalizer);
    write_meta(api, node, &found, "finalizers", finalizers).await
}

async fn write_meta(
    api: &Api,
    node: &Node,
    found: &Value,
    field: &str,
    left: Vec<Value>,
) -> Result<(), Status> {
    let left = if left.is_empty() {
        Value::Null
    } else {
        left.into()
    };
    let mut meta = serde_json::Map::new();
    meta.insert(field.to_owned(), left);
    meta.insert(
        "resourceVersion".into(),
        found["metadata"]["resourceVersion"].clone(),
    );
    let patch = Patch::merge(serde_json::json!({"metadata": meta}));
    let namespace = node.namespace.as_deref();
    let resource = served(api, node)?;
    api.patch(&resource, Part::Object, namespace, &node.name, &patch)
        .await
        .map(drop)
}
