//! Shutdown as a value: tasks are spawned with a name, are told to drain, and the one that is late
//! can be named.
//!
//! A task that panics is one whose work nobody does any more, so it ends the process: the next one
//! goes on where this one was, and machines do not notice. What is done for one caller is another
//! thing; it ends alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    panicked: Arc<OnceLock<&'static str>>,
}

/// Counts a task as running until it is dropped, however the task ends.
struct Running {
    name: &'static str,
    drain: Drain,
    is_vital: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_vital && std::thread::panicking() {
            // The panic itself has been printed by the runtime.
            tracing::error!(task = self.name, "a task has panicked; the process ends");
            self.drain.panicked.set(self.name).ok();
            self.drain.token.cancel();
        }
        let running = self.drain.running.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
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

    /// Runs `future` as a task that `finish` waits for. If it panics, everything drains.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.run(name, true, future);
    }

    /// The same for what is done for one caller. If it panics, it ends alone.
    pub fn spawn_for_caller<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.run(name, false, future);
    }

    fn run<F>(&self, name: &'static str, is_vital: bool, future: F)
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
            drain: self.clone(),
            is_vital,
        };
        let task = async move {
            let _guard = guard;
            future.await;
        };
        self.tracker
            .spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// The task that has panicked and by that ended everything, if one has.
    pub fn panicked(&self) -> Option<&'static str> {
        self.panicked.get().copied()
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
    async fn a_panic_drains_everything_but_in_what_is_done_for_one_caller() {
        let drain = Drain::new();
        drain.spawn_for_caller("connection", async { panic!("expected by this test") });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!drain.token().is_cancelled());
        assert_eq!(drain.panicked(), None);
        drain.spawn("role", async { panic!("expected by this test") });
        let drained =
            tokio::time::timeout(Duration::from_secs(10), drain.token().cancelled_owned());
        drained.await.unwrap();
        assert_eq!(drain.panicked(), Some("role"));
        assert_eq!(drain.finish(Duration::from_secs(1)).await, Ok(()));
    }

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
