//! What happened in a boot, from its shim or from what that left.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;
use types::{BootId, MachineId};

use super::{POLL, blocking, channel};
use crate::paths::BootDir;
use crate::report_log::{self, ReportLog};
use crate::shim::{self, Request};
use crate::suspended::Suspended;
use crate::{Report, ReportEvent, VmmError};

/// After something that should not happen, such as a shim that does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Sends reports from the shim, and when there is none (any more) from its file.
pub(super) async fn follow_reports(
    machine: &MachineId,
    boot: Shimless,
    mut after: u64,
    sender: mpsc::Sender<Report>,
) {
    loop {
        let pause = match some_reports(machine, &boot, &mut after, &sender).await {
            Ok(Followed::ToTheEnd) => return,
            Ok(Followed::UntilShimLeft) => POLL,
            Err(error) => {
                let error = types::chain(&error);
                warn!(%machine, error, "no reports now");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sender.closed() => return,
        }
    }
}

enum Followed {
    /// Nothing comes after this, or nobody wants it.
    ToTheEnd,
    UntilShimLeft,
}

async fn some_reports(
    machine: &MachineId,
    boot: &Shimless,
    after: &mut u64,
    sender: &mpsc::Sender<Report>,
) -> Result<Followed, VmmError> {
    let request = Request::Reports { after: *after };
    if let Some(mut stream) = channel::open(machine, &boot.dir, &request).await? {
        loop {
            let report = tokio::select! {
                report = channel::report(&mut stream) => report,
                () = sender.closed() => return Ok(Followed::ToTheEnd),
            };
            // The shim has left. Its file has the rest.
            let Some(report) = report else { break };
            *after = report.seq;
            let last = report.event.is_last();
            if sender.send(report).await.is_err() || last {
                return Ok(Followed::ToTheEnd);
            }
        }
    }
    let at_end = boot.clone();
    let Some(reports) = blocking(move || at_end.reports()).await? else {
        return Ok(Followed::UntilShimLeft);
    };
    for report in reports.into_iter().filter(|report| report.seq > *after) {
        if sender.send(report).await.is_err() {
            break;
        }
    }
    Ok(Followed::ToTheEnd)
}

/// A boot that has begun and may have lost its shim.
#[derive(Debug, Clone)]
pub(super) struct Shimless {
    pub(super) boot: BootId,
    pub(super) dir: BootDir,
    pub(super) suspended: Suspended,
}

impl Shimless {
    /// The reports of the boot, with an end put to them if its shim left none. `None` if the shim
    /// lives; none at all if the boot was killed meanwhile.
    fn reports(&self) -> Result<Option<Vec<Report>>, VmmError> {
        let path = self.dir.reports();
        let read = || {
            let Some(_lock) = shim::try_lock(&self.dir)? else {
                return Ok(None);
            };
            let mut log = ReportLog::open(&path)?;
            if !log.is_ended() {
                log.push(self.end())?;
            }
            report_log::read(&path).map(Some)
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(Vec::new())),
            result => result.map_err(VmmError::file("read reports", &path)),
        }
    }

    /// A shim that was killed when it had saved the machine has done what it was asked for.
    fn end(&self) -> ReportEvent {
        if self.suspended.is_of(self.boot) {
            return ReportEvent::Suspended;
        }
        let reason = "the shim was killed".to_owned();
        ReportEvent::Failed { reason }
    }
}
