//! Who may say what to whom: pure, and asked for every packet.

use std::net::Ipv6Addr;

use types::{HostId, SixPn};

use super::counters::DropReason;
use super::peer::PeerId;

/// Decides over inner packets by their addresses. Asked in the data path, so it must not wait.
pub trait Policy: Send + Sync + 'static {
    /// The peer that a packet from `source` to `destination`, which the kernel wants out of the
    /// TUN device, goes to; or why it goes nowhere.
    fn route(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Result<PeerId, DropReason>;

    /// Whether `peer`, which has just authenticated it, may send this packet.
    fn allow(
        &self,
        peer: PeerId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason>;
}

/// The mesh between hosts: every packet stays within its network, leaves from its source's owner
/// and arrives at its destination's owner. Peers are hosts, numbered by the bits of their ids.
///
/// `owner` says which host owns the /112 of an address: an override's, else that of the host
/// field. Routing and both guards ask the same function, so a machine that moved keeps its
/// address, and a host that has not heard of it is refused.
#[derive(Debug, Clone)]
pub struct SixPnPolicy<O> {
    pub host: HostId,
    pub owner: O,
}

impl SixPnPolicy<fn(SixPn) -> HostId> {
    /// Without overrides.
    pub fn by_host_field(host: HostId) -> Self {
        Self {
            host,
            owner: |address| address.host,
        }
    }
}

impl<O: Fn(SixPn) -> HostId + Send + Sync + 'static> SixPnPolicy<O> {
    /// Owners of source and destination, if both are of one network.
    fn owners(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(HostId, HostId), DropReason> {
        let source = SixPn::from_addr(source).ok_or(DropReason::ForeignSource)?;
        let destination = SixPn::from_addr(destination).ok_or(DropReason::ForeignDestination)?;
        if source.network == destination.network {
            Ok(((self.owner)(source), (self.owner)(destination)))
        } else {
            Err(DropReason::OtherNetwork)
        }
    }
}

impl<O: Fn(SixPn) -> HostId + Send + Sync + 'static> Policy for SixPnPolicy<O> {
    fn route(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Result<PeerId, DropReason> {
        let (from, to) = self.owners(source, destination)?;
        if from != self.host {
            Err(DropReason::ForeignSource)
        } else if to == self.host {
            // It would come straight back.
            Err(DropReason::ForeignDestination)
        } else {
            Ok(to.into())
        }
    }

    fn allow(
        &self,
        peer: PeerId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason> {
        let (from, to) = self.owners(source, destination)?;
        if PeerId::from(from) != peer {
            Err(DropReason::ForeignSource)
        } else if to != self.host {
            Err(DropReason::ForeignDestination)
        } else {
            Ok(())
        }
    }
}

/// Addresses for tests of this module.
#[cfg(test)]
pub(super) fn machine(network: u32, host: u16, field: u32) -> Ipv6Addr {
    let network = network.try_into().unwrap();
    SixPn::of_machine(network, HostId::new(host), field).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(host: u16) -> impl Policy {
        SixPnPolicy::by_host_field(HostId::new(host))
    }

    #[test]
    fn a_packet_goes_to_the_host_in_its_destination() {
        let route = policy(2).route(machine(7, 2, 0x10001), machine(7, 3, 0x10001));
        assert_eq!(route, Ok(HostId::new(3).into()));
    }

    #[test]
    fn nothing_leaves_its_network() {
        let (source, destination) = (machine(7, 2, 0x10001), machine(8, 3, 0x10001));
        let other = Err(DropReason::OtherNetwork);
        assert_eq!(policy(2).route(source, destination), other);
        let peer = HostId::new(2).into();
        assert_eq!(
            policy(3).allow(peer, source, destination),
            other.map(|_| ())
        );
    }

    #[test]
    fn a_host_speaks_for_its_own_machines_only() {
        let (source, destination) = (machine(7, 4, 0x10001), machine(7, 3, 0x10001));
        let foreign = DropReason::ForeignSource;
        assert_eq!(policy(2).route(source, destination), Err(foreign));
        let peer = HostId::new(2).into();
        assert_eq!(policy(3).allow(peer, source, destination), Err(foreign));
        assert_eq!(
            policy(3).allow(HostId::new(4).into(), source, destination),
            Ok(())
        );
    }

    #[test]
    fn a_host_takes_packets_for_its_own_machines_only() {
        let (source, destination) = (machine(7, 2, 0x10001), machine(7, 3, 0x10001));
        let peer = HostId::new(2).into();
        let foreign = DropReason::ForeignDestination;
        assert_eq!(policy(4).allow(peer, source, destination), Err(foreign));
        let here = machine(7, 2, 0x10002);
        assert_eq!(policy(2).route(source, here), Err(foreign));
    }

    #[test]
    fn addresses_of_no_machine_are_refused() {
        let (us, vip) = (machine(7, 2, 0x10001), "fdaa:0:7:0:1::1".parse().unwrap());
        assert_eq!(
            policy(2).route(us, vip),
            Err(DropReason::ForeignDestination)
        );
        let link_local = "fe80::1".parse().unwrap();
        assert_eq!(
            policy(2).route(link_local, us),
            Err(DropReason::ForeignSource)
        );
    }

    #[test]
    fn a_machine_that_moved_is_heard_from_its_new_owner_only() {
        let moved = machine(7, 4, 0x10009);
        let owner = move |address: SixPn| {
            if address.addr() == moved {
                HostId::new(2)
            } else {
                address.host
            }
        };
        let here = machine(7, 3, 0x10001);
        let host = HostId::new(3);
        let policy = SixPnPolicy { host, owner };
        assert_eq!(policy.route(here, moved), Ok(HostId::new(2).into()));
        assert_eq!(policy.allow(HostId::new(2).into(), moved, here), Ok(()));
        let stale = policy.allow(HostId::new(4).into(), moved, here);
        assert_eq!(stale, Err(DropReason::ForeignSource));
    }
}
