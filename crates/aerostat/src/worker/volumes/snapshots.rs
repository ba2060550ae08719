//! The verbs of snapshots.

use jiff::Timestamp;
use types::volume::VolumeSnapshot;
use types::{SnapshotId, VolumeId};

use super::snapshot::Snapshot;
use super::tables;
use super::{VolumeRefused, Volumes, crash_point, failed};

/// Of one volume: the longest retention, and as many again by hand.
const SNAPSHOTS_MAX: usize = 120;

impl Volumes {
    /// Takes a snapshot. Returns when its moment is over; its digest comes later.
    ///
    /// # Errors
    /// [`VolumeRefused::InUse`] where the disk cannot share blocks, [`VolumeRefused::DiskFull`],
    /// [`VolumeRefused::WrongState`].
    pub async fn snapshot(&self, id: &VolumeId) -> Result<VolumeSnapshot, VolumeRefused> {
        self.take_snapshot(id, false).await
    }

    /// As [`Self::snapshot`]; `automatic`: nobody asked for it.
    pub(super) async fn take_snapshot(
        &self,
        id: &VolumeId,
        automatic: bool,
    ) -> Result<VolumeSnapshot, VolumeRefused> {
        let of = id.clone();
        let now = Timestamp::now();
        let snapshot = self
            .transact(move |db| {
                let (volume, _) = tables::volume(db, &of)?;
                volume.settled("take a snapshot of")?;
                if tables::snapshots(db, Some(&of))?.len() >= SNAPSHOTS_MAX {
                    let what = format!("snapshots of volume {of}");
                    return Err(VolumeRefused::TooMany { what }.into());
                }
                let snapshot = Snapshot::begin(&volume, now, automatic);
                tables::put_snapshot(db, &snapshot)?;
                Ok(snapshot)
            })
            .await?;
        crash_point("snapshot-recorded");
        // Recorded first: a boot that begins now waits, one that has begun is seen.
        if let Some(refused) = self.copy_hindrance(id) {
            let forgotten = snapshot.id.clone();
            self.transact(move |db| tables::forget_snapshot(db, &forgotten))
                .await?;
            return Err(refused);
        }
        let (id, moment) = (snapshot.id.clone(), self.perform_snapshot(snapshot));
        self.done_soon(moment).await?;
        let snapshot = self.read(move |db| tables::snapshot(db, &id)).await?;
        Ok(snapshot.show())
    }

    /// The snapshots of a volume, oldest first; also of one that is destroyed, while there are any.
    ///
    /// # Errors
    /// [`VolumeRefused::NotFound`].
    pub async fn snapshots(&self, id: &VolumeId) -> Result<Vec<VolumeSnapshot>, VolumeRefused> {
        let id = id.clone();
        let snapshots = self
            .read(move |db| {
                tables::volume(db, &id)?;
                tables::snapshots(db, Some(&id))
            })
            .await?;
        Ok(snapshots.into_iter().map(Snapshot::show).collect())
    }

    /// Deletes a snapshot.
    pub(super) async fn expire(&self, id: &SnapshotId) -> Result<(), VolumeRefused> {
        let busy = id.clone();
        let is_busy = self.read(move |db| tables::is_restored(db, &busy)).await?;
        if is_busy {
            return Ok(());
        }
        // The row goes first: what is left of the file is swept at the next start.
        let forgotten = id.clone();
        self.transact(move |db| tables::forget_snapshot(db, &forgotten))
            .await?;
        crash_point("snapshot-forgotten");
        let name = id.to_string();
        let removed = self.quick(move |files| files.remove(&name)).await;
        removed.map_err(|error| failed("deleting the snapshot", &error))
    }
}
