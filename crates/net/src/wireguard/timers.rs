//! When each peer is next looked at. Peers with nothing to do have no deadline, so ten thousand
//! silent ones cost nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::peer::Peer;

/// A handshake that is under way is repeated after 5 s and some jitter of up to 333 ms.
const HANDSHAKE_TICK: Duration = Duration::from_millis(250);
/// WireGuard's timers are whole seconds.
const ACTIVE_TICK: Duration = Duration::from_secs(1);
/// Keys are thrown away 540 s after the handshake; late is no harm.
const IDLE_TICK: Duration = Duration::from_secs(20);
/// After this long nothing is owed to the peer: new handshakes are asked for within 15 s,
/// keepalives within 10 s.
const ACTIVE: Duration = Duration::from_secs(20);
/// Attempts at a handshake end after 90 s.
const HANDSHAKE: Duration = Duration::from_secs(95);

/// When to look at a peer again; `None`: when something is sent or received.
pub(super) fn next_tick(
    has_session: bool,
    keepalive: bool,
    silent_for: Duration,
) -> Option<Duration> {
    match (has_session, keepalive) {
        (false, _) if silent_for < HANDSHAKE => Some(HANDSHAKE_TICK),
        (false, false) => None,
        (_, true) => Some(ACTIVE_TICK),
        (true, false) if silent_for < ACTIVE => Some(ACTIVE_TICK),
        (true, false) => Some(IDLE_TICK),
    }
}

/// Deadlines in order. Peers are held weakly: a removed one needs no search here.
#[derive(Default)]
pub(super) struct Timers {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    deadlines: BTreeMap<(Instant, u64), Weak<Peer>>,
    /// Keeps entries with equal deadlines apart.
    number: u64,
    stopped: bool,
}

impl Timers {
    pub(super) fn push(&self, at: Instant, peer: &Arc<Peer>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.number += 1;
        let key = (at, queue.number);
        queue.deadlines.insert(key, Arc::downgrade(peer));
        if queue
            .deadlines
            .first_key_value()
            .is_some_and(|(first, _)| *first == key)
        {
            self.changed.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.stopped = true;
        self.changed.notify_all();
    }

    /// Waits for the next deadline. `None` once stopped.
    pub(super) fn wait(&self) -> Option<Arc<Peer>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.stopped {
                return None;
            }
            let now = Instant::now();
            let first = queue.deadlines.first_key_value().map(|((at, _), _)| *at);
            queue = match first {
                Some(at) if at <= now => {
                    let due = queue.deadlines.pop_first();
                    if let Some(peer) = due.and_then(|(_, peer)| peer.upgrade()) {
                        return Some(peer);
                    }
                    queue
                }
                Some(at) => {
                    let waited = self.changed.wait_timeout(queue, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_without_keys_has_no_deadline() {
        assert_eq!(next_tick(false, false, HANDSHAKE), None);
        assert_eq!(
            next_tick(false, false, Duration::ZERO),
            Some(HANDSHAKE_TICK)
        );
        assert_eq!(next_tick(true, false, Duration::ZERO), Some(ACTIVE_TICK));
        assert_eq!(next_tick(true, false, ACTIVE), Some(IDLE_TICK));
    }

    #[test]
    fn a_peer_with_a_keepalive_always_has_one() {
        let long = Duration::from_secs(100_000);
        assert_eq!(next_tick(false, true, long), Some(ACTIVE_TICK));
        assert_eq!(next_tick(true, true, long), Some(ACTIVE_TICK));
    }
}
