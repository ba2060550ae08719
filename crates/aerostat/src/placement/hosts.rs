//! Who takes part: the hosts that are known, and the region that is asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use types::HostId;
use types::fleet::HostStatus;

use super::{Bidder, Regions};
use crate::rpc::Rpc;
use crate::worker::{Capacity, Handle, NoBid, Remote};

/// Another host of the fleet, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub region: String,
    pub status: HostStatus,
    /// What it said that it has; `None`: it has said nothing yet.
    pub capacity: Option<Capacity>,
}

/// The other hosts of the fleet, as this one sees them at the moment of asking.
#[derive(Clone)]
pub struct Hosts(Arc<dyn Fn() -> Vec<Host> + Send + Sync>);

impl Hosts {
    /// What `others` says whenever it is asked. It must not wait. If it names this host, that is
    /// passed over.
    pub fn new(others: impl Fn() -> Vec<Host> + Send + Sync + 'static) -> Self {
        Self(Arc::new(others))
    }

    /// A fleet of one.
    pub fn none() -> Self {
        Self::new(Vec::new)
    }

    /// The others, `here` left out.
    pub fn others(&self, here: HostId) -> Vec<Host> {
        let mut hosts = (self.0)();
        hosts.retain(|host| host.id != here);
        hosts
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hosts")
    }
}

/// Which regions an expression names, in a fleet of `here` and `others`.
///
/// # Errors
/// [`NoBid::RegionUnknown`] if no host is in any of them, whatever its status.
pub fn regions(here: &Handle, others: &[Host], expression: &str) -> Result<Regions, NoBid> {
    let known = others.iter().map(|host| host.region.clone());
    let known: BTreeSet<String> = known.chain([here.region().to_owned()]).collect();
    Regions::read(expression, &known)
}

/// The workers of `regions` that can be asked: `here`, and those of the `others` that are not
/// counted out. The list may be empty: then all hosts of the regions are silent.
pub fn bidders(here: &Handle, others: &[Host], rpc: &Rpc, regions: &Regions) -> Vec<Bidder> {
    let wanted = |region: &str| regions.rank(region).is_some();
    let asked = |host: &&Host| wanted(&host.region) && host.status != HostStatus::Unreachable;
    let others = others.iter().filter(asked).map(|host| {
        let remote = Remote::new(host.id, rpc.clone());
        Bidder::There(remote.in_region(host.region.clone()))
    });
    let here = wanted(here.region()).then(|| Bidder::Here(here.clone()));
    here.into_iter().chain(others).collect()
}
