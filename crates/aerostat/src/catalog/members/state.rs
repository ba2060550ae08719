//! Membership without sockets and clocks: what arrives and what time it is go in, datagrams and
//! opinions come out.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{Config, Foca, NoCustomBroadcast, Notification, Runtime, State, Timer};
use rand_core::TryRng;
use tracing::{debug, info};
use types::HostId;
use types::fleet::HostStatus;

use super::codec::{Life, Wire, sender};

/// Fits the smallest MTU of IPv6 with its headers.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1200;
/// How often hosts are greeted that do not answer as members.
const GREETING_INTERVAL: Duration = Duration::from_secs(2);
/// Hosts greeted at a time, so that a fleet that lost its power does not drown in greetings.
const GREETINGS_MAX: usize = 8;
/// A host of the directory that has not been heard of for so long is not there.
const NEVER_HEARD_MAX: Duration = Duration::from_secs(15);

/// What foca asks for.
#[derive(Debug)]
struct Effects {
    now: Instant,
    sends: Vec<(HostId, Bytes)>,
    /// In the order of their times; the number keeps those of one instant apart.
    timers: BTreeMap<(Instant, u64), Timer<Life>>,
    number: u64,
}

impl Runtime<Life> for Effects {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        match notification {
            Notification::MemberUp(life) => info!(host = %life.host, "host is there"),
            Notification::MemberDown(life) => info!(host = %life.host, "host is silent"),
            Notification::Rejoin(life) => info!(
                renewal = life.renewal,
                "this host had been counted out; it has come back"
            ),
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct => debug!(?notification, "membership"),
        }
    }

    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.sends.push((to.host, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Life>, after: Duration) {
        self.number += 1;
        self.timers.insert((self.now + after, self.number), event);
    }
}

/// Chooses whom to probe. SplitMix64 (Steele, Lea and Flood 2014): nobody gains by guessing it.
struct Dice(u64);

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [a, b, c, d, ..] = self.try_next_u64()?.to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(mixed ^ (mixed >> 31))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            chunk.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// One host's view of who is there.
pub(super) struct Membership {
    foca: Foca<Life, Wire, Dice, NoCustomBroadcast>,
    effects: Effects,
    /// The others of the fleet, as the directory knows them, and since when.
    hosts: BTreeMap<HostId, Instant>,
    greeting_due: Instant,
}

impl Membership {
    pub(super) fn new(life: Life, seed: u64, now: Instant) -> Self {
        Self {
            foca: Foca::new(life, config(1), Dice(seed), Wire),
            effects: Effects {
                now,
                sends: Vec::new(),
                timers: BTreeMap::new(),
                number: 0,
            },
            hosts: BTreeMap::new(),
            greeting_due: now,
        }
    }

    /// The hosts of the fleet, this one or not.
    pub(super) fn set_hosts(&mut self, hosts: &BTreeSet<HostId>, now: Instant) {
        let own = self.foca.identity().host;
        self.hosts.retain(|host, _| hosts.contains(host));
        for host in hosts.iter().filter(|host| **host != own) {
            self.hosts.entry(*host).or_insert(now);
        }
        if let Err(error) = self.foca.set_config(config(hosts.len())) {
            debug!(%error, "membership keeps its timing");
        }
        self.greeting_due = now;
    }

    /// Takes a datagram that came from the address of `from`.
    pub(super) fn receive(&mut self, from: HostId, datagram: &[u8], now: Instant) {
        if sender(datagram) != Some(from) {
            debug!(%from, "a membership datagram says it is another host's");
            return;
        }
        self.effects.now = now;
        if let Err(error) = self.foca.handle_data(datagram, &mut self.effects) {
            debug!(%from, %error, "a membership datagram is dropped");
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.effects.now = now;
        while let Some(timer) = self.effects.timers.first_entry() {
            if timer.key().0 > now {
                break;
            }
            let event = timer.remove();
            if let Err(error) = self.foca.handle_timer(event, &mut self.effects) {
                debug!(%error, "membership cannot do what was due");
            }
        }
        if self.greeting_due <= now {
            self.greeting_due = now + GREETING_INTERVAL;
            self.greet();
        }
    }

    /// When [`Self::tick`] is to be called next.
    pub(super) fn due(&self) -> Instant {
        let timer = self.effects.timers.first_key_value();
        timer.map_or(self.greeting_due, |(key, _)| key.0.min(self.greeting_due))
    }

    /// Datagrams to be sent.
    pub(super) fn take_sends(&mut self) -> Vec<(HostId, Bytes)> {
        std::mem::take(&mut self.effects.sends)
    }

    /// Makes itself known to those of the fleet that are not members. A host that was cut off is
    /// told by the first that gets its greeting that it had been counted out, and comes back.
    fn greet(&mut self) {
        let members: BTreeSet<HostId> = self.foca.iter_members().map(|m| m.id().host).collect();
        let absent = self.hosts.keys().filter(|host| !members.contains(*host));
        let mut absent: Vec<HostId> = absent.copied().collect();
        if absent.len() > GREETINGS_MAX {
            // Others each time.
            let from = self
                .effects
                .number
                .wrapping_add(self.foca.identity().number);
            let from = usize::try_from(from).unwrap_or_default() % absent.len();
            self.effects.number += GREETINGS_MAX as u64;
            absent.rotate_left(from);
            absent.truncate(GREETINGS_MAX);
        }
        for host in absent {
            // In which of its lives it is is not known; a greeting needs no more than the host.
            let life = Life {
                host,
                number: 0,
                renewal: 0,
            };
            if let Err(error) = self.foca.announce(life, &mut self.effects) {
                debug!(%host, %error, "a host cannot be greeted");
            }
        }
    }

    /// What is thought of every other host.
    pub(super) fn statuses(&self, now: Instant) -> BTreeMap<HostId, HostStatus> {
        let own = self.foca.identity().host;
        let mut statuses: BTreeMap<HostId, HostStatus> = BTreeMap::new();
        for (host, since) in &self.hosts {
            let silent = now.saturating_duration_since(*since) > NEVER_HEARD_MAX;
            let status = if silent {
                HostStatus::Unreachable
            } else {
                HostStatus::Unknown
            };
            statuses.insert(*host, status);
        }
        for member in self.foca.iter_membership_state() {
            let status = match member.state() {
                State::Alive => HostStatus::Ok,
                State::Suspect => HostStatus::Unknown,
                State::Down => HostStatus::Unreachable,
            };
            statuses.insert(member.id().host, status);
        }
        statuses.remove(&own);
        statuses
    }
}

/// foca's timing for local networks: a probe each second, suspicion for four (more in fleets above
/// ten hosts), so that a failure is noticed within 5 to 8 s.
fn config(hosts: usize) -> Config {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    let size = NonZeroU32::new(hosts).unwrap_or(NonZeroU32::MIN);
    Config {
        max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
        ..Config::new_lan(size)
    }
}

/// What a fuzzer calls: datagrams from a host of the fleet, one after the other.
///
/// # Panics
/// If what is sent in answer is too long or cannot be read, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn fuzz_members(data: &[u8]) {
    use foca::Codec as _;
    let mut now = Instant::now();
    let life = |host| Life {
        host: HostId::new(host),
        number: 1,
        renewal: 0,
    };
    let mut membership = Membership::new(life(2), 7, now);
    membership.set_hosts(&[HostId::new(2), HostId::new(3)].into(), now);
    for datagram in data.chunks(DATAGRAM_BYTES_MAX) {
        membership.receive(HostId::new(3), datagram, now);
        now += Duration::from_millis(700);
        membership.tick(now);
        for (_, sent) in membership.take_sends() {
            assert!(sent.len() <= DATAGRAM_BYTES_MAX);
            let header = Wire.decode_header(&mut &sent[..]).expect("our own");
            let mut again = Vec::new();
            Wire.encode_header(&header, &mut again).expect("no limit");
            assert!(sent.starts_with(&again));
        }
        let statuses = membership.statuses(now);
        assert!(!statuses.contains_key(&HostId::new(2)));
    }
}
