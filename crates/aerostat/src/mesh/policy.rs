//! Who may say what to whom on the mesh: [`SixPnPolicy`] with overrides, and the host plane.
//!
//! The host plane is network 0. It needs no exception: a packet in it stays in its network, leaves
//! from its source's host and arrives at its destination's. But only hosts themselves are in it,
//! and what a connection there comes from is believed without further proof, so an address of any
//! other form does not pass.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Instant;

use net::wireguard::{DropReason, PeerId, Policy, SixPnPolicy};
use types::sixpn::{HOST_PLANE, host_addr, network_of};
use types::{HostId, SixPn};

use super::overrides::Overrides;

/// The policy of the mesh on host `host`.
pub(super) fn policy(host: HostId, overrides: Arc<Overrides>) -> impl Policy {
    let owner = move |address: SixPn| overrides.owner(address, Instant::now);
    MeshPolicy(SixPnPolicy { host, owner })
}

struct MeshPolicy<O>(SixPnPolicy<O>);

impl<O: Fn(SixPn) -> HostId + Send + Sync + 'static> Policy for MeshPolicy<O> {
    fn route(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Result<PeerId, DropReason> {
        host_plane_is_of_hosts(source, destination)?;
        self.0.route(source, destination)
    }

    fn allow(
        &self,
        peer: PeerId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason> {
        host_plane_is_of_hosts(source, destination)?;
        self.0.allow(peer, source, destination)
    }
}

fn host_plane_is_of_hosts(source: Ipv6Addr, destination: Ipv6Addr) -> Result<(), DropReason> {
    if in_host_plane(source) && !is_host(source) {
        Err(DropReason::ForeignSource)
    } else if in_host_plane(destination) && !is_host(destination) {
        Err(DropReason::ForeignDestination)
    } else {
        Ok(())
    }
}

fn in_host_plane(address: Ipv6Addr) -> bool {
    network_of(address) == Some(HOST_PLANE)
}

fn is_host(address: Ipv6Addr) -> bool {
    SixPn::from_addr(address).is_some_and(|fields| host_addr(HOST_PLANE, fields.host) == address)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::overrides::Override;
    use super::*;

    fn host(number: u16) -> HostId {
        HostId::new(number)
    }

    fn plane(number: u16) -> Ipv6Addr {
        host_addr(HOST_PLANE, host(number))
    }

    fn machine(network: u32, number: u16, field: u32) -> SixPn {
        SixPn::of_machine(network.try_into().unwrap(), host(number), field)
    }

    #[test]
    fn hosts_reach_each_other_in_the_host_plane() {
        let us = policy(host(2), Arc::default());
        assert_eq!(us.route(plane(2), plane(3)), Ok(host(3).into()));
        assert_eq!(us.allow(host(3).into(), plane(3), plane(2)), Ok(()));
        let lie = us.allow(host(4).into(), plane(3), plane(2));
        assert_eq!(lie, Err(DropReason::ForeignSource));
    }

    #[test]
    fn nobody_but_hosts_is_in_the_host_plane() {
        let us = policy(host(2), Arc::default());
        let second = "fdaa:0:0:a7b:3:0:1:2".parse().unwrap();
        for other in [
            machine(0, 3, 0x10001).addr(),
            machine(0, 3, 0xa).addr(),
            second,
        ] {
            let lie = us.allow(host(3).into(), other, plane(2));
            assert_eq!(lie, Err(DropReason::ForeignSource), "{other}");
            let stray = us.route(plane(2), other);
            assert_eq!(stray, Err(DropReason::ForeignDestination), "{other}");
        }
    }

    #[test]
    fn no_network_reaches_the_host_plane() {
        let us = policy(host(2), Arc::default());
        let member = machine(7, 3, 0x10001).addr();
        let crossing = us.allow(host(3).into(), member, plane(2));
        assert_eq!(crossing, Err(DropReason::OtherNetwork));
        let crossing = us.route(machine(7, 2, 0x10001).addr(), plane(3));
        assert_eq!(crossing, Err(DropReason::OtherNetwork));
    }

    #[test]
    fn a_machine_that_moved_is_looked_for_and_heard_where_it_is() {
        let overrides = Arc::new(Overrides::default());
        let (now, moved) = (Instant::now(), machine(7, 3, 0x10009));
        let away = Override {
            owner: host(4),
            version: 1,
            expires: now + Duration::from_secs(3600),
        };
        overrides.put(moved, away, now).unwrap();
        let us = policy(host(2), overrides);
        let here = machine(7, 2, 0x10001).addr();
        assert_eq!(us.route(here, moved.addr()), Ok(host(4).into()));
        assert_eq!(us.allow(host(4).into(), moved.addr(), here), Ok(()));
        let stale = us.allow(host(3).into(), moved.addr(), here);
        assert_eq!(stale, Err(DropReason::ForeignSource));
    }
}
