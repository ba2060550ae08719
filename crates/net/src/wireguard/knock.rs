//! Strangers at the door: initiations of keys that no peer has, held while the owner of the engine
//! finds out whose they are. Pure, but for the channel's end.
//!
//! ```text
//!  unknown key ── hold, knock ──► owner ── admit ──► peer; the held one is answered
//!     again    ── replaces the held one ──┘  └── decline ──► forgotten
//! ```
//!
//! One question per key is under way, however many packets come. Everything here is bounded: keys,
//! keys of one source, how long each waits, and knocks that the owner has not taken in yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gotatun::packet::{Packet, WgHandshakeInit};
use tokio::sync::mpsc;

use super::counters::DropReason;
use super::initiation::{Shared, Timestamp};
use super::key::PublicKey;

/// Keys that wait at a time. A look-up takes milliseconds, so this is tens of thousands of new
/// clients in a second; and 0.5 MB.
const WAITING_KEYS_MAX: usize = 1024;
/// Of one source, which is one IPv4 address or one IPv6 /64: an office behind one address.
const WAITING_KEYS_PER_SOURCE_MAX: usize = 64;
/// A client makes a new initiation after 5 s, and answers to this one are of no use any more.
const WAITING: Duration = Duration::from_secs(5);
/// Knocks that the owner has not taken in. Full means that it is stuck or flooded.
const KNOCKS_MAX: usize = 256;

/// A key that no peer has wants in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knock {
    /// Proven to be the sender's.
    pub public_key: PublicKey,
    pub from: SocketAddr,
    /// When the sender says that it knocked.
    pub timestamp: Timestamp,
}

/// Knocks, one after the other. Each wants to be admitted or declined.
pub type Knocks = mpsc::Receiver<Knock>;

/// The initiation that is answered once its sender is admitted.
pub(super) struct Held {
    pub(super) message: Packet<WgHandshakeInit>,
    pub(super) from: SocketAddr,
    pub(super) timestamp: Timestamp,
    pub(super) shared: Shared,
}

pub(super) struct Door {
    waiting: Mutex<Waiting>,
    knocks: mpsc::Sender<Knock>,
}

impl Door {
    pub(super) fn new() -> (Self, Knocks) {
        let (knocks, receiver) = mpsc::channel(KNOCKS_MAX);
        let waiting = Mutex::default();
        (Self { waiting, knocks }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an initiation, and knocks if nobody is being asked about its key yet.
    pub(super) fn hold(&self, key: PublicKey, held: Held, now: Instant) -> Result<(), DropReason> {
        let knock = Knock {
            public_key: key,
            from: held.from,
            timestamp: held.timestamp,
        };
        let mut waiting = self.lock();
        match waiting.hold(key, held, now)? {
            Question::UnderWay => Ok(()),
            Question::New => self.knocks.try_send(knock).map_err(|_| {
                waiting.take(&key, now);
                DropReason::Crowded
            }),
        }
    }

    /// The held initiation of `key`, which is held no longer. `None` if it is too late for it.
    pub(super) fn take(&self, key: &PublicKey, now: Instant) -> Option<Held> {
        self.lock().take(key, now)
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().keys.len()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Question {
    New,
    UnderWay,
}

#[derive(Default)]
struct Waiting {
    /// With the end of the wait, which begins with the first initiation.
    keys: HashMap<PublicKey, (Held, Instant)>,
}

impl Waiting {
    fn hold(&mut self, key: PublicKey, held: Held, now: Instant) -> Result<Question, DropReason> {
        match self.keys.get_mut(&key) {
            Some((older, until)) if *until > now => {
                if held.timestamp <= older.timestamp {
                    return Err(DropReason::Replayed);
                }
                *older = held;
                return Ok(Question::UnderWay);
            }
            Some(_) | None => {}
        }
        self.keys.retain(|_, (_, until)| *until > now);
        let source = source(held.from.ip());
        let neighbours = self.keys.values();
        let neighbours = neighbours.filter(|(other, _)| self::source(other.from.ip()) == source);
        if self.keys.len() >= WAITING_KEYS_MAX || neighbours.count() >= WAITING_KEYS_PER_SOURCE_MAX
        {
            return Err(DropReason::Crowded);
        }
        self.keys.insert(key, (held, now + WAITING));
        Ok(Question::New)
    }

    fn take(&mut self, key: &PublicKey, now: Instant) -> Option<Held> {
        let (held, until) = self.keys.remove(key)?;
        (until > now).then_some(held)
    }
}

/// What one party has for itself: an IPv4 address, or the /64 of an IPv6 one, in which it can take
/// as many as it likes.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::super::initiation::Responder;
    use super::super::key::PrivateKey;
    use super::*;

    fn shared() -> Shared {
        let us = Responder::new(&PrivateKey::from_bytes([7; 32]));
        let them = PrivateKey::from_bytes([9; 32]).public();
        us.shared(&them).unwrap()
    }

    fn held(from: [u8; 4], time: u8, shared: &Shared) -> Held {
        let message = WgHandshakeInit::new();
        Held {
            message: Packet::copy_from(&message),
            from: SocketAddr::from((from, 1000)),
            timestamp: Timestamp([time; 12]),
            shared: shared.clone(),
        }
    }

    fn key(number: usize) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(key)
    }

    #[test]
    fn one_key_is_asked_about_once_and_its_newest_initiation_is_kept() {
        let (now, shared) = (Instant::now(), shared());
        let mut waiting = Waiting::default();
        let mut hold = |time| waiting.hold(key(1), held([192, 0, 2, 1], time, &shared), now);
        assert_eq!(hold(5), Ok(Question::New));
        assert_eq!(hold(6), Ok(Question::UnderWay));
        assert_eq!(hold(6), Err(DropReason::Replayed));
        assert_eq!(hold(4), Err(DropReason::Replayed));
        let taken = waiting.take(&key(1), now).unwrap();
        assert_eq!(taken.timestamp, Timestamp([6; 12]));
        assert!(waiting.take(&key(1), now).is_none());
    }

    #[test]
    fn who_has_waited_too_long_is_gone_and_asked_about_anew() {
        let (now, shared) = (Instant::now(), shared());
        let mut waiting = Waiting::default();
        let mut hold = |now| waiting.hold(key(1), held([192, 0, 2, 1], 5, &shared), now);
        assert_eq!(hold(now), Ok(Question::New));
        assert_eq!(hold(now + WAITING), Ok(Question::New));
        assert!(waiting.take(&key(1), now + 2 * WAITING).is_none());
    }

    #[test]
    fn one_source_and_all_together_hold_so_many_and_no_more() {
        let (now, shared) = (Instant::now(), shared());
        let mut waiting = Waiting::default();
        for number in 0..WAITING_KEYS_PER_SOURCE_MAX {
            let one = held([192, 0, 2, 1], 5, &shared);
            assert_eq!(waiting.hold(key(number), one, now), Ok(Question::New));
        }
        let one = held([192, 0, 2, 1], 5, &shared);
        assert_eq!(waiting.hold(key(9999), one, now), Err(DropReason::Crowded));
        for number in WAITING_KEYS_PER_SOURCE_MAX..WAITING_KEYS_MAX {
            let [high, low, ..] = number.to_be_bytes()[6..] else {
                unreachable!("eight bytes")
            };
            let other = held([198, 51, high, low], 5, &shared);
            assert_eq!(waiting.hold(key(number), other, now), Ok(Question::New));
        }
        let other = held([203, 0, 113, 1], 5, &shared);
        assert_eq!(
            waiting.hold(key(9999), other, now),
            Err(DropReason::Crowded)
        );
        let later = held([203, 0, 113, 1], 5, &shared);
        let after = now + WAITING;
        assert_eq!(waiting.hold(key(9999), later, after), Ok(Question::New));
        assert_eq!(waiting.keys.len(), 1);
    }

    #[test]
    fn addresses_of_one_64_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
