//! What is answered: VIPs, their ports and who stands behind them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddrV6};

use net::CLUSTER_API_PORT;
use types::NetworkId;
use types::service::{Protocol, Service, Target};
use types::sixpn;

/// Ports of all services of one network that are answered. Each is a listener on every host, and
/// so a descriptor of each daemon: no tenant can take all.
pub(super) const PORTS_PER_NETWORK_MAX: usize = 2048;

/// Every VIP that this host is to answer.
pub(super) type Table = BTreeMap<Ipv6Addr, Vip>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vip {
    pub(super) network: NetworkId,
    /// `<app>/<service>`, for logs.
    pub(super) service: String,
    /// Backends by port. A port without any is refused by the kernel, as nobody listens there.
    pub(super) ports: BTreeMap<u16, BTreeSet<SocketAddrV6>>,
}

/// The table of `services`; `reached` says where a backend is, if it takes part.
pub(super) fn table(
    services: &[Service],
    reached: impl Fn(NetworkId, &Target) -> Option<Ipv6Addr>,
) -> Table {
    let mut table = Table::new();
    for service in services {
        let Some(vip) = service.vip.filter(|vip| is_vip(service.network_id, *vip)) else {
            continue;
        };
        // The directory gives a VIP to one service; should it not, the first one keeps it.
        table
            .entry(vip)
            .or_insert_with(|| answered(service, &reached));
    }
    table
}

fn answered(service: &Service, reached: impl Fn(NetworkId, &Target) -> Option<Ipv6Addr>) -> Vip {
    let backends: Vec<_> = service
        .spec
        .backends
        .iter()
        .filter_map(|backend| Some((backend, reached(service.network_id, &backend.target)?)))
        .collect();
    let mut ports = BTreeMap::new();
    for port in &service.spec.ports {
        match port.protocol {
            Protocol::Tcp => {}
        }
        let at = backends
            .iter()
            .map(|(backend, address)| SocketAddrV6::new(*address, backend.port(port), 0, 0))
            .filter(|at| at.port() != 0 && port.port != 0)
            // Whoever writes a service names its backends; of hosts there is one thing to be had.
            .filter(|at| !sixpn::is_host_addr(*at.ip()) || at.port() == CLUSTER_API_PORT);
        ports
            .entry(port.port)
            .or_insert_with(BTreeSet::new)
            .extend(at);
    }
    Vip {
        network: service.network_id,
        service: format!("{}/{}", service.app, service.name),
        ports,
    }
}

/// Takes ports out of `table` until no network has more than it may have answered; returns the
/// networks that had.
pub(super) fn bound(table: &mut Table) -> BTreeSet<NetworkId> {
    let mut left: BTreeMap<NetworkId, usize> = BTreeMap::new();
    let mut crowded = BTreeSet::new();
    for vip in table.values_mut() {
        let left = left.entry(vip.network).or_insert(PORTS_PER_NETWORK_MAX);
        vip.ports.retain(|_, backends| {
            let is_answered = backends.is_empty() || *left > 0;
            if !is_answered {
                crowded.insert(vip.network);
            } else if !backends.is_empty() {
                *left -= 1;
            }
            is_answered
        });
    }
    crowded
}

/// Whether `address` is of the VIPs of `network`: what the proxy puts on this host must never be
/// somebody else's, whatever a row says.
fn is_vip(network: NetworkId, address: Ipv6Addr) -> bool {
    let [.., high, low] = address.segments();
    let number = u32::from(high) << 16 | u32::from(low);
    network != NetworkId::HOST_PLANE && number != 0 && sixpn::vip(network, number) == address
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::service::{Backend, ServicePort, ServiceSpec};
    use types::sixpn::{HOST_PLANE, host_addr, vip};
    use types::{HostId, MachineId};

    fn network(id: u32) -> NetworkId {
        NetworkId::try_from(id).unwrap()
    }

    fn port(port: u16, target_port: u16) -> ServicePort {
        ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            target_port,
        }
    }

    fn service(name: &str, vip: Option<Ipv6Addr>, ports: Vec<ServicePort>) -> Service {
        let backend = |id| Backend {
            target: Target::Machine(MachineId::from_bits(id)),
            ports: BTreeMap::from([(90, 9090)]),
            hostname: String::new(),
        };
        Service {
            name: name.to_owned(),
            app: "web".parse().unwrap(),
            network_id: network(7),
            vip,
            spec: ServiceSpec {
                ports,
                backends: [1, 2].map(backend).into(),
                ..ServiceSpec::default()
            },
        }
    }

    /// Machine 1 is there, machine 2 is not.
    fn first(_: NetworkId, target: &Target) -> Option<Ipv6Addr> {
        (*target == Target::Machine(MachineId::from_bits(1))).then_some(Ipv6Addr::LOCALHOST)
    }

    #[test]
    fn each_port_leads_to_the_backends_that_take_part_at_their_own_ports() {
        let ports = vec![port(80, 8080), port(90, 0), port(443, 0), port(0, 1)];
        let services = [service("a", Some(vip(network(7), 1)), ports)];
        let table = table(&services, first);
        let found = &table[&vip(network(7), 1)];
        assert_eq!(found.service, "web/a");
        let at = |port| BTreeSet::from([SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)]);
        let expected = [
            (0, BTreeSet::new()),
            (80, at(8080)),
            (90, at(9090)),
            (443, at(443)),
        ];
        assert_eq!(found.ports, BTreeMap::from(expected));
    }

    #[test]
    fn of_a_host_nothing_but_a_clusters_api_is_asked() {
        let host = host_addr(network(7), HostId::new(2));
        let ports = vec![port(443, CLUSTER_API_PORT), port(53, 0), port(4280, 4280)];
        let services = [service("a", Some(vip(network(7), 1)), ports)];
        let table = table(&services, |_, _| Some(host));
        let found = &table[&vip(network(7), 1)].ports;
        let api = SocketAddrV6::new(host, CLUSTER_API_PORT, 0, 0);
        assert_eq!(found[&443], BTreeSet::from([api]));
        assert!(found[&53].is_empty() && found[&4280].is_empty());
    }

    #[test]
    fn without_backends_there_is_the_vip_but_nobody_behind_its_ports() {
        let services = [service("a", Some(vip(network(7), 1)), vec![port(80, 0)])];
        let table = table(&services, |_, _| None);
        assert!(table[&vip(network(7), 1)].ports[&80].is_empty());
    }

    #[test]
    fn an_address_that_is_no_vip_of_the_services_network_is_not_answered() {
        for address in [
            vip(network(8), 1),
            vip(network(7), 0),
            vip(HOST_PLANE, 1),
            host_addr(network(7), HostId::new(2)),
            sixpn::network_resolver(network(7)),
            sixpn::RESOLVER,
            Ipv6Addr::LOCALHOST,
        ] {
            let services = [service("a", Some(address), vec![port(80, 0)])];
            assert!(table(&services, first).is_empty(), "{address}");
        }
        assert!(table(&[service("a", None, vec![port(80, 0)])], first).is_empty());
    }

    #[test]
    fn a_network_has_so_many_ports_answered_and_others_have_theirs() {
        let many = |number| {
            let ports = (1..=1000).map(|number| port(number, 0)).collect();
            service("a", Some(vip(network(7), number)), ports)
        };
        let mut other = service("b", Some(vip(network(8), 1)), vec![port(80, 0)]);
        other.network_id = network(8);
        let services = [many(1), many(2), many(3), other];
        let reached = |_, _: &Target| Some(Ipv6Addr::LOCALHOST);
        let mut table = table(&services, reached);
        assert_eq!(bound(&mut table), BTreeSet::from([network(7)]));
        let ports = |id| {
            let vips = table.values().filter(|vip| vip.network == network(id));
            vips.map(|vip| vip.ports.len()).sum::<usize>()
        };
        assert_eq!((ports(7), ports(8)), (PORTS_PER_NETWORK_MAX, 1));
        assert_eq!(bound(&mut table), BTreeSet::new());
    }

    #[test]
    fn a_vip_that_two_services_claim_stays_with_the_first() {
        let claim = |name| service(name, Some(vip(network(7), 1)), vec![port(80, 0)]);
        let table = table(&[claim("a"), claim("b")], first);
        assert_eq!(table[&vip(network(7), 1)].service, "web/a");
    }
}
