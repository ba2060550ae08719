//! The loop that all controllers of this kind share.
//!
//! ```text
//!   news ──> concerns: names ──> queue ──> sync (several names at a time, each once) ──> outcome
//! ```

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::warn;

use super::queue::{self, Outcome, Queue};
use super::watches::{Changed, News};
use crate::metrics::QueueMeter;
use crate::resource::Resource;
use crate::status::Status;

/// Somebody else wrote in between.
const CONFLICT_RETRY: Duration = Duration::from_millis(50);
/// Names that one controller works on at a time, as upstream's do: their writes share the disk's
/// commits.
const SYNCS_MAX: usize = 5;

/// Keeps one thing as it should be.
pub(super) trait Controller: Send + Sync + 'static {
    /// For logs.
    const NAME: &'static str;
    /// What it has to know of.
    const WATCHED: &'static [&'static Resource];

    /// Names that have to be looked at after this.
    fn concerns(&self, changed: &Changed) -> Vec<String>;

    /// Brings one name up to date.
    fn sync(&self, at: &str) -> impl Future<Output = Result<Outcome, Status>> + Send;
}

/// Runs until the news end. Nothing is decided before everything has been told once.
pub(super) async fn run<C: Controller>(
    controller: C,
    mut news: mpsc::Receiver<News>,
    meter: QueueMeter,
) {
    let mut queue = Queue::metered(meter);
    let mut listed = HashSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        let due = queue.advance(Instant::now());
        while listed.len() == C::WATCHED.len() && running.len() < SYNCS_MAX {
            let Some(at) = queue.take() else { break };
            let controller = &controller;
            running.push(async move {
                let outcome = outcome(C::NAME, &at, controller.sync(&at).await);
                (at, outcome)
            });
        }
        tokio::select! {
            one = news.recv() => match one {
                Some(News::Changed(changed)) => {
                    for at in controller.concerns(&changed) {
                        queue.add(&at);
                    }
                }
                Some(News::Listed(resource)) => drop(listed.insert(resource.qualified())),
                None => return,
            },
            Some((at, outcome)) = running.next(), if !running.is_empty() => {
                queue.finish(Instant::now(), &at, outcome);
            }
            () = queue::until(due) => {}
        }
    }
}

fn outcome(controller: &str, at: &str, result: Result<Outcome, Status>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(error) if error.is_namespace_terminating() => Outcome::Done,
        // What is there now is read anew.
        Err(error) if error.is_conflict() || error.is_not_found() => Outcome::After(CONFLICT_RETRY),
        Err(error) => {
            warn!(controller, name = at, %error, "not brought up to date");
            Outcome::Failed
        }
    }
}
