//! A volume as it was at one moment: what the ledger keeps of it.
//!
//! ```text
//!  Waiting ──copied, on disk──▶ Running ──digest known──▶ Created ──kept long enough──▶ gone
//! ```
//!
//! Its moment is when it is copied. One that still waits when a worker starts is copied then.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::volume::{SnapshotStatus, VolumeSnapshot};
use types::{AppName, OrgSlug, SnapshotId, VolumeId};

use super::volume::Volume;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: SnapshotId,
    pub(crate) volume: VolumeId,
    pub(crate) app: AppName,
    pub(crate) org: OrgSlug,
    pub(crate) status: SnapshotStatus,
    pub(crate) created_at: Timestamp,
    pub(crate) retention_days: u32,
    /// Size of the file system.
    pub(crate) volume_gb: u64,
    /// Bytes of disk that its file has (shared with the volume where the disk can do that).
    pub(crate) size: u64,
    pub(crate) digest: String,
    /// Whether nobody asked for it.
    pub(crate) automatic: bool,
    /// Whether nothing could be written at its moment.
    #[serde(default)]
    pub(crate) exact: bool,
}

impl Snapshot {
    pub(crate) fn begin(volume: &Volume, now: Timestamp, automatic: bool) -> Self {
        Self {
            id: SnapshotId::new(volume.id.host(), rand::random()),
            volume: volume.id.clone(),
            app: volume.app.clone(),
            org: volume.org.clone(),
            status: SnapshotStatus::Waiting,
            created_at: now,
            retention_days: volume.snapshot_retention,
            volume_gb: volume.made_gb,
            size: 0,
            digest: String::new(),
            automatic,
            exact: false,
        }
    }

    pub(crate) fn show(self) -> VolumeSnapshot {
        VolumeSnapshot {
            id: self.id,
            size: self.size,
            volume_size: self.volume_gb << 30,
            digest: self.digest,
            created_at: self.created_at,
            status: self.status,
            retention_days: self.retention_days,
            exact: self.exact,
        }
    }
}
