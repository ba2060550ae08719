//! How many handshakes are worked on. Pure.
//!
//! gotatun asks a source that sends many for a cookie, and then works on all that it sends; and it
//! knows no end of sources, which cost nothing to those who forge them. Each handshake takes some
//! 100 µs of the thread that all data comes through. So here is what a source gets at most, and
//! from when on everybody has to show a cookie. It is counted in seconds that follow each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Of all sources, before each has to show that it can receive where it says it is: a fifth of
/// the thread's time.
const UNPROVEN_PER_S_MAX: u32 = 2000;
/// Of one source, with or without proof: the clients of an office that come all at once have to
/// try twice, and somebody who wants to keep us busy gets 4 % of the thread.
const OF_SOURCE_PER_S_MAX: u32 = 400;
const PERIOD: Duration = Duration::from_secs(1);

/// Message types of initiation and response (WireGuard paper, section 5.4).
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;

/// Whether `datagram` is of those that are counted.
pub(super) fn counts(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(&(INITIATION | RESPONSE)))
}

/// The handshakes of this second.
pub(super) struct Flood {
    since: Instant,
    all: u32,
    /// Its length is bounded by the number of handshakes.
    of_source: HashMap<IpAddr, u32>,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            all: 0,
            of_source: HashMap::new(),
        }
    }

    /// Whether everybody has to show a cookie.
    pub(super) fn is_crowded(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self::new(now);
        }
        self.all >= UNPROVEN_PER_S_MAX
    }

    #[cfg(test)]
    pub(super) fn handshakes(&self) -> u32 {
        self.all
    }

    /// Counts a handshake that has passed the limiter. Whether it is to be worked on.
    pub(super) fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        self.is_crowded(now);
        let own = self.of_source.entry(source).or_default();
        *own = own.saturating_add(1);
        let admitted = *own <= OF_SOURCE_PER_S_MAX;
        self.all = self.all.saturating_add(u32::from(admitted));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_source_gets_so_much_in_a_second_and_leaves_the_rest_to_others() {
        let now = Instant::now();
        let mut flood = Flood::new(now);
        let admitted = (0..10 * OF_SOURCE_PER_S_MAX).filter(|_| flood.admits(source(1), now));
        assert_eq!(admitted.count(), OF_SOURCE_PER_S_MAX as usize);
        assert!(!flood.is_crowded(now));
        assert!(flood.admits(source(2), now));
        assert!(flood.admits(source(1), now + PERIOD));
    }

    #[test]
    fn many_from_everywhere_are_a_crowd_for_the_rest_of_the_second() {
        let now = Instant::now();
        let mut flood = Flood::new(now);
        for number in 0..UNPROVEN_PER_S_MAX {
            assert!(!flood.is_crowded(now));
            assert!(flood.admits(source(number), now));
        }
        assert!(flood.is_crowded(now));
        assert!(!flood.is_crowded(now + PERIOD));
    }

    #[test]
    fn only_handshakes_count() {
        let counted: Vec<u8> = (0..=4).filter(|kind| counts(&[*kind, 0])).collect();
        assert_eq!(counted, [INITIATION, RESPONSE]);
        assert!(!counts(&[]));
    }
}
