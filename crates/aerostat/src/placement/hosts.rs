//! Who takes part: the hosts that are known, and the region that is asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use types::HostId;
use types::fleet::HostStatus;

use super::Bidder;
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

/// The workers of `region` (empty: of every region) that can be asked: `here`, and those of the
/// `others` that are not counted out.
///
/// # Errors
/// [`NoBid::RegionUnknown`] if no host is in that region, whatever its status. The list may be
/// empty: then all hosts of the region are silent.
pub fn bidders(
    here: &Handle,
    others: &[Host],
    rpc: &Rpc,
    region: &str,
) -> Result<Vec<Bidder>, NoBid> {
    let wanted = |other: &str| region.is_empty() || region == other;
    let is_here = wanted(here.region());
    if !is_here && !others.iter().any(|host| wanted(&host.region)) {
        let regions = others.iter().map(|host| host.region.as_str());
        let regions: BTreeSet<&str> = regions.chain([here.region()]).collect();
        let known: Vec<String> = regions.iter().map(|region| format!("`{region}`")).collect();
        let (region, known) = (region.to_owned(), known.join(", "));
        return Err(NoBid::RegionUnknown { region, known });
    }
    let asked = |host: &&Host| wanted(&host.region) && host.status != HostStatus::Unreachable;
    let others = others.iter().filter(asked);
    let others = others.map(|host| Bidder::There(Remote::new(host.id, rpc.clone())));
    let here = is_here.then(|| Bidder::Here(here.clone()));
    Ok(here.into_iter().chain(others).collect())
}
