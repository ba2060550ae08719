//! The only place in a process that waits for children.
//!
//! PID 1 and subreapers inherit orphans that nobody asked for, so they have to `waitpid(-1)`; then
//! nobody else may wait, or statuses are lost. In a process with a [`Reaper`], do not use
//! `Child::wait`, `Command::output` or tokio's processes.
//!
//! A child can end before its creator knows its PID. [`Reaper::spawn`] shuts the reaper out until
//! the child is registered; processes that come into being in another way (a grandchild that
//! is to be inherited) have to be held back until [`Reaper::watch`] has returned.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    fn from_raw(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }

    /// What a shell would say: the exit code, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

type Watched = HashMap<i32, oneshot::Sender<ExitStatus>>;

/// Waits for every child and tells those who asked. Clones share it.
#[derive(Debug, Clone)]
pub struct Reaper {
    watched: Arc<Mutex<Watched>>,
}

impl Reaper {
    /// Starts the task that reaps, in the current tokio runtime.
    ///
    /// # Errors
    /// If SIGCHLD cannot be listened to.
    pub fn start() -> io::Result<Self> {
        let reaper = Self {
            watched: Arc::default(),
        };
        let mut ended = signal(SignalKind::child())?;
        let this = reaper.clone();
        tokio::spawn(async move {
            loop {
                this.reap();
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// One that reaps nothing, where there are no processes.
    pub(crate) fn idle() -> Self {
        Self {
            watched: Arc::default(),
        }
    }

    /// Starts a child. Its standard streams are in the `Child`, which must not be waited for.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Exit)> {
        let mut watched = self.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let exit = insert(&mut watched, pid);
        Ok((child, exit))
    }

    /// Watches a process that is or will be a child of this process and cannot have ended yet.
    pub fn watch(&self, pid: i32) -> Exit {
        insert(&mut self.lock(), pid)
    }

    fn reap(&self) {
        let mut watched = self.lock();
        while let Some((pid, status)) = sys::reap_one() {
            if let Some(waiting) = watched.remove(&pid) {
                // Whoever watched may have lost interest.
                let _ = waiting.send(ExitStatus::from_raw(status));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Every change is one call of the map, so a panic elsewhere leaves it whole.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(watched: &mut Watched, pid: i32) -> Exit {
    let (sender, status) = oneshot::channel();
    watched.insert(pid, sender);
    Exit { pid, status }
}

/// The end of one process, to come.
#[derive(Debug)]
pub struct Exit {
    pid: i32,
    status: oneshot::Receiver<ExitStatus>,
}

impl Exit {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the process to end. May be dropped.
    pub async fn wait(&mut self) -> ExitStatus {
        match (&mut self.status).await {
            Ok(status) => status,
            // The reaper is gone with its runtime, and so will be this task.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the process to end, blocking this thread, which must not be one of the
    /// runtime's. `None` if the reaper is gone.
    pub fn wait_blocking(self) -> Option<ExitStatus> {
        self.status.blocking_recv().ok()
    }
}
