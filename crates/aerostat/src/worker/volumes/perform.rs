//! How effects are performed: each as a task that ends in an event on disk.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use types::VolumeId;
use types::volume::SnapshotStatus;

use super::files::{FileError, Files, name};
use super::live::Moment;
use super::snapshot::Snapshot;
use super::tables;
use super::volume::{Effect, Event, State, Volume};
use super::{VolumeRefused, Volumes, crash_point, failed};

/// Between two attempts at what has to succeed: deleting, and writing down.
const RETRY: Duration = Duration::from_secs(1);

impl Volumes {
    /// Begins an effect. The task returns when its end is recorded, with what went wrong.
    pub(super) fn perform(
        &self,
        volume: Volume,
        effect: Effect,
    ) -> JoinHandle<Result<(), VolumeRefused>> {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            match effect {
                Effect::Fill => this.fill(volume).await,
                Effect::Grow { size_gb } => this.grow(&volume.id, size_gb).await,
                Effect::Remove => {
                    this.remove(&volume.id).await;
                    Ok(())
                }
            }
        })
    }

    async fn fill(&self, volume: Volume) -> Result<(), VolumeRefused> {
        let Volume {
            id, state, size_gb, ..
        } = volume;
        let to = id.to_string();
        let made = match state {
            State::Restoring { snapshot } => {
                let from = snapshot.to_string();
                let copy = move |files: &Files| files.copy(&from, &to, Some(size_gb));
                self.long(&self.inner.copies, copy).await
            }
            State::Hydrating { source } => {
                let from = source.to_string();
                let copy = move |files: &Files| files.copy(&from, &to, Some(size_gb));
                self.copy_of(&source, copy).await.map(|_| ())
            }
            State::Creating
            | State::Created
            | State::Extending
            | State::Destroying
            | State::Destroyed => self.quick(move |files| files.make(&to, size_gb)).await,
        };
        crash_point("filled");
        match made {
            Ok(()) => {
                info!(volume = %id, size_gb, "volume made");
                self.finish(&id, Event::Filled).await;
                Ok(())
            }
            Err(error) => {
                warn!(volume = %id, error = %types::chain(&error), "cannot make a volume");
                self.finish(&id, Event::NotFilled).await;
                Err(refusal("making the volume", &error))
            }
        }
    }

    pub(super) async fn grow(&self, id: &VolumeId, size_gb: u64) -> Result<(), VolumeRefused> {
        let to = id.to_string();
        let grown = self.quick(move |files| files.grow(&to, size_gb)).await;
        crash_point("grown");
        match grown {
            Ok(()) => {
                info!(volume = %id, size_gb, "volume grown");
                self.finish(id, Event::Grown { size_gb }).await;
                Ok(())
            }
            Err(FileError::InUse { .. }) => {
                self.finish(id, Event::GrowsLater).await;
                Ok(())
            }
            Err(error) => {
                warn!(volume = %id, error = %types::chain(&error), "cannot let a volume grow");
                self.finish(id, Event::NotGrown).await;
                if let Ok((volume, _)) = self.row(id).await {
                    self.accounts().set_volume(id, volume.size_gb);
                }
                Err(refusal("letting the volume grow", &error))
            }
        }
    }

    async fn remove(&self, id: &VolumeId) {
        loop {
            let to = id.to_string();
            let removed = self.quick(move |files| files.remove(&to)).await;
            match removed {
                Ok(()) => break,
                Err(error) => {
                    warn!(volume = %id, error = %types::chain(&error), "cannot delete a volume");
                }
            }
            if self.pause().await {
                return;
            }
        }
        crash_point("removed");
        self.accounts().release_volume(id);
        self.finish(id, Event::Removed).await;
        info!(volume = %id, "volume deleted");
    }

    /// Records the end of an effect, whatever that takes, and does what follows from it.
    pub(super) async fn finish(&self, id: &VolumeId, event: Event) {
        loop {
            let (row, now, event) = (id.clone(), Timestamp::now(), event.clone());
            let recorded = self
                .transact(move |db| {
                    let (mut volume, _) = tables::volume(db, &row)?;
                    let effect = volume.apply(now, event)?;
                    // Its snapshots still name it.
                    let is_over = volume.state == State::Destroyed
                        && tables::snapshots(db, Some(&row))?.is_empty();
                    match is_over {
                        true => tables::forget(db, &row)?,
                        false => tables::put(db, &volume)?,
                    }
                    Ok(effect)
                })
                .await;
            match recorded {
                Ok(Some(Effect::Remove)) => return Box::pin(self.remove(id)).await,
                // No end asks for anything else.
                Ok(Some(Effect::Fill | Effect::Grow { .. }) | None)
                | Err(VolumeRefused::ShuttingDown | VolumeRefused::NotFound { .. }) => return,
                Err(error) => {
                    warn!(volume = %id, %error, "cannot record a volume's change; trying again");
                }
            }
            if self.pause().await {
                return;
            }
        }
    }

    /// Waits before another attempt. `true`: there is none, because the worker shuts down.
    async fn pause(&self) -> bool {
        tokio::select! {
            () = self.inner.shutdown.cancelled() => true,
            () = tokio::time::sleep(RETRY) => false,
        }
    }

    /// Begins to take a snapshot. The task returns when its moment is over; the digest follows by
    /// itself.
    pub(super) fn perform_snapshot(
        &self,
        mut snapshot: Snapshot,
    ) -> JoinHandle<Result<(), VolumeRefused>> {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let (from, to) = (snapshot.volume.to_string(), snapshot.id.to_string());
            let name = to.clone();
            let copy = move |files: &Files| files.copy(&from, &name, None);
            let copied = this.copy_of(&snapshot.volume, copy).await;
            crash_point("snapshot-copied");
            let measured = match copied {
                Ok(((), moment)) => {
                    snapshot.exact = moment == Moment::Exact;
                    this.quick(move |files| files.measure(&to)).await
                }
                Err(error) => Err(error),
            };
            match measured {
                Ok(measure) => {
                    snapshot.size = measure.allocated_bytes;
                    snapshot.status = SnapshotStatus::Running;
                    this.put_snapshot(&snapshot).await?;
                    info!(snapshot = %snapshot.id, volume = %snapshot.volume, "snapshot taken");
                    let digest = this.clone();
                    this.inner
                        .tasks
                        .spawn(async move { digest.digest(snapshot).await });
                    Ok(())
                }
                Err(error) => {
                    warn!(volume = %snapshot.volume, error = %types::chain(&error),
                        "cannot take a snapshot");
                    this.expire(&snapshot.id).await?;
                    Err(refusal("taking the snapshot", &error))
                }
            }
        })
    }

    /// Completes a snapshot whose content is there.
    pub(super) async fn digest(&self, mut snapshot: Snapshot) {
        let of = snapshot.id.to_string();
        let digest = self.long(&self.inner.digests, move |files| files.digest(&of));
        match digest.await {
            Ok(digest) => snapshot.digest = digest,
            // It can still be restored.
            Err(error) => warn!(snapshot = %snapshot.id, error = %types::chain(&error),
                "cannot compute the digest of a snapshot"),
        }
        snapshot.status = SnapshotStatus::Created;
        if let Err(error) = self.put_snapshot(&snapshot).await {
            warn!(snapshot = %snapshot.id, %error, "cannot record a snapshot's digest");
        }
    }

    /// Records a snapshot, unless it was deleted meanwhile.
    async fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(), VolumeRefused> {
        let snapshot = snapshot.clone();
        self.transact(move |db| {
            tables::snapshot(db, &snapshot.id)?;
            tables::put_snapshot(db, &snapshot)
        })
        .await
    }

    /// Removes what belongs to no row, and puts the books right.
    pub(super) async fn sweep(&self) -> Result<(), VolumeRefused> {
        let (volumes, snapshots) = self
            .read(|db| {
                let volumes = tables::volumes(db, &tables::Select::All)?;
                Ok((volumes, tables::snapshots(db, None)?))
            })
            .await?;
        let wanted = volumes
            .iter()
            .map(|(volume, _)| name(&volume.id).to_owned());
        let wanted = wanted.chain(snapshots.iter().map(|s| s.id.to_string()));
        let wanted: std::collections::BTreeSet<String> = wanted.collect();
        let names: Vec<String> = volumes
            .iter()
            .map(|(volume, _)| volume.id.to_string())
            .collect();
        let swept = self.quick(move |files| {
            for name in files.names()? {
                if !wanted.contains(&name) {
                    info!(name, "removing what belongs to no volume");
                    files.remove(&name)?;
                }
            }
            let taken = names.iter().filter_map(|name| files.measure(name).ok());
            Ok(taken.map(|measure| measure.allocated_bytes).sum::<u64>())
        });
        let allocated = swept.await;
        let allocated = allocated.map_err(|error| failed("tidying the folder", &error))?;
        let mut accounts = self.accounts();
        accounts.credit_volumes(allocated >> 20);
        for (volume, _) in volumes {
            if volume.state != State::Destroyed {
                accounts.set_volume(&volume.id, volume.size_gb);
            }
        }
        Ok(())
    }

    /// Goes on with what was cut off.
    pub(in crate::worker) async fn recover(&self) -> Result<(), VolumeRefused> {
        let (volumes, snapshots) = self
            .read(|db| {
                let volumes = tables::volumes(db, &tables::Select::All)?;
                Ok((volumes, tables::snapshots(db, None)?))
            })
            .await?;
        for (volume, _) in volumes {
            if let Some(effect) = volume.recover() {
                info!(volume = %volume.id, state = %volume.shown_state(), "going on with a volume");
                drop(self.perform(volume, effect));
            }
        }
        for snapshot in snapshots {
            match snapshot.status {
                SnapshotStatus::Waiting => drop(self.perform_snapshot(snapshot)),
                SnapshotStatus::Running => {
                    let this = self.clone();
                    let digest = async move { this.digest(snapshot).await };
                    drop(self.inner.tasks.spawn(digest));
                }
                SnapshotStatus::Created => {}
            }
        }
        let this = self.clone();
        drop(self.inner.tasks.spawn(async move { this.keep().await }));
        Ok(())
    }
}

fn refusal(doing: &str, error: &FileError) -> VolumeRefused {
    match error.is_disk_full() {
        true => VolumeRefused::DiskFull,
        false => failed(doing, error),
    }
}
