//! The 6PN address: `fdaa | network 32 | host 32 | machine 32 | 16 free`.
//!
//! A machine owns the /112 and uses `::2` of it. There is no routing protocol: the host that owns
//! an address is read from it.

use std::fmt;
use std::net::Ipv6Addr;

use crate::id::{HostId, NetworkId};

/// MTU inside a network, in bytes: 1500 less what WireGuard over IPv6 adds.
pub const MTU: u32 = 1420;

/// Where every machine asks for names.
pub const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3);

/// The link-local address that every machine's next hop has, on each tap.
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The network of the hosts themselves. No machine is ever in it.
pub const HOST_PLANE: NetworkId = NetworkId::HOST_PLANE;

/// Machine fields below this are reserved (1: the host itself, 0x0a: gateway peers).
pub const MACHINE_FIELD_MIN: u32 = 0x1_0000;

/// The machine field of gateway peers.
pub const GATEWAY_PEERS: u32 = 0x0a;

/// An address of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SixPn {
    pub network: NetworkId,
    pub host: HostId,
    /// The machine within its host and network; given out by the worker, derived from nothing.
    pub machine: u32,
    /// The 16 bits that the machine is free to use; 2 for its first address.
    pub free: u16,
}

impl SixPn {
    /// The first address of the machine with this field.
    pub fn of_machine(network: NetworkId, host: HostId, machine: u32) -> Self {
        Self {
            network,
            host,
            machine,
            free: 2,
        }
    }

    pub fn addr(self) -> Ipv6Addr {
        let bits = 0xfdaa_u128 << 112
            | u128::from(u32::from(self.network)) << 80
            | u128::from(self.host.bits()) << 48
            | u128::from(self.machine) << 16
            | u128::from(self.free);
        Ipv6Addr::from(bits)
    }

    /// Reads the fields of `addr`. `None` if it is not the address of a machine: another prefix,
    /// a host field that names no host (VIPs, resolvers), or a network id out of range.
    pub fn from_addr(addr: Ipv6Addr) -> Option<Self> {
        let [prefix, n1, n2, h1, h2, m1, m2, free] = addr.segments();
        let word = |hi: u16, lo: u16| u32::from(hi) << 16 | u32::from(lo);
        if prefix != 0xfdaa {
            return None;
        }
        Some(Self {
            network: NetworkId::try_from(word(n1, n2)).ok()?,
            host: HostId::from_bits(word(h1, h2))?,
            machine: word(m1, m2),
            free,
        })
    }
}

/// The network that `addr` belongs to, for any address inside `fdaa::/16`, VIPs included.
pub fn network_of(addr: Ipv6Addr) -> Option<NetworkId> {
    let [prefix, n1, n2, ..] = addr.segments();
    (prefix == 0xfdaa)
        .then(|| u32::from(n1) << 16 | u32::from(n2))?
        .try_into()
        .ok()
}

/// The private VIP `number` of `network`: `fdaa:<net>:0:1::N`.
pub fn vip(network: NetworkId, number: u32) -> Ipv6Addr {
    let bits = 0xfdaa_u128 << 112
        | u128::from(u32::from(network)) << 80
        | 1_u128 << 48
        | u128::from(number);
    Ipv6Addr::from(bits)
}

/// Where WireGuard peers of `network` ask for names: `<net>::3`.
pub fn network_resolver(network: NetworkId) -> Ipv6Addr {
    Ipv6Addr::from(0xfdaa_u128 << 112 | u128::from(u32::from(network)) << 80 | 3)
}

/// The first address of WireGuard peer `index` of the gateway `host`; the peer owns the /120.
pub fn peer_addr(network: NetworkId, host: HostId, index: u8) -> Ipv6Addr {
    SixPn {
        network,
        host,
        machine: GATEWAY_PEERS,
        free: u16::from(index) << 8 | 2,
    }
    .addr()
}

/// The address of the host itself inside `network`: the source of proxied connections and probes.
pub fn host_addr(network: NetworkId, host: HostId) -> Ipv6Addr {
    SixPn {
        network,
        host,
        machine: 1,
        free: 1,
    }
    .addr()
}

/// Whether `addr` is that of a host inside some network.
pub fn is_host_addr(addr: Ipv6Addr) -> bool {
    SixPn::from_addr(addr).is_some_and(|fields| host_addr(fields.network, fields.host) == addr)
}

impl fmt::Display for SixPn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}

impl fmt::Debug for SixPn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}

impl From<SixPn> for Ipv6Addr {
    fn from(address: SixPn) -> Self {
        address.addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_published_example_reads_as_its_fields() {
        let address = SixPn::from_addr("fdaa:0:18:a7b:7d:f066:b83b:2".parse().unwrap()).unwrap();
        assert_eq!(u32::from(address.network), 0x18);
        assert_eq!(address.host, HostId::new(0x7d));
        assert_eq!(address.machine, 0xf066_b83b);
        assert_eq!(address.free, 2);
    }

    #[test]
    fn resolvers_and_vips_are_no_machines_but_have_networks() {
        assert_eq!(SixPn::from_addr(RESOLVER), None);
        let vip: Ipv6Addr = "fdaa:0:22b7:0:1::3".parse().unwrap();
        assert_eq!(SixPn::from_addr(vip), None);
        assert_eq!(network_of(vip), NetworkId::try_from(0x22b7).ok());
        assert_eq!(network_of("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn reserved_addresses_read_as_published() {
        let network = NetworkId::try_from(0x22b7).unwrap();
        assert_eq!(vip(network, 3).to_string(), "fdaa:0:22b7:0:1::3");
        assert_eq!(network_resolver(network).to_string(), "fdaa:0:22b7::3");
        let peer = peer_addr(NetworkId::try_from(4).unwrap(), HostId::new(0xab6), 1);
        assert_eq!(peer.to_string(), "fdaa:0:4:a7b:ab6:0:a:102");
    }

    proptest! {
        #[test]
        fn an_address_survives_the_way_there_and_back(
            network in 0u32..0x0a7b_0000, host: u16, machine: u32, free: u16,
        ) {
            let network = NetworkId::try_from(network).unwrap();
            let address = SixPn { network, host: HostId::new(host), machine, free };
            prop_assert_eq!(SixPn::from_addr(address.addr()), Some(address));
        }
    }
}
