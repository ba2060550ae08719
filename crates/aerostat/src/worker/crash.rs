//! Places where a debug build kills itself when a test asks for it: before and after each step
//! whose effect outlives the process.
//!
//! `AEROSTAT_CRASH_AT=<step>.<moment>` names one. Steps are the records of a machine's states
//! (`record-booting`), `create`, and the effects (`prepare`, `attach`, `boot`, `adopt`, `signal`,
//! `suspend`, `discard`, `clear`, `forget`); moments are `before` and `after`, and `between` where
//! two things are removed. A release build has none of this.

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

const VARIABLE: &str = "AEROSTAT_CRASH_AT";

/// When, relative to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    Between,
    After,
}

/// Ends this process as `kill -9` does, if this is where it was asked to.
pub(super) fn point(step: &str, moment: Moment) {
    if !cfg!(debug_assertions) {
        return;
    }
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let Some(wanted) = WANTED.get_or_init(|| std::env::var(VARIABLE).ok()) else {
        return;
    };
    let moment = match moment {
        Moment::Before => "before",
        Moment::Between => "between",
        Moment::After => "after",
    };
    if wanted.split_once('.') != Some((step, moment)) {
        return;
    }
    tracing::warn!(step, moment, "killing this process, as asked");
    loop {
        // The signal cannot be refused; this thread may run a little longer.
        let _ = kill(getpid(), Signal::SIGKILL);
        std::thread::park();
    }
}
