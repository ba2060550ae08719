//! Where the backends of services are reached, for the proxy and for DNS.

use std::net::Ipv6Addr;

use types::fleet::HostStatus;
use types::service::Target;
use types::sixpn::{GATEWAY_PEERS, MACHINE_FIELD_MIN, is_host_addr};
use types::{NetworkId, SixPn};

use super::Catalog;

impl Catalog {
    /// The address of a backend of a service in `network`, if it takes part: a machine while it is
    /// started, ready and not cordoned, on a host that is not counted out; an address always.
    ///
    /// Whoever writes a service chooses its backends, so nothing outside of `network` is ever an
    /// answer, whatever stands in the service or in the machine's row.
    pub fn backend(&self, network: NetworkId, target: &Target) -> Option<Ipv6Addr> {
        let address = match target {
            Target::Address(address) => *address,
            Target::Machine(id) => {
                let entry = self.get(id)?;
                let machine = &entry.machine;
                let takes_part = entry.network == network
                    && machine.serves()
                    && machine.host_status != HostStatus::Unreachable.as_str();
                takes_part.then(|| machine.private_ip.parse().ok())??
            }
        };
        may_answer(network, address).then_some(address)
    }
}

/// Whether `address` is one of a machine, a gateway's peer or a host in `network`. A VIP is not:
/// services that stand behind each other would go round in circles. A host answers in the network
/// of a cluster whose control plane it runs; the proxy asks it for nothing else.
fn may_answer(network: NetworkId, address: Ipv6Addr) -> bool {
    SixPn::from_addr(address).is_some_and(|address| {
        network != NetworkId::HOST_PLANE
            && address.network == network
            && (address.machine >= MACHINE_FIELD_MIN
                || address.machine == GATEWAY_PEERS
                || is_host_addr(address.addr()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use types::HostId;
    use types::sixpn::{HOST_PLANE, RESOLVER, host_addr, network_resolver, peer_addr, vip};

    #[test]
    fn only_machines_peers_and_hosts_of_the_same_network_are_ever_reached() {
        let (ours, other) = (
            NetworkId::try_from(7).unwrap(),
            NetworkId::try_from(8).unwrap(),
        );
        let host = HostId::new(2);
        let machine = |network| SixPn::of_machine(network, host, MACHINE_FIELD_MIN).addr();
        assert!(may_answer(ours, machine(ours)));
        assert!(may_answer(ours, peer_addr(ours, host, 1)));
        assert!(may_answer(ours, host_addr(ours, host)));
        for address in [
            machine(other),
            machine(HOST_PLANE),
            host_addr(other, host),
            host_addr(HOST_PLANE, host),
            vip(ours, 1),
            network_resolver(ours),
            RESOLVER,
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::UNSPECIFIED,
            "fe80::1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
            "::ffff:127.0.0.1".parse().unwrap(),
        ] {
            assert!(!may_answer(ours, address), "{address}");
        }
        assert!(!may_answer(HOST_PLANE, machine(HOST_PLANE)));
    }

    proptest! {
        #[test]
        fn an_address_answers_for_one_network_at_most(bits: u128, network in 1_u32..0x0a7b_0000) {
            let address = Ipv6Addr::from(bits >> 16 | 0xfdaa << 112);
            let network = NetworkId::try_from(network).unwrap();
            if may_answer(network, address) {
                prop_assert_eq!(types::sixpn::network_of(address), Some(network));
            }
        }
    }
}
