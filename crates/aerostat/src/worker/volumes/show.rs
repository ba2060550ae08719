//! Volumes as the Machines API shows them.

use serde::{Deserialize, Serialize};
use types::volume::{Volume as Shown, VolumeState};
use types::{AppName, OrgSlug, VolumeId};

use super::files::Measure;
use super::tables::{self, Attached, Select};
use super::volume::State;
use super::{VolumeRefused, Volumes};
use crate::worker::refused::NoBid;
use crate::worker::remote::{VolumeBid, VolumeBidRequest};

/// A volume, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownVolume {
    pub app: AppName,
    pub org: OrgSlug,
    pub updated_at: jiff::Timestamp,
    pub volume: Shown,
}

/// Which volumes of a host are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeQuery {
    pub of: VolumeOwner,
    /// Without what the file systems say of themselves, which takes a look at each.
    pub summary: bool,
    /// Also those that are destroyed, while their snapshots are kept.
    pub destroyed: bool,
}

/// Whose volumes are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeOwner {
    App(AppName),
    Org(OrgSlug),
}

impl ShownVolume {
    pub(super) fn in_state(mut self, state: VolumeState) -> Self {
        self.volume.state = state;
        self
    }
}

impl Volumes {
    /// The volume with this id.
    ///
    /// # Errors
    /// [`VolumeRefused::NotFound`].
    pub async fn get(&self, id: &VolumeId) -> Result<ShownVolume, VolumeRefused> {
        let row = self.row(id).await?;
        let measure = self.measure(id).await;
        Ok(show(row, measure))
    }

    /// The volumes of an app or organisation, by name and then by age.
    ///
    /// # Errors
    /// [`VolumeRefused::ShuttingDown`].
    pub async fn list(&self, query: VolumeQuery) -> Result<Vec<ShownVolume>, VolumeRefused> {
        let select = match query.of {
            VolumeOwner::App(app) => Select::App(app),
            VolumeOwner::Org(org) => Select::Org(org),
        };
        let rows = self.read(move |db| tables::volumes(db, &select)).await?;
        let mut shown = Vec::new();
        for row in rows {
            if row.0.state == State::Destroyed && !query.destroyed {
                continue;
            }
            let measure = match query.summary {
                true => Measure::default(),
                false => self.measure(&row.0.id).await,
            };
            shown.push(show(row, measure));
        }
        let key = |s: &ShownVolume| (s.volume.name.clone(), s.volume.created_at);
        shown.sort_by_key(key);
        Ok(shown)
    }

    /// What this host could do for such a volume now.
    ///
    /// # Errors
    /// [`NoBid::InsufficientDisk`].
    pub async fn bid(&self, request: &VolumeBidRequest) -> Result<VolumeBid, NoBid> {
        let free_gb = self.accounts().volume_room_gb();
        if request.size_gb > free_gb {
            let (asked_mb, free_mb) = (request.size_gb << 10, free_gb << 10);
            return Err(NoBid::InsufficientDisk { asked_mb, free_mb });
        }
        let select = Select::App(request.app.clone());
        let rows = self.read(move |db| tables::volumes(db, &select)).await;
        let rows = rows.map_err(NoBid::Volume)?;
        let same = rows
            .iter()
            .filter(|(volume, _)| volume.name == request.name && volume.state != State::Destroyed);
        let same_name = u32::try_from(same.count()).unwrap_or(u32::MAX);
        Ok(VolumeBid { same_name, free_gb })
    }

    /// What there is to be measured; nothing while it is being made.
    async fn measure(&self, id: &VolumeId) -> Measure {
        let (files, id) = (self.inner.files.clone(), id.to_string());
        let measured = tokio::task::spawn_blocking(move || files.measure(&id)).await;
        measured.map(Result::unwrap_or_default).unwrap_or_default()
    }
}

fn show((volume, machine): Attached, measure: Measure) -> ShownVolume {
    let state = volume.shown_state();
    let Measure {
        allocated_bytes,
        superblock,
    } = measure;
    let shown = Shown {
        zone: volume.id.host().to_string(),
        id: volume.id,
        name: volume.name,
        state,
        size_gb: volume.size_gb,
        region: volume.region,
        encrypted: false,
        fstype: "ext4".into(),
        attached_machine_id: machine,
        created_at: volume.created_at,
        host_status: "ok".into(),
        snapshot_retention: volume.snapshot_retention,
        auto_backup_enabled: volume.auto_backup,
        block_size: superblock.block_size,
        blocks: superblock.blocks,
        blocks_free: superblock.blocks_free,
        blocks_avail: superblock.blocks_avail,
        bytes_used: allocated_bytes,
        bytes_total: volume.size_gb << 30,
        creation_key: volume.creation_key,
    };
    ShownVolume {
        app: volume.app,
        org: volume.org,
        updated_at: volume.updated_at,
        volume: shown,
    }
}
