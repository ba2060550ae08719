//! Whether a knock is worth a look-up. Pure.
//!
//! Clients try again every 5 s, so who was not found is not looked for again before that; and a
//! source that comes with ever new keys that nobody knows has to wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use net::wireguard::{PublicKey, source};

/// Less than the 5 s after which a client tries again: a peer that was made in the meantime is
/// found then.
const UNKNOWN: Duration = Duration::from_secs(4);
/// Keys that are known to be unknown; what has no room is looked up again.
const UNKNOWN_KEYS_MAX: usize = 4096;
/// Unknown keys of one source within `PATIENCE`; more are not looked up until that is over.
const STRIKES_MAX: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(10);
const SOURCES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    unknown: HashMap<PublicKey, Instant>,
    strikes: HashMap<IpAddr, (u32, Instant)>,
    is_out: bool,
}

impl Strangers {
    /// `came_before`: the key was a peer's once. That does not depend on where it comes from:
    /// sources can be forged, so somebody could spoil that of somebody else.
    pub(super) fn is_worth_a_lookup(
        &self,
        now: Instant,
        key: &PublicKey,
        from: SocketAddr,
        came_before: bool,
    ) -> bool {
        let is_unknown = self.unknown.get(key).is_some_and(|until| *until > now);
        let strikes = self.strikes.get(&source(from.ip()));
        let is_out = strikes.is_some_and(|(count, until)| *count >= STRIKES_MAX && *until > now);
        !is_unknown && (came_before || !is_out)
    }

    /// The directory does not have this key.
    pub(super) fn unknown(&mut self, now: Instant, key: PublicKey, from: SocketAddr) {
        if has_room(&mut self.unknown, UNKNOWN_KEYS_MAX, |until| *until > now) {
            self.unknown.insert(key, now + UNKNOWN);
        }
        let source = source(from.ip());
        if has_room(&mut self.strikes, SOURCES_MAX, |(_, until)| *until > now)
            || self.strikes.contains_key(&source)
        {
            let strikes = self.strikes.entry(source).or_insert((0, now + PATIENCE));
            if strikes.1 <= now {
                *strikes = (0, now + PATIENCE);
            }
            strikes.0 += 1;
        }
    }

    /// The directory could not be asked. Whether that is news.
    pub(super) fn failed(&mut self) -> bool {
        !std::mem::replace(&mut self.is_out, true)
    }

    /// The directory has answered. Whether that is news.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::replace(&mut self.is_out, false)
    }
}

/// Whether one more fits in, after what is over has been taken out of a full map.
fn has_room<K: Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    max: usize,
    keep: impl Fn(&V) -> bool,
) -> bool {
    if map.len() >= max {
        map.retain(|_, value| keep(value));
    }
    map.len() < max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(key)
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 1000))
    }

    #[test]
    fn an_unknown_key_is_looked_up_once_in_an_interval() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        assert!(strangers.is_worth_a_lookup(now, &key(1), at(1), false));
        strangers.unknown(now, key(1), at(1));
        assert!(!strangers.is_worth_a_lookup(now, &key(1), at(2), false));
        assert!(strangers.is_worth_a_lookup(now, &key(2), at(1), false));
        assert!(strangers.is_worth_a_lookup(now + UNKNOWN, &key(1), at(1), false));
    }

    #[test]
    fn a_source_of_many_unknown_keys_has_to_wait_and_others_do_not() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        for number in 0..16 {
            assert!(strangers.is_worth_a_lookup(now, &key(number), at(1), false));
            strangers.unknown(now, key(number), at(1));
        }
        assert!(!strangers.is_worth_a_lookup(now, &key(99), at(1), false));
        assert!(strangers.is_worth_a_lookup(now, &key(99), at(1), true));
        assert!(strangers.is_worth_a_lookup(now, &key(99), at(2), false));
        assert!(strangers.is_worth_a_lookup(now + PATIENCE, &key(99), at(1), false));
    }

    #[test]
    fn what_is_remembered_of_strangers_is_bounded() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        for number in 0..2 * UNKNOWN_KEYS_MAX {
            let [low, high, ..] = number.to_le_bytes();
            let from = SocketAddr::from(([10, 0, high, low], 1000));
            strangers.unknown(now, key(number), from);
        }
        assert_eq!(strangers.unknown.len(), UNKNOWN_KEYS_MAX);
        assert_eq!(strangers.strikes.len(), SOURCES_MAX);
        strangers.unknown(now + PATIENCE, key(0), at(1));
        assert_eq!(strangers.unknown.len(), 1);
    }

    #[test]
    fn an_outage_is_news_once() {
        let mut strangers = Strangers::default();
        assert!(!strangers.answered());
        assert!(strangers.failed() && !strangers.failed());
        assert!(strangers.answered() && !strangers.answered());
    }
}
