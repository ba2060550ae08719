//! What others may ask of a worker.

mod changes;
mod inside;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use types::machine::{Event as Happened, Machine, MachineState, Placement};
use types::{AppName, HostId, IsolationClass, MachineId, NetworkId, VersionId};

use super::capacity::{Bid, BidRequest, Capacity, Claim, Reservation};
use super::check::{CheckedConfig, check_signal};
use super::driver::{Answer, Request};
use super::host::{Core, Reach};
use super::ledger::{CreateError, Draft};
use super::machine::{
    Event, Lease, LeaseChange, LeaseRequest, Machine as Row, New, Nonce, Permit, SecretsWanted,
    Update, new_version,
};
use super::refused::{NoBid, Refused};
use super::volumes::Volumes;
use crate::catalog::{Entry, Filter};

/// A new machine.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub reservation: Reservation,
    pub id: MachineId,
    pub app: AppName,
    pub network: NetworkId,
    /// Unique among the app's machines that are not destroyed.
    pub name: String,
    pub config: CheckedConfig,
    /// Whether to start it at once; else it stays `created`.
    pub launch: bool,
    /// The lease that its creator has from the first moment; the answer tells the nonce.
    pub lease: Option<LeaseRequest>,
    /// Whether services send nothing to it from the first moment.
    pub cordoned: bool,
    /// How it came to this host; its first event tells.
    pub placement: Option<Placement>,
    /// A machine of the app that was created with this key is the answer, instead of a second one.
    pub creation_key: Option<String>,
    pub secrets: SecretsWanted,
}

/// A new configuration for a machine.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    pub config: CheckedConfig,
    /// Whether it runs afterwards; else a running machine is stopped.
    pub launch: bool,
    /// Refuse unless this is the version now.
    pub current_version: Option<VersionId>,
    /// Whether services send nothing to it from now on; else that stays as it is.
    pub cordon: bool,
    pub secrets: SecretsWanted,
}

/// How to stop; what is `None` comes from the machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRequest {
    pub signal: Option<String>,
    pub timeout: Option<Duration>,
}

/// A worker, as others know it. Clones talk to the same one.
///
/// A request returns when its change is recorded; what it causes goes on by itself. Whoever wants
/// to see it happen asks the catalog (`wait_for`, `subscribe`).
#[derive(Debug, Clone)]
pub struct Handle {
    core: Arc<Core>,
    reach: Arc<dyn Reach>,
    permit: Permit,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>, reach: Arc<dyn Reach>) -> Self {
        let permit = Permit::None;
        Self {
            core,
            reach,
            permit,
        }
    }

    /// The same worker, for somebody who may have a machine's lease. While somebody else has it,
    /// everything that would change the machine is refused with [`Refused::LeaseHeld`].
    pub fn permitted(&self, permit: Permit) -> Self {
        Self {
            permit,
            ..self.clone()
        }
    }

    /// The host that this worker's machines are on.
    pub fn host(&self) -> HostId {
        self.core.config.host
    }

    /// The region that the host is in.
    pub fn region(&self) -> &str {
        &self.core.config.region
    }

    /// What the host has for machines, free or not.
    pub fn capacity(&self) -> Capacity {
        self.core.config.capacity
    }

    /// What of it is free, for the host's word.
    pub fn word(&self) -> crate::catalog::Capacity {
        self.core.accounts().word(Timestamp::now())
    }

    /// The volumes of this host.
    pub fn volumes(&self) -> &Volumes {
        &self.core.volumes
    }

    /// What this worker could do for such a machine now.
    ///
    /// # Errors
    /// Why it would not have it.
    pub async fn bid(&self, request: &BidRequest) -> Result<Bid, NoBid> {
        let claim = self.claim(request)?;
        let admitted = self.core.volumes.admit(request).await;
        admitted.map_err(NoBid::Volume)?;
        let (load_percent, free_memory_mb, replicas) = {
            let mut accounts = self.core.accounts();
            let (load_percent, free_memory_mb) = accounts.room(Timestamp::now(), claim, None)?;
            (load_percent, free_memory_mb, accounts.replicas(&claim))
        };
        let images = request.config.containers().into_iter();
        let images = images
            .filter_map(|container| container.image.parse().ok())
            .collect();
        let images_present = self.reach.images_present(images).await;
        Ok(Bid {
            replicas,
            load_percent,
            images_present,
            free_memory_mb,
        })
    }

    /// Promises room for such a machine, for a few seconds.
    ///
    /// # Errors
    /// As [`Self::bid`].
    pub async fn reserve(&self, request: &BidRequest) -> Result<Reservation, NoBid> {
        let claim = self.claim(request)?;
        let admitted = self.core.volumes.admit(request).await;
        admitted.map_err(NoBid::Volume)?;
        self.core.accounts().promise(Timestamp::now(), claim)
    }

    fn claim(&self, request: &BidRequest) -> Result<Claim, NoBid> {
        let known = &self.core.config.region;
        if !request.region.is_empty() && request.region != *known {
            let (region, known) = (request.region.clone(), known.clone());
            return Err(NoBid::RegionUnknown { region, known });
        }
        self.class_of(&request.config)?;
        Ok(Claim::of(
            &request.app,
            &request.config,
            self.core.config.rootfs_mib_default,
        ))
    }

    /// The class that such a machine has here.
    fn class_of(&self, config: &CheckedConfig) -> Result<IsolationClass, NoBid> {
        let class = self.core.config.classes.resolve(config.isolation())?;
        config
            .check_class(class)
            .map_err(|invalid| NoBid::ConfigRefused {
                reason: invalid.to_string(),
            })?;
        Ok(class)
    }

    /// Creates a machine, and uses up the reservation.
    ///
    /// # Errors
    /// [`Refused::ReservationExpired`], [`Refused::NameTaken`], [`Refused::IdTaken`],
    /// [`Refused::Exhausted`], [`Refused::NoBid`] if the class is not offered.
    pub async fn create(&self, request: CreateRequest) -> Result<Machine, Refused> {
        // A task of its own, so that a caller who goes away does not leave a machine that is
        // recorded and has no driver.
        let handle = self.clone();
        let created = tokio::spawn(async move { handle.create_now(request).await });
        created.await.unwrap_or(Err(Refused::ShuttingDown))
    }

    async fn create_now(&self, request: CreateRequest) -> Result<Machine, Refused> {
        let config = &self.core.config;
        let isolation = self.class_of(&request.config)?;
        if self.core.shutdown.is_cancelled() {
            return Err(Refused::ShuttingDown);
        }
        let claim = request
            .launch
            .then(|| Claim::of(&request.app, &request.config, config.rootfs_mib_default));
        {
            let mut accounts = self.core.accounts();
            if !accounts.redeem(Timestamp::now(), request.reservation) {
                return Err(Refused::ReservationExpired);
            }
            accounts.set(&request.id, claim);
        }
        let (id, name) = (request.id.clone(), request.name.clone());
        let (host, region) = (config.host, config.region.clone());
        let draft = Draft {
            id: id.clone(),
            app: request.app.clone(),
            name: name.clone(),
            creation_key: request.creation_key.clone(),
            build: Box::new(move |allocation| {
                let now = Timestamp::now();
                let launch = request.launch;
                let placement = request.placement.clone();
                let given = New {
                    request,
                    isolation,
                    region,
                    host,
                    allocation,
                };
                Row::create(given, now).launch(now, launch, placement)
            }),
        };
        match self.core.ledger.create(draft).await {
            Ok((machine, mut shown)) => {
                shown.nonce = machine.lease.as_ref().map(|lease| lease.nonce.to_string());
                let effects = machine.recover(Timestamp::now());
                Arc::clone(&self.reach).drive(machine, effects);
                Ok(shown)
            }
            Err(error) => {
                // Somebody else's machine may have this id: then its driver has put the books
                // right before, and does so again with its next change.
                if !matches!(error, CreateError::IdTaken) {
                    self.core.accounts().set(&id, None);
                }
                match error {
                    CreateError::Exists(machine, revision) => {
                        let mut shown = machine.show(revision);
                        // Whoever asks again was not told.
                        shown.nonce = machine.lease.as_ref().map(|lease| lease.nonce.to_string());
                        Ok(shown)
                    }
                    CreateError::NameTaken { id } => Err(Refused::NameTaken { name, id }),
                    CreateError::IdTaken => Err(Refused::IdTaken { id }),
                    CreateError::Exhausted { what } => Err(Refused::Exhausted { what }),
                    CreateError::Ledger(source) => Err(source.into()),
                }
            }
        }
    }

    /// Gives a machine a new configuration, and with it a new version. A running one is stopped
    /// first.
    ///
    /// # Errors
    /// [`Refused::VersionMismatch`], [`Refused::NoBid`], [`Refused::WrongState`].
    pub async fn update(&self, id: &MachineId, request: UpdateRequest) -> Result<Machine, Refused> {
        let isolation = self.class_of(&request.config)?;
        let update = Update {
            config: Arc::new(request.config),
            isolation,
            version: new_version(Timestamp::now()),
            launch: request.launch,
            current_version: request.current_version,
            cordon: request.cordon,
            secrets: request.secrets,
        };
        let answer = self
            .request(id, "update", Event::Update(Box::new(update)))
            .await?;
        Ok(answer.machine)
    }

    /// Starts a machine; nothing happens if it is starting or started. Returns the state it was
    /// in before.
    ///
    /// # Errors
    /// [`Refused::NoBid`], [`Refused::WrongState`].
    pub async fn start(&self, id: &MachineId) -> Result<MachineState, Refused> {
        Ok(self.request(id, "start", Event::Start).await?.before)
    }

    /// Stops a machine; nothing happens if it does not run. Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if there is no such signal, [`Refused::WrongState`] if it is being
    /// destroyed.
    pub async fn stop(&self, id: &MachineId, request: StopRequest) -> Result<Machine, Refused> {
        if let Some(signal) = &request.signal {
            check_signal("signal", signal)?;
        }
        let event = Event::Stop {
            signal: request.signal,
            grace: request.timeout,
        };
        Ok(self.request(id, "stop", event).await?.machine)
    }

    /// Destroys a machine and what it keeps on disk. Returns when that is recorded.
    ///
    /// # Errors
    /// [`Refused::WrongState`] if it runs and `force` is not set.
    pub async fn destroy(&self, id: &MachineId, force: bool) -> Result<Machine, Refused> {
        match self.request(id, "destroy", Event::Destroy { force }).await {
            Ok(answer) => Ok(answer.machine),
            Err(Refused::WrongState {
                state: MachineState::Destroyed,
                ..
            }) => self
                .get(id)
                .ok_or_else(|| Refused::NotFound { id: id.clone() }),
            Err(refused) => Err(refused),
        }
    }

    /// The machine's lease, if somebody holds it.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn lease(&self, id: &MachineId) -> Result<Option<Lease>, Refused> {
        let anybody = self.permitted(Permit::Override);
        // What is due happens first, and nothing else.
        match anybody.request(id, "lease", Event::Tick).await {
            Ok(answer) => Ok(answer.lease),
            Err(Refused::WrongState { .. }) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Gives the machine's lease to somebody, or for longer to whoever holds it.
    ///
    /// # Errors
    /// [`Refused::LeaseHeld`], [`Refused::LeaseNotFound`] if the lease that is to last longer is
    /// over, [`Refused::WrongState`] if the machine is destroyed.
    pub async fn acquire_lease(
        &self,
        id: &MachineId,
        request: LeaseRequest,
    ) -> Result<Lease, Refused> {
        let change = match self.permit {
            Permit::Holder(_) => LeaseChange::Refresh(request.ttl),
            Permit::None | Permit::Override => LeaseChange::Acquire(request, Nonce::random()),
        };
        let answer = self.request(id, "lease", Event::Lease(change)).await?;
        answer.lease.ok_or(Refused::LeaseNotFound)
    }

    /// Gives the lease back.
    ///
    /// # Errors
    /// [`Refused::LeaseHeld`] if somebody else holds it, [`Refused::LeaseNotFound`].
    pub async fn release_lease(&self, id: &MachineId) -> Result<(), Refused> {
        let release = Event::Lease(LeaseChange::Release);
        match self.request(id, "lease", release).await {
            Ok(_) => Ok(()),
            Err(Refused::WrongState { .. }) => Err(Refused::LeaseNotFound),
            Err(refused) => Err(refused),
        }
    }

    /// Whether the lease of the machine lets the caller change it now.
    async fn admitted(&self, id: &MachineId, verb: &'static str) -> Result<(), Refused> {
        self.request(id, verb, Event::Tick).await.map(|_| ())
    }

    /// Hands a request to the machine's driver.
    async fn request(
        &self,
        id: &MachineId,
        verb: &'static str,
        event: Event,
    ) -> Result<Answer, Refused> {
        let Some(requests) = self.core.requests_of(id) else {
            return Err(self.absent(id, verb));
        };
        let (reply, answer) = oneshot::channel();
        let permit = self.permit.clone();
        match requests.try_send(Request {
            event,
            permit,
            reply,
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Refused::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.absent(id, verb)),
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.absent(id, verb)),
        }
    }

    /// Why a machine has no driver.
    fn absent(&self, id: &MachineId, verb: &'static str) -> Refused {
        match self.get(id).map(|machine| machine.state) {
            None => Refused::NotFound { id: id.clone() },
            Some(state @ MachineState::Destroyed) => Refused::WrongState { verb, state },
            Some(_) => Refused::ShuttingDown,
        }
    }

    /// The machine, as its worker knows it; also for a while after it was destroyed.
    pub fn get(&self, id: &MachineId) -> Option<Machine> {
        self.own(id).map(|entry| entry.machine.clone())
    }

    /// The catalog is fed in the step that records a change of a machine here. It knows machines of
    /// other hosts too, and those are none of this worker's.
    fn own(&self, id: &MachineId) -> Option<Arc<Entry>> {
        let entry = self.core.catalog.get(id)?;
        (entry.host == self.core.config.host).then_some(entry)
    }

    /// Every machine of `app` here that is not destroyed, and the catalog's revision of this list.
    pub fn list(&self, app: &AppName) -> (Vec<Machine>, u64) {
        let snapshot = self.core.catalog.list(&Filter::App(app.clone()));
        let own = snapshot.entries.iter();
        let own = own.filter(|entry| entry.host == self.core.config.host);
        let machines = own.map(|entry| entry.machine.clone());
        (machines.collect(), snapshot.revision)
    }

    /// What happened to a machine, newest first; at most the last hundred.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn events(&self, id: &MachineId, limit: usize) -> Result<Vec<Happened>, Refused> {
        self.entry(id)?;
        let events = self.core.ledger.events(id.clone(), limit).await;
        events.map_err(|source| Refused::Ledger { source })
    }

    fn entry(&self, id: &MachineId) -> Result<Arc<Entry>, Refused> {
        self.own(id)
            .ok_or_else(|| Refused::NotFound { id: id.clone() })
    }
}
