//! Machines that are not where their addresses say.
//!
//! The host field of an address names the host that gave it out. A machine that moved keeps its
//! address, so somebody has to say who owns it now: an override. Each has a version, so that late
//! news does not undo newer, and an end, so that a fleet that lost its memory is right again by
//! itself. Nothing moves yet, so the table is empty; it is what routing and both guards ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use types::sixpn::MACHINE_FIELD_MIN;
use types::{HostId, SixPn};

/// Machines of a fleet that are away from home at a time; each takes some 50 bytes.
const OVERRIDES_MAX: usize = 65_536;

/// Who owns a /112 instead of the host in its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    pub owner: HostId,
    /// Of the machine's moves; newer ones win.
    pub version: u64,
    /// From then on the host field counts again.
    pub expires: Instant,
}

/// Why an override was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a newer word is known")]
    Older,
    #[error("{OVERRIDES_MAX} machines are away from home already")]
    Full,
    #[error("the address is of no machine")]
    NoMachine,
}

/// The table. Read for every packet of the mesh, so reading an empty one takes no lock.
#[derive(Debug, Default)]
pub struct Overrides {
    count: AtomicUsize,
    /// By the first address of the /112.
    table: RwLock<HashMap<SixPn, Override>>,
}

impl Overrides {
    /// The host that owns the /112 of `address`.
    pub fn owner(&self, address: SixPn, now: impl FnOnce() -> Instant) -> HostId {
        if self.count.load(Ordering::Acquire) == 0 {
            return address.host;
        }
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        match table.get(&prefix(address)) {
            Some(entry) if now() < entry.expires => entry.owner,
            Some(_) | None => address.host,
        }
    }

    /// Takes an override for the /112 of `address`.
    ///
    /// # Errors
    /// [`Refused`]: nothing has changed.
    pub fn put(&self, address: SixPn, entry: Override, now: Instant) -> Result<(), Refused> {
        // What is below belongs to the host itself (proxied connections, clients of its gateway).
        if address.machine < MACHINE_FIELD_MIN {
            return Err(Refused::NoMachine);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, old| now < old.expires);
        let known = table.get(&prefix(address));
        let result = if known.is_some_and(|known| known.version >= entry.version) {
            Err(Refused::Older)
        } else if known.is_none() && table.len() >= OVERRIDES_MAX {
            Err(Refused::Full)
        } else {
            table.insert(prefix(address), entry);
            Ok(())
        };
        self.count.store(table.len(), Ordering::Release);
        result
    }
}

fn prefix(address: SixPn) -> SixPn {
    SixPn { free: 0, ..address }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOME: u16 = 2;

    fn machine(field: u32) -> SixPn {
        SixPn::of_machine(7.try_into().unwrap(), HostId::new(HOME), field)
    }

    fn away(host: u16, version: u64, expires: Instant) -> Override {
        Override {
            owner: HostId::new(host),
            version,
            expires,
        }
    }

    #[test]
    fn without_an_override_the_host_field_is_the_owner() {
        let overrides = Overrides::default();
        assert_eq!(
            overrides.owner(machine(0x10001), Instant::now).number(),
            HOME
        );
    }

    #[test]
    fn an_override_holds_for_the_whole_prefix_until_it_ends() {
        let (overrides, start) = (Overrides::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        overrides
            .put(machine(0x10001), away(3, 1, end), start)
            .unwrap();
        let other = SixPn {
            free: 0x1234,
            ..machine(0x10001)
        };
        assert_eq!(overrides.owner(other, || start).number(), 3);
        assert_eq!(overrides.owner(machine(0x10002), || start).number(), HOME);
        assert_eq!(overrides.owner(other, || end).number(), HOME);
    }

    #[test]
    fn late_news_does_not_undo_newer() {
        let (overrides, start) = (Overrides::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        let put = |host, version| overrides.put(machine(0x10001), away(host, version, end), start);
        assert_eq!(put(3, 2), Ok(()));
        assert_eq!(put(4, 1), Err(Refused::Older));
        assert_eq!(put(4, 2), Err(Refused::Older));
        assert_eq!(overrides.owner(machine(0x10001), || start).number(), 3);
        assert_eq!(put(4, 3), Ok(()));
        assert_eq!(overrides.owner(machine(0x10001), || start).number(), 4);
    }

    #[test]
    fn a_host_itself_never_moves() {
        let (overrides, start) = (Overrides::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        let refused = overrides.put(machine(1), away(3, 1, end), start);
        assert_eq!(refused, Err(Refused::NoMachine));
    }

    #[test]
    fn a_full_table_refuses_until_something_in_it_ends() {
        let (overrides, start) = (Overrides::default(), Instant::now());
        let end = start + Duration::from_secs(60);
        let many = u32::try_from(OVERRIDES_MAX).unwrap();
        {
            let mut table = overrides.table.write().unwrap();
            for field in 0..many {
                let address = prefix(machine(MACHINE_FIELD_MIN + field));
                table.insert(address, away(3, 1, end));
            }
        }
        let next = machine(MACHINE_FIELD_MIN + many);
        let later = end + Duration::from_secs(60);
        let refused = overrides.put(next, away(3, 1, later), start);
        assert_eq!(refused, Err(Refused::Full));
        assert_eq!(overrides.put(next, away(3, 1, later), end), Ok(()));
    }
}
