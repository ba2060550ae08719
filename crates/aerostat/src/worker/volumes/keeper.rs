//! The timer: takes the snapshots that are due, and deletes those that were kept long enough.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};
use types::VolumeId;

use super::schedule::{Due, due};
use super::tables;
use super::{VolumeRefused, Volumes};

/// How late a daily snapshot may be.
const INTERVAL: Duration = Duration::from_secs(300);

impl Volumes {
    /// Runs until the worker shuts down.
    pub(super) async fn keep(&self) {
        let mut hindered = BTreeSet::new();
        loop {
            self.keep_once(Timestamp::now(), &mut hindered).await;
            tokio::select! {
                () = self.inner.shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Does what is due at `now`. `hindered` are the volumes of which it was said already that
    /// they cannot be copied.
    pub(super) async fn keep_once(&self, now: Timestamp, hindered: &mut BTreeSet<VolumeId>) {
        let rows = self
            .read(|db| {
                let volumes = tables::volumes(db, &tables::Select::All)?;
                let volumes = volumes.into_iter().map(|(volume, _)| volume);
                Ok((volumes.collect::<Vec<_>>(), tables::snapshots(db, None)?))
            })
            .await;
        let (volumes, snapshots) = match rows {
            Ok(rows) => rows,
            Err(VolumeRefused::ShuttingDown) => return,
            Err(error) => {
                warn!(%error, "cannot see which snapshots are due");
                return;
            }
        };
        for due in due(now, &volumes, &snapshots) {
            let done = match &due {
                Due::Backup(id) => self.back_up(id, hindered).await,
                Due::Expire(id) => {
                    info!(snapshot = %id, "snapshot was kept for long enough");
                    self.expire(id).await
                }
                Due::Forget(id) => {
                    let id = id.clone();
                    self.transact(move |db| tables::forget(db, &id)).await
                }
            };
            if let Err(error) = done {
                warn!(?due, %error, "cannot do what is due");
            }
        }
    }

    async fn back_up(
        &self,
        id: &VolumeId,
        hindered: &mut BTreeSet<VolumeId>,
    ) -> Result<(), VolumeRefused> {
        match self.take_snapshot(id, true).await {
            Ok(_) => {
                hindered.remove(id);
                Ok(())
            }
            // Taken as soon as the machine stops; until then, saying so once is enough.
            Err(VolumeRefused::InUse { .. }) if hindered.contains(id) => Ok(()),
            Err(refused @ VolumeRefused::InUse { .. }) => {
                hindered.insert(id.clone());
                Err(refused)
            }
            Err(refused) => Err(refused),
        }
    }
}
