//! How a machine's checks stand, from what its guest reports.

use jiff::{SignedDuration, Timestamp};
use types::guest::HealthReport;
use types::machine::{CheckStatus, Health};

use super::Machine;

/// A check that goes on to stand as it stood tells something new at most so often: each time is a
/// write to the ledger. Guests keep to a little more, so that nothing of theirs is passed over.
const SAME_STATUS_INTERVAL: SignedDuration = SignedDuration::from_secs(25);

impl Machine {
    /// All checks, as nobody knows them yet.
    pub(crate) fn reset_checks(&mut self) {
        let updated_at = self.updated_at;
        let checks = self.config.checks().into_iter();
        let checks = checks.map(|check| CheckStatus {
            name: check.spec.name,
            status: Health::Warning,
            output: "not checked yet".into(),
            updated_at,
            readiness: check.readiness,
        });
        self.checks = checks.collect();
    }

    /// Takes in what the guest says. It may only speak of what it was given.
    pub(super) fn set_check(&mut self, now: Timestamp, report: HealthReport) {
        let known = |check: &&mut CheckStatus| check.name == report.check;
        let Some(check) = self.checks.iter_mut().find(known) else {
            return;
        };
        let age = now.duration_since(check.updated_at);
        if check.status == report.status && age < SAME_STATUS_INTERVAL {
            return;
        }
        check.status = report.status;
        check.output = report.output;
        // The worker's own clock: the guest's may be anything.
        check.updated_at = now;
        self.updated_at = now;
    }
}
