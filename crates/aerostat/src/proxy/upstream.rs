//! Backends as this host knows them: how many connections they have from here, and whether they
//! answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV6;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::balance::Load;

/// How long a backend that could not be reached comes last. Shorter than what takes it out of the
/// catalog; long enough that few clients wait for it.
const PENALTY: Duration = Duration::from_secs(5);

/// One backend. Services that share it share its counts.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddrV6,
    connections: AtomicUsize,
    /// When it could last not be reached, unless it has answered since.
    failed: Mutex<Option<Instant>>,
}

/// The backends of one port.
pub(super) type Upstreams = Arc<[Arc<Upstream>]>;

/// A connection with a backend, until it is dropped.
#[derive(Debug)]
pub(super) struct Using(Arc<Upstream>);

impl Drop for Using {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    fn new(address: SocketAddrV6) -> Self {
        Self {
            address,
            connections: AtomicUsize::new(0),
            failed: Mutex::new(None),
        }
    }

    pub(super) fn use_it(self: &Arc<Self>) -> Using {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Using(Arc::clone(self))
    }

    pub(super) fn load(&self, now: Instant, tried: bool) -> Load {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        Load {
            connections: self.connections.load(Ordering::Relaxed),
            failed: failed.is_some_and(|at| now.saturating_duration_since(at) < PENALTY),
            tried,
        }
    }

    pub(super) fn failed(&self, now: Instant) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(super) fn answered(&self) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Every backend that some port has, so that what is known of it outlives changes of services.
#[derive(Debug, Default)]
pub(super) struct Registry(BTreeMap<SocketAddrV6, Arc<Upstream>>);

impl Registry {
    pub(super) fn get(&mut self, addresses: &BTreeSet<SocketAddrV6>) -> Upstreams {
        let known = |address: &SocketAddrV6| {
            let upstream = self.0.entry(*address);
            Arc::clone(upstream.or_insert_with(|| Arc::new(Upstream::new(*address))))
        };
        addresses.iter().map(known).collect()
    }

    /// Forgets those that no port and no connection has.
    pub(super) fn prune(&mut self) {
        self.0.retain(|_, upstream| Arc::strong_count(upstream) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_a_while_or_until_it_answers() {
        let upstream = Upstream::new("[::1]:80".parse().unwrap());
        let now = Instant::now();
        upstream.failed(now);
        assert!(upstream.load(now, false).failed);
        assert!(!upstream.load(now + PENALTY, false).failed);
        upstream.answered();
        assert!(!upstream.load(now, false).failed);
    }

    #[test]
    fn a_backend_is_remembered_as_long_as_it_is_in_use() {
        let mut registry = Registry::default();
        let addresses = BTreeSet::from(["[::1]:80".parse().unwrap()]);
        let using = registry.get(&addresses)[0].use_it();
        registry.prune();
        let again = Arc::clone(&registry.get(&addresses)[0]);
        assert_eq!(again.load(Instant::now(), false).connections, 1);
        drop(using);
        assert_eq!(again.load(Instant::now(), false).connections, 0);
        drop(again);
        registry.prune();
        assert!(registry.0.is_empty());
    }
}
