//! What this host has, what is promised, and what a machine would cost. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::{AppName, IsolationClass, MachineId, NetworkId, VolumeId};
use ulid::Ulid;

use super::check::CheckedConfig;
use super::refused::NoBid;

/// How long a reservation holds: the time of one create call, generously.
pub(super) const RESERVATION_TTL: Duration = Duration::from_secs(10);

/// Reservations at a time: more creates than one host could begin within their time.
const RESERVATIONS_MAX: usize = 1024;

/// Machines of `cpu_kind` shared that share one thread: what the Machines API guarantees each is
/// 5 ms of each 80 ms.
const SHARED_PER_CPU: u64 = 16;

/// Writable layers are sparse files, and most machines write little: so many times the disk is
/// given out.
const DISK_OVERCOMMIT: u64 = 10;

/// Member of a machine's metadata that says which of an app's machines are replicas of each other.
/// Fly's name; without it all of an app's machines are.
const PROCESS_GROUP: &str = "fly_process_group";

/// A machine that somebody wants to place.
#[derive(Debug, Clone)]
pub struct BidRequest {
    pub app: AppName,
    pub network: NetworkId,
    /// Empty: any.
    pub region: String,
    pub config: CheckedConfig,
}

impl BidRequest {
    /// Machines with the same key are replicas of each other, and are spread over hosts.
    pub fn replicas_key(&self) -> (AppName, String) {
        (self.app.clone(), process_group(&self.config).to_owned())
    }
}

fn process_group(config: &CheckedConfig) -> &str {
    let metadata = &config.as_given().metadata;
    metadata.get(PROCESS_GROUP).map_or("", String::as_str)
}

/// What a worker could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// Machines here that are replicas of the one that is asked for, and run or are promised.
    pub replicas: u32,
    /// Share of the host's memory that is given out, in percent.
    pub load_percent: u32,
    /// Whether no image has to be pulled.
    pub images_present: bool,
    pub free_memory_mb: u64,
}

/// A promise of room, for some seconds. Text on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reservation {
    pub id: Ulid,
}

impl From<Reservation> for String {
    fn from(reservation: Reservation) -> Self {
        reservation.id.to_string()
    }
}

impl TryFrom<String> for Reservation {
    type Error = ulid::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let id = text.parse()?;
        Ok(Self { id })
    }
}

/// What a host has for machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Hardware threads.
    pub cpus: u32,
    pub memory_mb: u64,
    pub disk_mb: u64,
}

/// Isolation classes of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// Of machines that do not say.
    pub default: IsolationClass,
    /// Those that machines cannot have here, and why.
    pub missing: BTreeMap<IsolationClass, String>,
}

impl Classes {
    /// The class of a machine that asks for `asked`.
    pub(crate) fn resolve(&self, asked: Option<IsolationClass>) -> Result<IsolationClass, NoBid> {
        let class = asked.unwrap_or(self.default);
        match self.missing.get(&class) {
            Some(reason) => Err(NoBid::ClassNotOffered {
                class,
                reason: reason.clone(),
            }),
            None => Ok(class),
        }
    }
}

/// What a running machine takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    cpus: u32,
    cpu_sixteenths: u64,
    memory_mb: u64,
    disk_mb: u64,
    replicas: Replicas,
}

/// A digest of [`BidRequest::replicas_key`]: only compared with others of this process, and a
/// collision would only spread two apps as if they were one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Replicas(u64);

impl Claim {
    pub(crate) fn of(app: &AppName, config: &CheckedConfig, rootfs_mb_default: u64) -> Self {
        let mut replicas = DefaultHasher::new();
        (app.as_str(), process_group(config)).hash(&mut replicas);
        let guest = config.guest();
        let shared = guest.cpu_kind == "shared";
        let layers = u64::try_from(config.container_names().len()).unwrap_or(u64::MAX);
        Self {
            cpus: guest.cpus,
            cpu_sixteenths: u64::from(guest.cpus) * if shared { 1 } else { SHARED_PER_CPU },
            memory_mb: guest.memory_mb.into(),
            disk_mb: rootfs_mb(config, rootfs_mb_default).saturating_mul(layers),
            replicas: Replicas(replicas.finish()),
        }
    }
}

/// Size of each container's writable layer, in MiB.
pub(crate) fn rootfs_mb(config: &CheckedConfig, default: u64) -> u64 {
    match config.as_given().rootfs.size_gb {
        0 => default,
        size_gb => u64::from(size_gb) << 10,
    }
}

/// The books of a host.
#[derive(Debug)]
pub(crate) struct Accounts {
    capacity: Capacity,
    held: BTreeMap<MachineId, Claim>,
    promised: BTreeMap<Ulid, (Claim, Timestamp)>,
    /// Sizes of volumes, in MiB.
    volumes: BTreeMap<VolumeId, u64>,
    /// What volumes took of the disk when its room was measured, in MiB.
    volumes_credit_mb: u64,
    /// What was left of the disk when somebody last looked, in MiB: others write to it too.
    disk_left_mb: u64,
}

impl Accounts {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            held: BTreeMap::new(),
            promised: BTreeMap::new(),
            volumes: BTreeMap::new(),
            volumes_credit_mb: 0,
            disk_left_mb: u64::MAX,
        }
    }

    /// So much is left of the disk now.
    pub(crate) fn see_disk(&mut self, left_mb: u64) {
        self.disk_left_mb = left_mb;
    }

    /// What existing volumes took of the disk when its room was measured.
    pub(crate) fn credit_volumes(&mut self, mb: u64) {
        self.volumes_credit_mb = mb;
    }

    /// Room on the disk that no volume has, in MiB. Volumes are sparse files too, but what is
    /// written to one must not fail, so their whole size counts.
    fn disk_without_volumes_mb(&self) -> u64 {
        let all = self.capacity.disk_mb.saturating_add(self.volumes_credit_mb);
        all.saturating_sub(self.volumes.values().sum())
    }

    /// GiB that a new volume could have.
    pub(crate) fn volume_room_gb(&self) -> u64 {
        self.disk_without_volumes_mb().min(self.disk_left_mb) >> 10
    }

    /// Takes room for a volume that has `size_gb` from now on.
    ///
    /// # Errors
    /// The GiB that it could have, if that is less; nothing has changed then.
    pub(crate) fn claim_volume(&mut self, id: &VolumeId, size_gb: u64) -> Result<(), u64> {
        let before = self.volumes.remove(id);
        let room_gb = self.volume_room_gb();
        if size_gb > room_gb {
            self.volumes.extend(before.map(|mb| (id.clone(), mb)));
            return Err(room_gb);
        }
        self.set_volume(id, size_gb);
        Ok(())
    }

    /// The volume has this size, whether there is room or not.
    pub(crate) fn set_volume(&mut self, id: &VolumeId, size_gb: u64) {
        self.volumes.insert(id.clone(), size_gb << 10);
    }

    pub(crate) fn release_volume(&mut self, id: &VolumeId) {
        self.volumes.remove(id);
    }

    fn claims(&self, except: Option<&MachineId>) -> impl Iterator<Item = &Claim> {
        let held = self.held.iter();
        let held = held.filter(move |(id, _)| Some(*id) != except);
        let promised = self.promised.values().map(|(claim, _)| claim);
        held.map(|(_, claim)| claim).chain(promised)
    }

    /// Machines that run here or are promised, and are replicas of the one that makes this claim.
    pub(crate) fn replicas(&self, claim: &Claim) -> u32 {
        let replicas = self
            .claims(None)
            .filter(|other| other.replicas == claim.replicas);
        u32::try_from(replicas.count()).unwrap_or(u32::MAX)
    }

    fn used(&self, except: Option<&MachineId>) -> Claim {
        self.claims(except)
            .fold(Claim::default(), |sum, claim| Claim {
                cpus: sum.cpus.saturating_add(claim.cpus),
                cpu_sixteenths: sum.cpu_sixteenths.saturating_add(claim.cpu_sixteenths),
                memory_mb: sum.memory_mb.saturating_add(claim.memory_mb),
                disk_mb: sum.disk_mb.saturating_add(claim.disk_mb),
                replicas: Replicas::default(),
            })
    }

    /// What there is and what is free, as the host says it to others.
    pub(crate) fn word(&mut self, now: Timestamp) -> crate::catalog::Capacity {
        self.promised.retain(|_, (_, until)| *until > now);
        let used = self.used(None);
        let Capacity {
            cpus,
            memory_mb,
            disk_mb,
        } = self.capacity;
        let sixteenths = u64::from(cpus) * SHARED_PER_CPU;
        let free_sixteenths = sixteenths.saturating_sub(used.cpu_sixteenths);
        let disk_free_mb = self.disk_without_volumes_mb();
        let disk = disk_free_mb.saturating_mul(DISK_OVERCOMMIT);
        crate::catalog::Capacity {
            cpus,
            memory_mb,
            disk_mb,
            free_cpu_millis: free_sixteenths * 1000 / SHARED_PER_CPU,
            free_memory_mb: memory_mb.saturating_sub(used.memory_mb),
            free_disk_mb: disk
                .saturating_sub(used.disk_mb)
                .min(disk_free_mb)
                .min(self.disk_left_mb),
            machines: u32::try_from(self.held.len()).unwrap_or(u32::MAX),
        }
    }

    /// Load in percent and free memory in MB, if there is room for `claim` beside everything
    /// but `except`.
    pub(crate) fn room(
        &mut self,
        now: Timestamp,
        claim: Claim,
        except: Option<&MachineId>,
    ) -> Result<(u32, u64), NoBid> {
        self.promised.retain(|_, (_, until)| *until > now);
        let used = self.used(except);
        let free_mb = self.capacity.memory_mb.saturating_sub(used.memory_mb);
        if claim.memory_mb > free_mb {
            return Err(NoBid::InsufficientMemory {
                asked_mb: claim.memory_mb,
                free_mb,
            });
        }
        let sixteenths = u64::from(self.capacity.cpus) * SHARED_PER_CPU;
        let free = sixteenths.saturating_sub(used.cpu_sixteenths);
        if claim.cpu_sixteenths > free {
            let each = (claim.cpu_sixteenths / u64::from(claim.cpus.max(1))).max(1);
            let free = u32::try_from(free / each).unwrap_or(u32::MAX);
            return Err(NoBid::InsufficientCpus {
                asked: claim.cpus,
                free,
            });
        }
        let disk_mb = self.disk_without_volumes_mb();
        let disk_free_mb = disk_mb
            .saturating_mul(DISK_OVERCOMMIT)
            .saturating_sub(used.disk_mb)
            .min(disk_mb)
            .min(self.disk_left_mb);
        if claim.disk_mb > disk_free_mb {
            let asked_mb = claim.disk_mb;
            return Err(NoBid::InsufficientDisk {
                asked_mb,
                free_mb: disk_free_mb,
            });
        }
        let load = used.memory_mb.saturating_mul(100) / self.capacity.memory_mb.max(1);
        Ok((u32::try_from(load).unwrap_or(100), free_mb))
    }

    /// Promises room until [`RESERVATION_TTL`] from now.
    pub(crate) fn promise(&mut self, now: Timestamp, claim: Claim) -> Result<Reservation, NoBid> {
        self.room(now, claim, None)?;
        if self.promised.len() >= RESERVATIONS_MAX {
            return Err(NoBid::Late);
        }
        let id = Ulid::new();
        let until = now
            .saturating_add(RESERVATION_TTL)
            .unwrap_or(Timestamp::MAX);
        self.promised.insert(id, (claim, until));
        Ok(Reservation { id })
    }

    /// Ends a promise. `false` if it had expired.
    pub(crate) fn redeem(&mut self, now: Timestamp, reservation: Reservation) -> bool {
        self.promised
            .remove(&reservation.id)
            .is_some_and(|(_, until)| until > now)
    }

    /// What the machine takes from now on; `None`: nothing.
    pub(crate) fn set(&mut self, id: &MachineId, claim: Option<Claim>) {
        match claim {
            Some(claim) => self.held.insert(id.clone(), claim),
            None => self.held.remove(id),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::machine::{Guest, MachineConfig};

    fn claim(cpu_kind: &str, cpus: u32, memory_mb: u32) -> Claim {
        let guest = Guest {
            cpu_kind: cpu_kind.into(),
            cpus,
            memory_mb,
            ..Guest::default()
        };
        let config = MachineConfig {
            image: "x".into(),
            guest: Some(guest),
            ..MachineConfig::default()
        };
        let app = "web".parse().unwrap();
        Claim::of(&app, &super::super::check(config).unwrap(), 1024)
    }

    fn accounts() -> Accounts {
        Accounts::new(Capacity {
            cpus: 2,
            memory_mb: 1000,
            disk_mb: 10_000,
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_promise_takes_room_until_it_is_redeemed_or_expires() {
        let mut accounts = accounts();
        let large = claim("shared", 1, 600);
        let promise = accounts.promise(at(0), large).unwrap();
        let refused = NoBid::InsufficientMemory {
            asked_mb: 600,
            free_mb: 400,
        };
        assert_eq!(accounts.promise(at(9), large), Err(refused));
        assert!(accounts.promise(at(10), large).is_ok());
        assert!(!accounts.redeem(at(10), promise));
    }

    #[test]
    fn a_word_tells_what_is_free() {
        let mut accounts = accounts();
        accounts.set(&MachineId::from_bits(1), Some(claim("shared", 8, 600)));
        let word = accounts.word(at(0));
        assert_eq!((word.free_cpu_millis, word.free_memory_mb), (1500, 400));
        assert_eq!((word.free_disk_mb, word.machines), (10_000, 1));
    }

    #[test]
    fn a_thread_has_room_for_sixteen_shared_cpus_or_one_of_performance() {
        let mut accounts = accounts();
        let id = |n| MachineId::from_bits(n);
        accounts.set(&id(1), Some(claim("performance", 1, 100)));
        let refused = NoBid::InsufficientCpus { asked: 2, free: 1 };
        assert_eq!(
            accounts.room(at(0), claim("performance", 2, 64), None),
            Err(refused)
        );
        assert!(accounts.room(at(0), claim("shared", 16, 64), None).is_ok());
        assert!(accounts.room(at(0), claim("shared", 17, 64), None).is_err());
        assert!(
            accounts
                .room(at(0), claim("performance", 2, 64), Some(&id(1)))
                .is_ok()
        );
    }

    #[test]
    fn a_machine_that_stops_gives_its_room_back() {
        let mut accounts = accounts();
        let id = MachineId::from_bits(1);
        accounts.set(&id, Some(claim("shared", 1, 900)));
        assert!(accounts.room(at(0), claim("shared", 1, 200), None).is_err());
        accounts.set(&id, None);
        assert_eq!(
            accounts.room(at(0), claim("shared", 1, 200), None),
            Ok((0, 1000))
        );
    }

    #[test]
    fn replicas_are_counted_from_the_promise_on() {
        let mut accounts = accounts();
        let web = claim("shared", 1, 64);
        let other = Claim {
            replicas: Replicas(7),
            ..web
        };
        let promise = accounts.promise(at(0), web).unwrap();
        accounts.set(&MachineId::from_bits(1), Some(web));
        accounts.set(&MachineId::from_bits(2), Some(other));
        assert_eq!((accounts.replicas(&web), accounts.replicas(&other)), (2, 1));
        accounts.redeem(at(1), promise);
        assert_eq!(accounts.replicas(&web), 1);
    }

    #[test]
    fn there_are_never_more_promises_than_the_bound() {
        let mut accounts = Accounts::new(Capacity {
            cpus: 9999,
            memory_mb: u64::MAX,
            disk_mb: u64::MAX,
        });
        for _ in 0..RESERVATIONS_MAX {
            accounts.promise(at(0), claim("shared", 1, 64)).unwrap();
        }
        assert_eq!(
            accounts.promise(at(0), claim("shared", 1, 64)),
            Err(NoBid::Late)
        );
    }

    #[test]
    fn what_others_wrote_to_the_disk_is_no_room() {
        let mut accounts = accounts();
        accounts.see_disk(500);
        assert_eq!(accounts.word(at(0)).free_disk_mb, 500);
        assert_eq!(accounts.volume_room_gb(), 0);
        accounts.see_disk(50_000);
        assert_eq!(accounts.word(at(0)).free_disk_mb, 10_000);
    }

    #[test]
    fn a_volume_takes_its_whole_size_of_the_disk_and_gives_it_back() {
        let mut accounts = accounts();
        let id = |n| VolumeId::new(types::HostId::new(2), n);
        assert_eq!(accounts.claim_volume(&id(1), 10), Err(9));
        accounts.claim_volume(&id(1), 8).unwrap();
        assert_eq!(accounts.claim_volume(&id(2), 2), Err(1));
        assert_eq!(
            accounts.claim_volume(&id(1), 10),
            Err(9),
            "and keeps what it had"
        );
        assert_eq!(accounts.word(at(0)).free_disk_mb, 10_000 - 8 * 1024);
        accounts.release_volume(&id(1));
        accounts.claim_volume(&id(2), 9).unwrap();
        // A host that starts again measures what its volumes have left.
        accounts.credit_volumes(2048);
        assert_eq!(accounts.volume_room_gb(), 2);
    }

    #[test]
    fn a_class_that_is_missing_is_never_replaced_by_another() {
        let missing = [(IsolationClass::Microvm, "no KVM".to_owned())].into();
        let classes = Classes {
            default: IsolationClass::Container,
            missing,
        };
        assert_eq!(classes.resolve(None), Ok(IsolationClass::Container));
        assert!(classes.resolve(Some(IsolationClass::Microvm)).is_err());
    }
}
