//! Volumes and the machines that have them.
//!
//! A machine has the volumes that its configuration names until it is destroyed or updated away
//! from them. Between two boots the files belong to root; for a boot they are handed to the user
//! that its VMM runs as, which is the only one (beside root) that may open them.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use types::{MachineId, VolumeId};

use super::tables::{self, Select};
use super::volume::{State, Volume};
use super::{VolumeRefused, Volumes};
use crate::worker::capacity::BidRequest;
use crate::worker::check::CheckedConfig;
use crate::worker::machine::Machine;

/// How long a boot waits for a volume that is being made or copied. The boot's own deadline is
/// later.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A volume that a boot may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) id: VolumeId,
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

/// The volumes that a configuration names.
pub(crate) fn named(config: &CheckedConfig) -> impl Iterator<Item = VolumeId> {
    let mounts = config.as_given().mounts.iter();
    // `check` has let through only what can be read.
    mounts.filter_map(|mount| mount.volume.parse().ok())
}

impl Volumes {
    /// Whether such a machine could have its volumes now.
    pub(in crate::worker) async fn admit(&self, request: &BidRequest) -> Result<(), VolumeRefused> {
        let ids: Vec<VolumeId> = named(&request.config).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let (app, network) = (request.app.clone(), request.network);
        self.read(move |db| {
            for id in ids {
                let (volume, machine) = tables::volume(db, &id)?;
                if volume.app != app || volume.network != network {
                    return Err(VolumeRefused::Foreign { id }.into());
                }
                if let Some(machine) = machine {
                    return Err(VolumeRefused::Attached { id, machine }.into());
                }
                volume.alive("attach")?;
            }
            Ok(())
        })
        .await
    }

    /// Notes whether the machine may have its volumes open. Called whenever it changes.
    pub(in crate::worker) fn note_use(&self, machine: &Machine) {
        let users = self.inner.users.lock();
        let mut users = users.unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, user| *user != machine.id);
        if machine.holds_volumes() {
            users.extend(named(&machine.config).map(|id| (id, machine.id.clone())));
        }
    }

    /// Makes the machine's volumes ready for a boot: whole, as large as they should be, and in the
    /// hands of its user. `cold`: nothing of an earlier boot goes on in it.
    pub(in crate::worker) async fn ready(
        &self,
        machine: &Machine,
        cold: bool,
    ) -> Result<Vec<Ready>, VolumeRefused> {
        let mut ready = Vec::new();
        let deadline = Instant::now() + READY_TIMEOUT;
        for id in named(&machine.config) {
            let volume = self.still(&id, &machine.id, deadline).await?;
            if let (Some(size_gb), true) = (volume.waits_to_grow(), cold) {
                // A volume that is too small is better than a machine that does not start.
                if let Err(error) = self.grow(&id, size_gb).await {
                    warn!(volume = %id, %error, "the volume keeps its size");
                }
            }
            let (name, uid) = (id.to_string(), machine.allocation.uid);
            let handed = self.quick(move |files| files.hand_to(&name, uid)).await;
            handed.map_err(|error| super::failed("handing over the volume", &error))?;
            let file = self.inner.files.disk(id.as_str());
            let name = volume.name;
            ready.push(Ready { id, name, file });
        }
        Ok(ready)
    }

    /// The volume, when it is the machine's, whole, and nobody copies from it.
    async fn still(
        &self,
        id: &VolumeId,
        machine: &MachineId,
        deadline: Instant,
    ) -> Result<Volume, VolumeRefused> {
        let mut changes = self.inner.changed.subscribe();
        let reflink = self.inner.files.reflink();
        loop {
            changes.mark_unchanged();
            let of = id.clone();
            let ((volume, holder), is_copied) = self
                .read(move |db| {
                    let is_copied = !reflink && tables::is_copied(db, &of)?;
                    Ok((tables::volume(db, &of)?, is_copied))
                })
                .await?;
            match holder {
                Some(holder) if holder == *machine => {}
                Some(machine) => {
                    let id = id.clone();
                    return Err(VolumeRefused::Attached { id, machine });
                }
                None => return Err(VolumeRefused::NotFound { id: id.clone() }),
            }
            volume.alive("mount")?;
            if volume.state == State::Created && !is_copied {
                return Ok(volume);
            }
            let next = tokio::time::timeout_at(deadline, changes.changed()).await;
            if next.is_err() {
                volume.settled("mount")?;
                return Err(VolumeRefused::Copying { id: id.clone() });
            }
        }
    }

    /// Takes the machine's volumes out of its user's hands, when nothing of a boot is left.
    pub(in crate::worker) async fn hand_back(&self, machine: &Machine) {
        if machine.config.as_given().mounts.is_empty() {
            return;
        }
        let select = Select::Machine(machine.id.clone());
        let held = self.read(move |db| tables::volumes(db, &select)).await;
        for (volume, _) in held.unwrap_or_default() {
            let name = volume.id.to_string();
            let handed = self.quick(move |files| files.hand_to(&name, 0)).await;
            if let Err(error) = handed {
                warn!(volume = %volume.id, error = %types::chain(&error),
                    "cannot take back a volume");
            }
        }
    }
}
