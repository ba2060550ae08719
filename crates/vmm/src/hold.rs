//! Named points at which tests stop a shim, to kill it or its QEMU right there.
//!
//! A shim that was started with `AEROSTAT_VMM_HOLD=<point>` stops when it comes there, says so in
//! its log, and goes on when the file `release` appears in the boot's directory. Release builds do
//! not look.

use crate::paths::BootDir;

/// Where a shim may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The machine stands still; nothing is written.
    Paused,
    /// Its memory is in a file that is not yet complete.
    Saved,
    /// What was saved is complete; nobody was told.
    Completed,
    /// A new body has the memory and stands still; what was saved is there.
    Loaded,
    /// What was saved is taken away; the machine stands still.
    Taken,
    /// The machine goes on, and its guest was not heard yet.
    Continued,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Saved => "saved",
            Self::Completed => "completed",
            Self::Loaded => "loaded",
            Self::Taken => "taken",
            Self::Continued => "continued",
        }
    }
}

#[cfg(debug_assertions)]
pub(crate) async fn at(dir: &BootDir, point: Point) {
    let wanted = std::env::var("AEROSTAT_VMM_HOLD");
    if wanted.is_ok_and(|wanted| wanted == point.name()) {
        tracing::info!(point = point.name(), "held");
        while !dir.0.join("release").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) async fn at(_dir: &BootDir, point: Point) {
    let _ = point.name();
}
