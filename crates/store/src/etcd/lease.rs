//! Expiry by leases, one for all keys that go in the same minute.
//!
//! The name of a lease is the minute in which it ends, so all processes use the same ones without
//! speaking to each other, and a key's lease tells when the key goes.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::rpc::Client;
use crate::error::EtcdError;

/// Half of a lease's name, so that it is not taken for somebody else's.
const OURS: i64 = 0x6165_726f;
/// Minutes whose leases are known to be there. Forgetting costs one call each.
const KNOWN_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Leases {
    known: Mutex<HashSet<u32>>,
}

impl Leases {
    /// The lease that ends at or up to a minute after `expires_unix_s`. `fresh`: do not believe
    /// that it is there.
    pub(super) async fn get(
        &self,
        client: &Client,
        expires_unix_s: u64,
        fresh: bool,
    ) -> Result<i64, EtcdError> {
        let minute = u32::try_from(expires_unix_s.div_ceil(60)).unwrap_or(u32::MAX);
        let id = OURS << 32 | i64::from(minute);
        let is_known = || self.known().contains(&minute);
        if !fresh && is_known() {
            return Ok(id);
        }
        let now_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let ttl = (u64::from(minute) * 60).saturating_sub(now_unix_s).max(1);
        match client
            .grant(id, i64::try_from(ttl).unwrap_or(i64::MAX))
            .await
        {
            Ok(()) => {}
            Err(EtcdError::Answer { message, .. }) if message.contains("already exists") => {}
            Err(error) => return Err(error),
        }
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(minute);
        Ok(id)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the keys of a lease go, if it is one of ours.
pub(super) fn expiry(lease: i64) -> Option<u64> {
    let minute = u64::try_from(lease & 0xffff_ffff).ok()?;
    (lease >> 32 == OURS).then_some(minute * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_when_it_ends() {
        assert_eq!(expiry(OURS << 32 | 30_000_000), Some(1_800_000_000));
        assert_eq!(expiry(0), None);
        assert_eq!(expiry(0x694d_7f3a_5b2c_0001), None);
    }
}
