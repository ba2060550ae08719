//! List and watch of one resource, as a sequence of changes that never ends by itself.
//!
//! Whoever follows it holds a copy that is complete after `Listed` and correct after each later
//! change. When the history it would need is gone, it lists again.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::api::{Api, EventKind, Selector, Watch};
use crate::resource::Row;

/// Changes on their way to a follower. A follower that is slower than this makes the store keep
/// history for it, and lists again if that is too much.
const CHANGES_MAX: usize = 64;
/// Time before a list that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// HTTP's "Gone": the history is no longer kept.
const GONE: u16 = 410;

/// What a follower has to do to its copy.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Replace everything.
    Listed(Vec<Value>),
    /// New, or as it is now.
    Changed(Value),
    /// Gone, or no longer selected; its last state.
    Deleted(Value),
}

/// Follows the selected objects of all namespaces. The task that feeds the receiver ends when the
/// receiver is dropped.
pub(crate) fn follow(
    api: &Api,
    resource: impl Into<Row>,
    selector: Selector,
) -> mpsc::Receiver<Change> {
    let resource = resource.into();
    let (sender, receiver) = mpsc::channel(CHANGES_MAX);
    let api = api.clone();
    tokio::spawn(async move {
        // Ends with the receiver, also while nothing happens.
        tokio::select! {
            () = feed(&api, &resource, &selector, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn feed(api: &Api, resource: &Row, selector: &Selector, sender: &mpsc::Sender<Change>) {
    loop {
        let listed = match api.list(resource, None, selector).await {
            Ok((items, rev)) => api
                .watch(resource.clone(), None, rev, selector.clone())
                .map(|watch| (items, watch)),
            Err(status) => Err(status),
        };
        let (items, watch) = match listed {
            Ok(listed) => listed,
            Err(status) => {
                warn!(resource = resource.plural, error = %status, "list failed");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if sender.send(Change::Listed(items)).await.is_err() {
            return;
        }
        let status = forward(watch, sender).await;
        match status {
            None => return,
            Some(status) if status.code == GONE => {
                debug!(resource = resource.plural, "watch fell behind");
            }
            Some(status) => {
                debug!(resource = resource.plural, error = %status, "watch ended");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Sends events until the watch ends (why it did) or nobody listens (`None`).
async fn forward(mut watch: Watch, sender: &mpsc::Sender<Change>) -> Option<crate::status::Status> {
    loop {
        let event = match watch.next().await {
            Ok(event) => event,
            Err(status) => return Some(status),
        };
        let change = match event.kind {
            EventKind::Added | EventKind::Modified => Change::Changed(event.object),
            EventKind::Deleted => Change::Deleted(event.object),
        };
        if sender.send(change).await.is_err() {
            return None;
        }
    }
}
