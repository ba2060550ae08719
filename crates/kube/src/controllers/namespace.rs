//! A namespace that is deleted goes when it is empty: everything in it is deleted first, then its
//! finalizer is removed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::informer::{self, Change};
use super::queue::{Outcome, Queue};
use crate::api::{Api, DeleteOptions, Selector};
use crate::object;
use crate::resource::{NAMESPACES, PODS, Row};
use crate::status::Status;

/// What keeps a namespace until this controller has emptied it.
const FINALIZER: &str = "kubernetes";
/// Pods take their grace to go; nothing tells this controller that one has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(api: &Api) {
    let mut namespaces = informer::follow(api, &NAMESPACES, Selector::default());
    let mut queue = Queue::default();
    loop {
        let due = queue.advance(Instant::now());
        while let Some(name) = queue.take() {
            let outcome = match empty(api, &name).await {
                Ok(outcome) => outcome,
                Err(status) if status.is_conflict() => Outcome::After(LOOK_AGAIN),
                Err(error) => {
                    warn!(namespace = name, %error, "namespace not emptied");
                    Outcome::Failed
                }
            };
            queue.finish(Instant::now(), &name, outcome);
        }
        let due = due.or_else(|| queue.advance(Instant::now()));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changed(&mut namespaces) => {
                for namespace in change {
                    queue.add(object::name(&namespace));
                }
            }
            () = timer => {}
        }
    }
}

/// Namespaces of the next change that are being deleted.
async fn changed(namespaces: &mut mpsc::Receiver<Change>) -> Vec<Value> {
    let mut changed = match namespaces.recv().await {
        Some(Change::Listed(all)) => all,
        Some(Change::Changed(namespace)) => vec![namespace],
        Some(Change::Deleted(_)) => Vec::new(),
        None => std::future::pending().await,
    };
    changed.retain(object::is_terminating);
    changed
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
        let options = DeleteOptions::default();
        api.delete_collection(kind, Some(namespace), &everything, &options)
            .await?;
        let (items, _) = api.list(kind, Some(namespace), &everything).await?;
        left += items.len();
    }
    Ok(left == 0)
}
