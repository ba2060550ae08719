//! Volumes: file systems that outlive the machines they are mounted in, on the disk of this host.
//!
//! ```text
//!  api ──verbs──▶ Volumes ── volume.apply (pure) ── one transaction in the ledger ── effect
//!  driver ──ready, hand_back──▶ attach                        files: make, copy, grow, remove
//!  keeper ── schedule.due (pure) ── snapshots that are due, snapshots that are over
//! ```
//!
//! The rows are the truth; nothing of them is kept in memory. A change is on disk before its
//! effect begins, and an effect that was cut off is begun again at the next start. Who has a
//! volume changes together with the machine, in one transaction (`tables::claim`).
//!
//! A machine that may have a body has its volumes *in use*. Where the disk can share blocks
//! (`files::Files::reflink`) a copy of a volume in use is one moment of it, for which its guest holds
//! the file system still (`live`); elsewhere only volumes that nobody uses are copied, and a boot waits until the copy is made.

mod attach;
mod check;
mod copy;
mod files;
mod keeper;
mod live;
mod perform;
mod refused;
mod schedule;
mod show;
mod snapshot;
mod snapshots;
mod superblock;
mod tables;
mod volume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::volume::{CreateVolume, ExtendedVolume, UpdateVolume};
use types::{AppName, HostId, MachineId, NetworkId, OrgSlug, VolumeId};

use super::capacity::Accounts;
use super::ledger::Ledger;
pub(crate) use attach::{Ready, named};
pub use check::body as check_body;
use files::{FileError, Files};
pub(in crate::worker) use live::Live;
pub use refused::VolumeRefused;
pub use show::{ShownVolume, VolumeOwner, VolumeQuery};
pub(crate) use tables::{TableError, claim, open as open_tables};
use volume::{Effect, Event, State, Volume};

/// What a file needs beyond `mkfs` is never more: whoever asks is answered then with the state as
/// it is, and the work goes on.
const ANSWER_AFTER: Duration = Duration::from_secs(5);
/// At a time; each keeps the disk busy, a digest a processor too.
const COPIES_MAX: usize = 2;
const DIGESTS_MAX: usize = 1;
/// More than one ledger should hold.
const VOLUMES_MAX: usize = 10_000;

/// A volume that is to be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    pub app: AppName,
    pub org: OrgSlug,
    pub network: NetworkId,
    pub body: CreateVolume,
    /// Digests of the `Idempotency-Key` and the body of the request.
    pub creation_key: Option<String>,
}

/// The volumes of a host. Clones are the same.
#[derive(Debug, Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: HostId,
    region: String,
    files: Files,
    ledger: Ledger,
    accounts: Arc<Mutex<Accounts>>,
    /// Machines that may have a body, by the volumes that it would have open.
    users: Mutex<BTreeMap<VolumeId, MachineId>>,
    /// Counts changes of rows.
    changed: watch::Sender<u64>,
    copies: Semaphore,
    digests: Semaphore,
    live: OnceLock<Weak<dyn Live>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// What the volumes of a worker need.
pub(super) struct Parts {
    pub(super) host: HostId,
    pub(super) region: String,
    /// Folder of the files.
    pub(super) folder: PathBuf,
    pub(super) ledger: Ledger,
    pub(super) accounts: Arc<Mutex<Accounts>>,
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Volumes that cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    #[error("cannot open the folder of the volumes")]
    Folder {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the volumes of this host")]
    Rows(#[from] VolumeRefused),
}

impl Volumes {
    /// Opens the folder, and removes from it what belongs to no volume. [`Self::recover`] must
    /// follow when the machines' drivers have begun.
    ///
    /// # Errors
    /// If the folder or the ledger cannot be used.
    pub(super) async fn open(parts: Parts) -> Result<Self, VolumesError> {
        let folder = parts.folder;
        let opened = tokio::task::spawn_blocking(move || Files::open(&folder)).await;
        let files = opened
            .map_err(|error| VolumesError::Folder {
                source: error.into(),
            })?
            .map_err(|error| VolumesError::Folder {
                source: error.into(),
            })?;
        let inner = Inner {
            host: parts.host,
            region: parts.region,
            files,
            ledger: parts.ledger,
            accounts: parts.accounts,
            users: Mutex::default(),
            changed: watch::Sender::new(0),
            copies: Semaphore::new(COPIES_MAX),
            digests: Semaphore::new(DIGESTS_MAX),
            live: OnceLock::new(),
            shutdown: parts.shutdown,
            tasks: parts.tasks,
        };
        let volumes = Self {
            inner: Arc::new(inner),
        };
        volumes.sweep().await?;
        Ok(volumes)
    }

    /// Makes a volume. Returns when it can be used, or in a few seconds with the state that it
    /// has then.
    ///
    /// # Errors
    /// [`VolumeRefused::Invalid`], [`VolumeRefused::NoCapacity`], [`VolumeRefused::DiskFull`], and
    /// what hinders the copy if it begins with a snapshot or another volume.
    pub async fn create(&self, new: NewVolume) -> Result<ShownVolume, VolumeRefused> {
        let id = VolumeId::new(self.inner.host, rand::random());
        let (draft, asked_gb) = check::draft(new, id, &self.inner.region, Timestamp::now())?;
        // What it is made from may decide the size, so it is looked at before room is claimed, and
        // again when it cannot change any more.
        let first = draft.clone();
        let draft = self
            .read(move |db| check::source(db, first, asked_gb))
            .await?;
        let (id, size_gb) = (draft.id.clone(), draft.size_gb);
        self.claim_room(&id, size_gb)?;
        let recorded = self
            .transact(move |db| {
                if tables::count(db, "volumes")? >= VOLUMES_MAX {
                    let what = "volumes".to_owned();
                    return Err(VolumeRefused::TooMany { what }.into());
                }
                let volume = check::source(db, draft, Some(size_gb))?;
                tables::put(db, &volume)?;
                Ok(volume)
            })
            .await;
        let volume = match recorded {
            Ok(volume) => volume,
            Err(refused) => {
                self.accounts().release_volume(&id);
                return Err(refused);
            }
        };
        crash_point("volume-recorded");
        if let State::Hydrating { source } = &volume.state
            && let Some(refused) = self.copy_hindrance(source)
        {
            // Recorded first: a boot that begins now waits, one that has begun is seen.
            self.finish(&id, Event::NotFilled).await;
            return Err(refused);
        }
        self.done_soon(self.perform(volume, Effect::Fill)).await?;
        self.get(&id).await
    }

    /// Lets a volume grow.
    ///
    /// # Errors
    /// [`VolumeRefused::Invalid`] if it would shrink, [`VolumeRefused::NoCapacity`],
    /// [`VolumeRefused::WrongState`], [`VolumeRefused::Copying`].
    pub async fn extend(
        &self,
        id: &VolumeId,
        size_gb: u64,
    ) -> Result<ExtendedVolume, VolumeRefused> {
        check::size(size_gb)?;
        let before = self.row(id).await?.0;
        self.claim_room(id, size_gb.max(before.size_gb))?;
        let used = self.user(id).is_some();
        let event = Event::Extend { size_gb, used };
        let changed = self.change(id, event, not_copied).await;
        let (volume, effect) = match changed {
            Ok(changed) => changed,
            Err(refused) => {
                self.accounts().set_volume(id, before.size_gb);
                return Err(refused);
            }
        };
        crash_point("extend-recorded");
        match (effect, self.user(id)) {
            (Some(effect), _) => self.done_soon(self.perform(volume, effect)).await?,
            (None, Some(machine)) if volume.waits_to_grow().is_some() => {
                self.grow_live(&machine, id, size_gb).await;
            }
            (None, _) => {}
        }
        let needs_restart = self.row(id).await?.0.waits_to_grow().is_some();
        let volume = self.get(id).await?.volume;
        Ok(ExtendedVolume {
            volume,
            needs_restart,
        })
    }

    /// Changes how long snapshots are kept, and whether they are taken daily.
    ///
    /// # Errors
    /// [`VolumeRefused::Invalid`], [`VolumeRefused::WrongState`].
    pub async fn update(
        &self,
        id: &VolumeId,
        body: &UpdateVolume,
    ) -> Result<ShownVolume, VolumeRefused> {
        check::retention(body.snapshot_retention)?;
        let event = Event::Update {
            snapshot_retention: body.snapshot_retention,
            auto_backup: body.auto_backup_enabled,
        };
        self.change(id, event, |_, _| Ok(())).await?;
        self.get(id).await
    }

    /// Deletes a volume; its snapshots are kept for as long as they would have been. Returns it as
    /// it is then.
    ///
    /// # Errors
    /// [`VolumeRefused::Attached`], [`VolumeRefused::Copying`], [`VolumeRefused::WrongState`].
    pub async fn destroy(&self, id: &VolumeId) -> Result<ShownVolume, VolumeRefused> {
        let shown = self.get(id).await?;
        let changed = self
            .change(id, Event::Destroy, |db, id| {
                if let (_, Some(machine)) = tables::volume(db, id)? {
                    let id = id.clone();
                    return Err(VolumeRefused::Attached { id, machine }.into());
                }
                not_copied(db, id)
            })
            .await;
        let (volume, effect) = changed?;
        crash_point("destroy-recorded");
        if let Some(effect) = effect {
            self.done_soon(self.perform(volume, effect)).await?;
        }
        match self.row(id).await {
            Ok((volume, _)) => Ok(shown.in_state(volume.shown_state())),
            // Nothing was left to keep its row for.
            Err(VolumeRefused::NotFound { .. }) => {
                Ok(shown.in_state(types::volume::VolumeState::Destroyed))
            }
            Err(refused) => Err(refused),
        }
    }

    /// Deletes every volume of an app that is going, and their snapshots.
    ///
    /// # Errors
    /// [`VolumeRefused::Attached`] if a machine is still there, and as [`Self::destroy`].
    pub async fn destroy_all(&self, app: &AppName) -> Result<(), VolumeRefused> {
        let select = tables::Select::App(app.clone());
        let rows = self.read(move |db| tables::volumes(db, &select)).await?;
        for (volume, _) in rows {
            self.destroy(&volume.id).await?;
            let id = volume.id.clone();
            let snapshots = self
                .read(move |db| tables::snapshots(db, Some(&id)))
                .await?;
            for snapshot in snapshots {
                self.expire(&snapshot.id).await?;
            }
            let id = volume.id;
            self.transact(move |db| tables::forget(db, &id)).await?;
        }
        Ok(())
    }

    /// Decides what `event` means for the volume and records it, unless `allowed` refuses.
    async fn change(
        &self,
        id: &VolumeId,
        event: Event,
        allowed: impl FnOnce(&Connection, &VolumeId) -> Result<(), TableError> + Send + 'static,
    ) -> Result<(Volume, Option<Effect>), VolumeRefused> {
        let (id, now) = (id.clone(), Timestamp::now());
        self.transact(move |db| {
            let (mut volume, _) = tables::volume(db, &id)?;
            allowed(db, &id)?;
            let effect = volume.apply(now, event)?;
            tables::put(db, &volume)?;
            Ok((volume, effect))
        })
        .await
    }

    /// Runs `f` in a transaction of the ledger.
    async fn transact<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, VolumeRefused> {
        let done = self.with_ledger(move |db| {
            let transaction = db.transaction()?;
            let done = f(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        let done = done.await?;
        self.inner.changed.send_modify(|changes| *changes += 1);
        Ok(done)
    }

    /// Looks at the ledger.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, VolumeRefused> {
        self.with_ledger(move |db| f(db)).await
    }

    async fn with_ledger<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Connection) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, VolumeRefused> {
        let done = self.inner.ledger.with(f).await;
        let done = done.map_err(|_| VolumeRefused::ShuttingDown)?;
        done.map_err(|error| match error {
            TableError::Refused(refused) => refused,
            TableError::Sqlite(_) | TableError::Row(_) => failed("recording the change", &error),
        })
    }

    async fn row(&self, id: &VolumeId) -> Result<tables::Attached, VolumeRefused> {
        let id = id.clone();
        self.read(move |db| tables::volume(db, &id)).await
    }

    /// Runs `f` where it may block.
    async fn quick<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Files) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let files = self.inner.files.clone();
        match tokio::task::spawn_blocking(move || f(&files)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Runs `f`, which moves many bytes, where it may block; no more at a time than `places`.
    async fn long<T: Send + 'static>(
        &self,
        places: &Semaphore,
        f: impl FnOnce(&Files) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        // Never closed, so it is always got.
        let _place = places.acquire().await;
        self.quick(f).await
    }

    /// Waits for the end of `work`, but not for long.
    async fn done_soon(
        &self,
        work: JoinHandle<Result<(), VolumeRefused>>,
    ) -> Result<(), VolumeRefused> {
        match tokio::time::timeout(ANSWER_AFTER, work).await {
            Ok(Ok(done)) => done,
            // A panic; the next start begins it again.
            Ok(Err(_)) => Err(VolumeRefused::ShuttingDown),
            Err(_) => Ok(()),
        }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        let accounts = self.inner.accounts.lock();
        accounts.unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_room(&self, id: &VolumeId, size_gb: u64) -> Result<(), VolumeRefused> {
        let claimed = self.accounts().claim_volume(id, size_gb);
        claimed.map_err(|free_gb| VolumeRefused::NoCapacity {
            asked_gb: size_gb,
            free_gb,
        })
    }

    /// The machine that may have the volume open.
    fn user(&self, id: &VolumeId) -> Option<MachineId> {
        let users = self.inner.users.lock();
        let users = users.unwrap_or_else(PoisonError::into_inner);
        users.get(id).cloned()
    }

    /// Why a copy of the volume would be no single moment of it.
    fn copy_hindrance(&self, id: &VolumeId) -> Option<VolumeRefused> {
        let machine = self.user(id).filter(|_| !self.inner.files.reflink())?;
        let id = id.clone();
        Some(VolumeRefused::InUse { id, machine })
    }
}

fn not_copied(db: &Connection, id: &VolumeId) -> Result<(), TableError> {
    match tables::is_copied(db, id)? {
        true => Err(VolumeRefused::Copying { id: id.clone() }.into()),
        false => Ok(()),
    }
}

fn failed(doing: &str, error: &(dyn std::error::Error + 'static)) -> VolumeRefused {
    VolumeRefused::Failed {
        doing: doing.into(),
        reason: types::chain(error),
    }
}

/// A moment at which tests kill the worker.
#[cfg(not(test))]
fn crash_point(_: &'static str) {}

#[cfg(test)]
use tests::crash_point;

#[cfg(test)]
mod tests;
