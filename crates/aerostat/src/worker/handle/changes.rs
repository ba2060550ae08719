//! What somebody asks of a machine beyond starting and stopping it.

use std::collections::BTreeMap;

use types::MachineId;
use types::api::MachineVersion;
use types::machine::Machine;

use super::super::refused::Refused;
use super::{Handle, StopRequest};

/// A change of a machine's metadata, which makes no new version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// `None` takes the key away.
    pub values: BTreeMap<String, Option<String>>,
    /// Whether keys that `values` does not name go away.
    pub replace: bool,
    /// Refuse unless this is the machine's version now.
    pub version: Option<String>,
}

impl Handle {
    /// Saves a running machine's memory and ends its body; a start goes on where it stood.
    /// Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it does not run, [`Refused::Vmm`] if its class cannot.
    pub async fn suspend(&self, id: &MachineId) -> Result<(), Refused> {
        self.entry(id)?;
        Err(Refused::NotBuilt { what: "suspension" })
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
        _request: StopRequest,
        _force: bool,
    ) -> Result<(), Refused> {
        self.entry(id)?;
        Err(Refused::NotBuilt {
            what: "a restart in one step",
        })
    }

    /// Hides a machine's services, or shows them again.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it is being destroyed.
    pub async fn set_cordoned(&self, id: &MachineId, _cordoned: bool) -> Result<(), Refused> {
        self.entry(id)?;
        Err(Refused::NotBuilt { what: "cordoning" })
    }

    /// Changes a machine's metadata.
    ///
    /// # Errors
    /// [`Refused::StaleVersion`], [`Refused::Invalid`] if it becomes too large.
    pub async fn change_metadata(
        &self,
        id: &MachineId,
        _change: MetadataChange,
    ) -> Result<Machine, Refused> {
        self.entry(id)?;
        Err(Refused::NotBuilt {
            what: "a change of metadata",
        })
    }

    /// The machine's configurations, the newest first; at most the last fifty.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn versions(&self, id: &MachineId) -> Result<Vec<MachineVersion>, Refused> {
        self.entry(id)?;
        Err(Refused::NotBuilt {
            what: "a machine's earlier versions",
        })
    }
}
