//! What somebody asks of a machine beyond starting and stopping it.

use jiff::Timestamp;
use types::api::MachineVersion;
use types::machine::{Machine, MachineConfig};
use types::{MachineId, VersionId};

use super::super::check::check_signal;
use super::super::machine::{Event, MetadataChange};
use super::super::refused::Refused;
use super::{Handle, StopRequest};

impl Handle {
    /// Saves a running machine's memory and ends its body; a start goes on where it stood.
    /// Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it does not run, [`Refused::Vmm`] if its class cannot.
    pub async fn suspend(&self, id: &MachineId) -> Result<(), Refused> {
        self.request(id, "suspend", Event::Suspend).await?;
        Ok(())
    }

    /// Stops a machine as `request` says and starts it again, in one step: nobody sees it stopped.
    /// With `force` it is killed instead. Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if there is no such signal, [`Refused::WrongState`] if it is being
    /// destroyed, [`Refused::NoBid`] if it did not run and there is no room.
    pub async fn restart(
        &self,
        id: &MachineId,
        request: StopRequest,
        force: bool,
    ) -> Result<(), Refused> {
        if let Some(signal) = &request.signal {
            check_signal("signal", signal)?;
        }
        let event = Event::Restart {
            signal: request.signal,
            grace: request.timeout,
            force,
        };
        self.request(id, "restart", event).await?;
        Ok(())
    }

    /// Hides a machine's services, or shows them again.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it is being destroyed.
    pub async fn set_cordoned(&self, id: &MachineId, cordoned: bool) -> Result<(), Refused> {
        let verb = if cordoned { "cordon" } else { "uncordon" };
        self.request(id, verb, Event::Cordon(cordoned)).await?;
        Ok(())
    }

    /// Changes a machine's metadata.
    ///
    /// # Errors
    /// [`Refused::StaleVersion`], [`Refused::Invalid`] if it becomes too large.
    pub async fn change_metadata(
        &self,
        id: &MachineId,
        change: MetadataChange,
    ) -> Result<Machine, Refused> {
        let verb = "change the metadata of";
        let answer = self.request(id, verb, Event::Metadata(change)).await?;
        Ok(answer.machine)
    }

    /// The machine's configurations, the newest first; at most the last fifty.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn versions(&self, id: &MachineId) -> Result<Vec<MachineVersion>, Refused> {
        let earlier = self.core.ledger.versions(id.clone()).await?;
        // Afterwards, so that a version that was retired meanwhile stands there twice rather than
        // not at all.
        let now = self.entry(id)?.machine.clone();
        let current = (now.version, now.config);
        let mut versions: Vec<_> = [current].into_iter().chain(earlier).collect();
        versions.dedup_by(|older, newer| older.0 == newer.0);
        Ok(versions.into_iter().map(shown).collect())
    }
}

/// A version tells when it was made.
fn shown((version, user_config): (VersionId, MachineConfig)) -> MachineVersion {
    let made = ulid::Ulid::from_string(version.as_str()).ok();
    let made = made.and_then(|ulid| i64::try_from(ulid.timestamp_ms()).ok());
    MachineVersion {
        version: version.to_string(),
        user_config,
        created_at: made.and_then(|unix_ms| Timestamp::from_millisecond(unix_ms).ok()),
    }
}
