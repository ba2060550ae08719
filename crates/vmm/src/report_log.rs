//! The reports of one boot: an append-only file that outlives the shim, one JSON report per line.
//!
//! Only the holder of the boot's lock writes: the shim while it lives, and after a crash whoever
//! finds a log without an end and adds that. A torn last line is cut off by the next writer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use tokio::sync::watch;

use crate::{Report, ReportEvent};

/// A guest that reports more in one boot than this is out of order: ten restarts an hour for a
/// year need fewer.
const REPORTS_MAX: usize = 200_000;

/// Reads every whole report.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Report>> {
    let bytes = fs::read(path)?;
    Ok(parse(&bytes).0)
}

/// The whole reports, and how many bytes they take.
fn parse(bytes: &[u8]) -> (Vec<Report>, usize) {
    let mut reports = Vec::new();
    let mut length = 0;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let whole = line.ends_with(b"\n");
        let Some(report) = serde_json::from_slice::<Report>(line)
            .ok()
            .filter(|_| whole)
        else {
            break;
        };
        length += line.len();
        reports.push(report);
    }
    (reports, length)
}

/// The writer's side.
#[derive(Debug)]
pub(crate) struct ReportLog {
    file: File,
    reports: watch::Sender<Vec<Report>>,
}

impl ReportLog {
    /// Opens or makes the log. The caller holds the boot's lock.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (reports, length) = parse(&fs::read(path)?);
        file.set_len(length as u64)?;
        Ok(Self {
            file,
            reports: watch::Sender::new(reports),
        })
    }

    /// Writes a report down and shows it to subscribers. After the last report, nothing is added.
    /// Ends of boots are on disk when this returns.
    pub(crate) fn push(&mut self, event: ReportEvent) -> io::Result<()> {
        let (count, ended) = {
            let reports = self.reports.borrow();
            (reports.len(), is_ended(&reports))
        };
        if ended {
            return Ok(());
        }
        let event = if count >= REPORTS_MAX && !event.is_last() {
            let reason = format!("the guest sent more than {REPORTS_MAX} reports");
            ReportEvent::Failed { reason }
        } else {
            event
        };
        let report = Report {
            seq: count as u64 + 1,
            event,
        };
        let mut line = serde_json::to_vec(&report)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        if report.event.is_last() {
            self.file.sync_data()?;
        }
        self.reports.send_modify(|reports| reports.push(report));
        Ok(())
    }

    pub(crate) fn is_ended(&self) -> bool {
        is_ended(&self.reports.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Report>> {
        self.reports.subscribe()
    }
}

pub(crate) fn is_ended(reports: &[Report]) -> bool {
    reports.last().is_some_and(|report| report.event.is_last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> ReportEvent {
        ReportEvent::Failed {
            reason: reason.into(),
        }
    }

    #[test]
    fn reports_are_numbered_from_one_and_end_with_the_first_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reports");
        let mut log = ReportLog::open(&path).unwrap();
        log.push(ReportEvent::Ready).unwrap();
        assert!(!log.is_ended());
        log.push(failed("first")).unwrap();
        log.push(failed("second")).unwrap();
        let reports = read(&path).unwrap();
        assert_eq!(reports.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(reports[1].event, failed("first"));
    }

    #[test]
    fn a_torn_line_is_not_read_and_the_next_writer_cuts_it_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reports");
        let mut log = ReportLog::open(&path).unwrap();
        log.push(ReportEvent::Ready).unwrap();
        let whole = fs::read(&path).unwrap();
        for torn in [&b"{\"seq\":2,"[..], b"\0\0\0", b"{\"seq\":2}\n"] {
            fs::write(&path, [&whole, torn].concat()).unwrap();
            assert_eq!(read(&path).unwrap().len(), 1);
            let mut log = ReportLog::open(&path).unwrap();
            log.push(failed("lost")).unwrap();
            assert_eq!(read(&path).unwrap().len(), 2);
        }
    }
}
