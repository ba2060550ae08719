//! Shutdown as a value: tasks are spawned with a name, are told to drain, and the one that is late
//! can be named.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Shared by everything that has to end before the process does. Cloning gives another handle to
/// the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Counts a task as running until it is dropped, however the task ends.
struct Running {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
        }
        running.retain(|_, count| *count > 0);
    }
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// The signal that tells a task to finish what it is doing and end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `future` as a task that `finish` waits for.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        let guard = Running {
            name,
            running: Arc::clone(&self.running),
        };
        let task = async move {
            let _guard = guard;
            future.await;
        };
        self.tracker
            .spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// Tells every task to end and waits until all have.
    ///
    /// # Errors
    /// The names of the tasks that had not ended by the deadline.
    pub async fn finish(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .map_err(|_| {
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.keys().copied().collect()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named() {
        let drain = Drain::new();
        let token = drain.token();
        drain.spawn("polite", async move { token.cancelled().await });
        drain.spawn("stuck", std::future::pending());
        let late = drain.finish(Duration::from_millis(50)).await;
        assert_eq!(late, Err(vec!["stuck"]));
    }
}
