//! Which peer has which addresses, and what may pass between peers and their networks. Pure.
//!
//! A peer owns one /120 of this gateway, `fdaa:<net>:a7b:<host>:0:a:<index>00`, and speaks with
//! what is for clients in its own network: machines of any host, VIPs, other peers, and `<net>::3`.
//! Not with hosts, neither in the host plane nor by their addresses in the network.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, PoisonError, RwLock};

use net::wireguard::{DropReason, PeerId, Policy};
use types::fleet::WireGuardPeer;
use types::sixpn::{
    GATEWAY_PEERS, HOST_PLANE, MACHINE_FIELD_MIN, network_of, network_resolver, vip,
};
use types::{HostId, NetworkId, SixPn};

/// What a peer has: a /120.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) network: NetworkId,
    pub(super) index: u8,
}

impl Place {
    /// That of a peer of the gateway `host`; `None` if the row contradicts itself.
    pub(super) fn of(peer: &WireGuardPeer, host: HostId) -> Option<Self> {
        let place = Self::of_address(peer.address, host)?;
        (peer.gateway == host && peer.network_id == place.network).then_some(place)
    }

    /// Whose /120 an address is in, if it is one of this gateway's.
    fn of_address(address: Ipv6Addr, host: HostId) -> Option<Self> {
        let address = SixPn::from_addr(address)?;
        let is_peer = address.host == host && address.machine == GATEWAY_PEERS;
        let [index, _] = address.free.to_be_bytes();
        (is_peer && address.network != HOST_PLANE).then_some(Self {
            network: address.network,
            index,
        })
    }
}

#[derive(Debug)]
pub(super) struct Addresses {
    host: HostId,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: HashMap<PeerId, Place>,
    peers: HashMap<Place, PeerId>,
    /// Numbers are not used again, so a late packet never finds another's place.
    last: u32,
}

impl Addresses {
    pub(super) fn new(host: HostId) -> Self {
        let table = RwLock::default();
        Self { host, table }
    }

    /// Gives a place to a new peer. The peer that had it has it no longer.
    pub(super) fn give(&self, place: Place) -> PeerId {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.last = table.last.wrapping_add(1);
        let peer = PeerId(table.last);
        if let Some(old) = table.peers.insert(place, peer) {
            table.places.remove(&old);
        }
        table.places.insert(peer, place);
        peer
    }

    pub(super) fn take(&self, peer: PeerId) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = table.places.remove(&peer) {
            table.peers.remove(&place);
        }
    }

    pub(super) fn peer_at(&self, place: Place) -> Option<PeerId> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.peers.get(&place).copied()
    }

    fn place_of(&self, peer: PeerId) -> Option<Place> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.places.get(&peer).copied()
    }
}

/// Whether peers of `network` may speak with `address`.
fn is_for_peers(network: NetworkId, address: Ipv6Addr) -> bool {
    if network_of(address) != Some(network) {
        return false;
    }
    match SixPn::from_addr(address) {
        Some(of) => of.machine >= MACHINE_FIELD_MIN || of.machine == GATEWAY_PEERS,
        None => address == network_resolver(network) || is_vip(network, address),
    }
}

fn is_vip(network: NetworkId, address: Ipv6Addr) -> bool {
    let [.., high, low] = address.segments();
    vip(network, u32::from(high) << 16 | u32::from(low)) == address
}

/// Asked by the engine for every packet.
pub(super) struct GatewayPolicy(pub(super) Arc<Addresses>);

impl Policy for GatewayPolicy {
    fn route(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Result<PeerId, DropReason> {
        let place = Place::of_address(destination, self.0.host);
        let place = place.ok_or(DropReason::ForeignDestination)?;
        if network_of(source) != Some(place.network) {
            return Err(DropReason::OtherNetwork);
        }
        if !is_for_peers(place.network, source) {
            return Err(DropReason::ForeignSource);
        }
        self.0.peer_at(place).ok_or(DropReason::UnknownPeer)
    }

    fn allow(
        &self,
        peer: PeerId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason> {
        let place = self.0.place_of(peer).ok_or(DropReason::UnknownPeer)?;
        if Place::of_address(source, self.0.host) != Some(place) {
            return Err(DropReason::ForeignSource);
        }
        if network_of(destination) != Some(place.network) {
            return Err(DropReason::OtherNetwork);
        }
        if is_for_peers(place.network, destination) {
            Ok(())
        } else {
            Err(DropReason::ForeignDestination)
        }
    }
}

#[cfg(test)]
mod tests {
    use types::sixpn::{host_addr, peer_addr};

    use super::*;

    const HOST: u16 = 3;

    fn network(id: u32) -> NetworkId {
        NetworkId::try_from(id).unwrap()
    }

    fn us() -> HostId {
        HostId::new(HOST)
    }

    /// A gateway with peer 1 of network 7.
    fn gateway() -> (GatewayPolicy, PeerId) {
        let addresses = Addresses::new(us());
        let (network, index) = (network(7), 1);
        let peer = addresses.give(Place { network, index });
        (GatewayPolicy(Arc::new(addresses)), peer)
    }

    fn peer(index: u8) -> Ipv6Addr {
        peer_addr(network(7), us(), index)
    }

    fn friends() -> [Ipv6Addr; 5] {
        let machine = |host| SixPn::of_machine(network(7), HostId::new(host), 0x10001).addr();
        [
            machine(HOST),
            machine(9),
            vip(network(7), 5),
            network_resolver(network(7)),
            peer_addr(network(7), HostId::new(9), 4),
        ]
    }

    #[test]
    fn a_peer_speaks_with_what_is_for_clients_of_its_network() {
        let (policy, id) = gateway();
        for friend in friends() {
            assert_eq!(policy.allow(id, peer(1), friend), Ok(()), "{friend}");
            assert_eq!(policy.route(friend, peer(1)), Ok(id), "{friend}");
        }
    }

    #[test]
    fn all_of_its_120_is_a_peers_own_and_nothing_else_is() {
        let (policy, id) = gateway();
        let to = friends()[0];
        let last = Ipv6Addr::from(u128::from(peer(1)) | 0xff);
        assert_eq!(policy.allow(id, last, to), Ok(()));
        assert_eq!(policy.route(to, last), Ok(id));
        let foreign = [
            peer(2),
            peer_addr(network(7), HostId::new(9), 1),
            peer_addr(network(8), us(), 1),
            SixPn::of_machine(network(7), us(), 0x10001).addr(),
            host_addr(network(7), us()),
            network_resolver(network(7)),
            "2001:db8::1".parse().unwrap(),
        ];
        for source in foreign {
            let refused = Err(DropReason::ForeignSource);
            assert_eq!(policy.allow(id, source, to), refused, "{source}");
        }
    }

    #[test]
    fn hosts_are_not_for_peers() {
        let (policy, id) = gateway();
        for host in [us(), HostId::new(9)] {
            let address = host_addr(network(7), host);
            let refused = Err(DropReason::ForeignDestination);
            assert_eq!(policy.allow(id, peer(1), address), refused);
            let refused = Err(DropReason::ForeignSource);
            assert_eq!(policy.route(address, peer(1)), refused);
            let plane = host_addr(HOST_PLANE, host);
            assert!(policy.allow(id, peer(1), plane).is_err());
            assert!(policy.route(plane, peer(1)).is_err());
        }
    }

    #[test]
    fn nothing_crosses_to_another_network() {
        let (policy, id) = gateway();
        let other = Err(DropReason::OtherNetwork);
        for stranger in [
            SixPn::of_machine(network(8), us(), 0x10001).addr(),
            vip(network(8), 5),
            network_resolver(network(8)),
            types::sixpn::RESOLVER,
            "2001:db8::1".parse().unwrap(),
            "ff02::1".parse().unwrap(),
        ] {
            assert_eq!(policy.allow(id, peer(1), stranger), other, "{stranger}");
            let route = policy.route(stranger, peer(1));
            assert_eq!(route.map(|_| ()), other, "{stranger}");
        }
    }

    #[test]
    fn who_has_lost_its_place_is_nobody() {
        let (policy, id) = gateway();
        let to = friends()[0];
        let (network, index) = (network(7), 1);
        let next = policy.0.give(Place { network, index });
        let unknown = DropReason::UnknownPeer;
        assert_eq!(policy.allow(id, peer(1), to), Err(unknown));
        assert_eq!(policy.route(to, peer(1)), Ok(next));
        policy.0.take(id);
        assert_eq!(policy.route(to, peer(1)), Ok(next));
        policy.0.take(next);
        assert_eq!(policy.route(to, peer(1)), Err(unknown));
    }

    #[test]
    fn a_row_that_contradicts_itself_has_no_place() {
        let row = WireGuardPeer {
            name: "laptop".into(),
            org: "personal".parse().unwrap(),
            network: "default".into(),
            network_id: network(7),
            public_key: String::new(),
            gateway: us(),
            address: peer(1),
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let place = Place {
            network: network(7),
            index: 1,
        };
        assert_eq!(Place::of(&row, us()), Some(place));
        assert_eq!(Place::of(&row, HostId::new(9)), None);
        let of = |address| {
            let row = row.clone();
            Place::of(&WireGuardPeer { address, ..row }, us())
        };
        assert_eq!(of(peer_addr(network(8), us(), 1)), None);
        assert_eq!(of(friends()[0]), None);
        assert_eq!(of(peer_addr(HOST_PLANE, us(), 1)), None);
    }
}
