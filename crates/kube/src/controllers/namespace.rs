//! A namespace that is deleted goes when it is empty: everything in it is deleted first, then its
//! finalizer is removed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::info;

use super::informer::{self, Change};
use super::queue::{self, Outcome, Queue, Worker};
use crate::api::{Api, DeleteOptions, Propagation, Selector};
use crate::object;
use crate::resource::{NAMESPACES, PODS, Row};
use crate::status::Status;

/// What keeps a namespace until this controller has emptied it.
const FINALIZER: &str = "kubernetes";
/// Pods take their grace to go; nothing tells this controller that one has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(api: &Api) {
    let namespaces = informer::follow(api, &NAMESPACES, Selector::default());
    queue::work(Namespaces { api, namespaces }).await;
}

struct Namespaces<'a> {
    api: &'a Api,
    namespaces: mpsc::Receiver<Change>,
}

impl Worker for Namespaces<'_> {
    const NAME: &'static str = "namespace";
    const CONFLICT_RETRY: Duration = LOOK_AGAIN;
    /// Namespaces that are being deleted.
    type News = Vec<Value>;

    async fn next(&mut self) -> Vec<Value> {
        let mut changed = match self.namespaces.recv().await {
            Some(Change::Listed(all)) => all,
            Some(Change::Changed(namespace)) => vec![namespace],
            Some(Change::Deleted(_)) => Vec::new(),
            None => std::future::pending().await,
        };
        changed.retain(object::is_terminating);
        changed
    }

    async fn take(&mut self, changed: Vec<Value>, queue: &mut Queue) {
        for namespace in changed {
            queue.add(object::name(&namespace));
        }
    }

    async fn sync(&mut self, name: &str) -> Result<Outcome, Status> {
        empty(self.api, name).await
    }
}

async fn empty(api: &Api, name: &str) -> Result<Outcome, Status> {
    let namespace = match api.get(&NAMESPACES, None, name).await {
        Ok(namespace) if object::is_terminating(&namespace) => namespace,
        Ok(_) => return Ok(Outcome::Done),
        Err(status) if status.is_not_found() => return Ok(Outcome::Done),
        Err(status) => return Err(status),
    };
    let mut kinds = api.resources().stored();
    kinds.retain(|kind| kind.is_namespaced() && kind.verbs.contains(&"delete"));
    // Pods may need what is beside them to end well, such as policies of the network.
    let (pods, others): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|kind| kind.is(&PODS));
    if !is_emptied(api, name, &pods).await? || !is_emptied(api, name, &others).await? {
        return Ok(Outcome::After(LOOK_AGAIN));
    }
    let finalizers = object::items(&namespace, &["spec", "finalizers"]);
    let others: Vec<_> = finalizers
        .iter()
        .filter(|one| *one != FINALIZER)
        .cloned()
        .collect();
    let mut finalized = namespace.clone();
    finalized["spec"]["finalizers"] = json!(others);
    match api.finalize(finalized).await {
        Ok(_) => info!(namespace = name, "namespace deleted"),
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status),
    }
    Ok(Outcome::Done)
}

/// Deletes all objects of these kinds; whether none is left.
async fn is_emptied(api: &Api, namespace: &str, kinds: &[Row]) -> Result<bool, Status> {
    let everything = Selector::default();
    let mut left = 0;
    for kind in kinds {
        // Nothing is left to live on, whatever the default of the kind.
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        api.delete_collection(kind, Some(namespace), &everything, &options)
            .await?;
        let (items, _) = api.list(kind, Some(namespace), &everything).await?;
        left += items.len();
    }
    Ok(left == 0)
}
