//! What somebody changes about a machine: its configuration, which makes a new version and a new
//! boot, and what makes neither: metadata, and whether services use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use types::VersionId;

use super::events::Source;
use super::{Begin, Effect, Machine, State, Then, Update};
use crate::worker::ledger::Retired;
use crate::worker::refused::Refused;
use crate::worker::volumes::{VolumeRefused, named};

/// A change of a machine's metadata, which makes no new version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// `None` or an empty text takes the key away.
    pub values: BTreeMap<String, Option<String>>,
    /// Whether keys that `values` does not name go away.
    pub replace: bool,
    /// Refuse unless this is the machine's version now.
    pub version: Option<String>,
}

impl Machine {
    /// A machine that runs is stopped, and started again if it is to run. One that rests stays at
    /// rest if it is not to run; what had failed or was suspended is then stopped, since neither
    /// the failure nor the memory is of this configuration.
    pub(super) fn update(
        &mut self,
        now: Timestamp,
        update: Update,
    ) -> Result<Vec<Effect>, Refused> {
        if self.is_going() {
            return Err(self.wrong_state("update"));
        }
        if update
            .current_version
            .is_some_and(|version| version != self.version)
        {
            return Err(Refused::VersionMismatch {
                current: self.version.clone(),
            });
        }
        let changes_volumes = || !named(&self.config).eq(named(&update.config));
        if self.holds_room() && changes_volumes() {
            let id = self.id.clone();
            return Err(VolumeRefused::Running { id }.into());
        }
        // The running boot ends as its own configuration says.
        let (signal, grace) = self.stop_settings();
        let launch = update.launch;
        let then = Then::Update { launch };
        let retired = Retired {
            version: self.version.clone(),
            config: Arc::clone(&self.config),
        };
        let schedule = self.config.as_given().schedule;
        self.config = update.config;
        self.isolation = update.isolation;
        self.secrets = update.secrets;
        self.cordoned |= update.cordon;
        // Versions sort by time, also when the host's clock was set back.
        self.version = update.version.max(successor(&self.version));
        self.restarts = 0;
        if self.config.as_given().schedule != schedule {
            self.next_run = self.run_after(now);
        }
        let mut effects = vec![Effect::Retire(retired)];
        match &mut self.state {
            State::Booting { .. } | State::Started { .. } => {
                effects.push(self.begin_stop(now, signal, Some(grace), then));
            }
            State::Suspending { then: pending, .. }
            | State::Stopping { then: pending, .. }
            | State::Clearing { then: pending, .. } => *pending = then,
            State::Preparing { .. } => {
                effects.push(Effect::Abandon);
                effects.extend(self.settle(now, then));
            }
            State::Suspended | State::Waiting { .. } | State::Failed { .. } => {
                effects.extend(self.settle(now, then));
            }
            State::Created | State::Stopped if launch => effects.push(self.begin_boot(Begin::Cold)),
            State::Created | State::Stopped => {}
            State::Destroying | State::Destroyed => return Err(self.wrong_state("update")),
        }
        if !self.holds_room() {
            self.reset_containers();
            self.reset_checks();
        }
        let status = self.shown_state();
        effects.insert(0, self.record(now, "update", status, Source::User));
        Ok(effects)
    }

    pub(super) fn change_metadata(
        &mut self,
        now: Timestamp,
        change: MetadataChange,
    ) -> Result<Vec<Effect>, Refused> {
        if self.is_going() {
            return Err(self.wrong_state("change the metadata of"));
        }
        if let Some(given) = change
            .version
            .filter(|given| *given != self.version.as_str())
        {
            let current = self.version.clone();
            return Err(Refused::StaleVersion { current, given });
        }
        let mut metadata = if change.replace {
            BTreeMap::new()
        } else {
            self.config.as_given().metadata.clone()
        };
        for (key, value) in change.values {
            match value.filter(|value| !value.is_empty()) {
                Some(value) => metadata.insert(key, value),
                None => metadata.remove(&key),
            };
        }
        if metadata != self.config.as_given().metadata {
            self.config = Arc::new(self.config.with_metadata(metadata)?);
            self.updated_at = now;
        }
        Ok(vec![])
    }

    pub(super) fn cordon(
        &mut self,
        now: Timestamp,
        cordoned: bool,
    ) -> Result<Vec<Effect>, Refused> {
        let verb = if cordoned { "cordon" } else { "uncordon" };
        if self.is_going() {
            return Err(self.wrong_state(verb));
        }
        if self.cordoned == cordoned {
            return Ok(vec![]);
        }
        self.cordoned = cordoned;
        Ok(vec![self.record(
            now,
            verb,
            self.shown_state(),
            Source::User,
        )])
    }
}

/// The version right after `version`.
fn successor(version: &VersionId) -> VersionId {
    let next = ulid::Ulid::from_string(version.as_str())
        .ok()
        .and_then(|ulid| ulid.increment());
    next.and_then(|ulid| ulid.to_string().parse().ok())
        .unwrap_or_else(|| version.clone())
}
