//! What a host has of each network beside machines: its own address, VIPs, resolvers, and the ways
//! into the tunnels.
//!
//! All of it lies on `lo`, or is a route:
//!
//! ```text
//!  fdaa:<net>:a7b:<host>:0:1:1   the host itself          ensure_network
//!  fdaa:<net>:a7b:<host>::/80    unreachable: what is not attached here is nowhere
//!  fdaa:<net>:0::/64             unreachable: VIPs that this host does not have
//!  fdaa:<net>:0:1::N             a VIP                    ensure_vip
//!  <net>::3                      where WireGuard clients ask for names   ensure_resolver
//!  fdaa:<net>:a7b:<host>:0:a::/112  its clients, by wggate    ensure_clients
//!  fdaa::/16                     everything else, by wgmesh   mesh_tun
//! ```
//!
//! The unreachable ones tell a sender at once, where the mesh would drop without a word.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use types::sixpn::{GATEWAY_PEERS, MTU, host_addr, network_of, network_resolver, vip};
use types::{HostId, NetworkId, SixPn};

use crate::error::NetError;
use crate::guard;
use crate::host::HostNet;
use crate::links::Links;
use crate::names::{GATEWAY_LINK, MESH_LINK, SIX_PN};
use crate::wireguard::{Offloads, Tun, WireGuardError};

/// Bits of the addresses that are one host's in one network.
const HOST_PREFIX_LEN: u8 = 80;
/// Bits of the addresses of a network that are of no host: VIPs, resolvers.
const HOSTLESS_PREFIX_LEN: u8 = 64;
/// Bits of the addresses of the WireGuard clients of one host in one network.
const CLIENTS_PREFIX_LEN: u8 = 112;

/// A tunnel's device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    #[error(transparent)]
    Device(#[from] WireGuardError),
    #[error(transparent)]
    Net(#[from] NetError),
}

impl HostNet {
    /// Makes this host part of `network`: its own address there, and the tunnels may bring that
    /// network's packets. Attaching a machine does the same.
    pub fn ensure_network(&self, network: NetworkId) -> Result<(), NetError> {
        self.enter(|| {
            self.nft
                .apply("let in a network", &guard::network(network))?;
            ensure_inside(&Links::open()?, network, self.host)
        })?
    }

    /// Gives this host a VIP. Not one of those (`types::sixpn::vip`): refused.
    pub fn ensure_vip(&self, vip: Ipv6Addr) -> Result<(), NetError> {
        let network = vip_network(vip).ok_or(NetError::NotVip { address: vip })?;
        self.ensure_network(network)?;
        self.enter(|| Links::open()?.address("lo", IpAddr::V6(vip), 128))?
    }

    /// Absent is fine.
    pub fn remove_vip(&self, vip: Ipv6Addr) -> Result<(), NetError> {
        vip_network(vip).ok_or(NetError::NotVip { address: vip })?;
        self.enter(|| Links::open()?.no_address("lo", IpAddr::V6(vip), 128))?
    }

    /// The VIPs that this host has, in order.
    pub fn vips(&self) -> Result<Vec<Ipv6Addr>, NetError> {
        let addresses = self.enter(own_addresses)??;
        let mut vips: Vec<_> = addresses
            .into_iter()
            .filter(|address| vip_network(*address).is_some())
            .collect();
        vips.sort_unstable();
        Ok(vips)
    }

    /// Gives this host the address at which WireGuard clients of `network` ask for names.
    pub fn ensure_resolver(&self, network: NetworkId) -> Result<(), NetError> {
        self.ensure_network(network)?;
        let resolver = IpAddr::V6(network_resolver(network));
        self.enter(|| Links::open()?.address("lo", resolver, 128))?
    }

    /// Absent is fine.
    pub fn remove_resolver(&self, network: NetworkId) -> Result<(), NetError> {
        let resolver = IpAddr::V6(network_resolver(network));
        self.enter(|| Links::open()?.no_address("lo", resolver, 128))?
    }

    /// Makes the mesh's TUN device, and routes to it what is of other hosts. It goes, and those
    /// addresses are unreachable again, when it is dropped.
    pub fn mesh_tun(&self, offloads: Offloads) -> Result<Tun, TunError> {
        self.enter(|| {
            let tun = Tun::open(MESH_LINK, mtu(), offloads)?;
            Links::open()?.preferred_v6(MESH_LINK, SIX_PN)?;
            Ok(tun)
        })?
    }

    /// Makes the gateway's TUN device. `ensure_clients` routes to it.
    pub fn gateway_tun(&self, offloads: Offloads) -> Result<Tun, TunError> {
        Ok(self.enter(|| Tun::open(GATEWAY_LINK, mtu(), offloads))??)
    }

    /// Routes to the gateway's TUN device, which must be there, what is of this host's WireGuard
    /// clients in `network`. Goes with the device.
    pub fn ensure_clients(&self, network: NetworkId) -> Result<(), NetError> {
        self.ensure_network(network)?;
        let clients = SixPn {
            network,
            host: self.host,
            machine: GATEWAY_PEERS,
            free: 0,
        };
        let us = host_addr(network, self.host);
        self.enter(|| {
            let prefix = (clients.addr(), CLIENTS_PREFIX_LEN);
            Links::open()?.route_v6(GATEWAY_LINK, prefix, us)
        })?
    }
}

/// The addresses and routes of one network that do not depend on machines. Runs inside.
pub(crate) fn ensure_inside(
    links: &Links,
    network: NetworkId,
    host: HostId,
) -> Result<(), NetError> {
    let own = SixPn {
        network,
        host,
        machine: 0,
        free: 0,
    };
    links.address("lo", IpAddr::V6(host_addr(network, host)), 128)?;
    links.unreachable_v6(own.addr(), HOST_PREFIX_LEN)?;
    links.unreachable_v6(hostless(network), HOSTLESS_PREFIX_LEN)
}

/// Our devices carry what fits into a 6PN packet.
fn mtu() -> u16 {
    u16::try_from(MTU).unwrap_or(u16::MAX)
}

fn hostless(network: NetworkId) -> Ipv6Addr {
    Ipv6Addr::from(0xfdaa_u128 << 112 | u128::from(u32::from(network)) << 80)
}

/// The network of which `address` is a VIP, if it is one.
fn vip_network(address: Ipv6Addr) -> Option<NetworkId> {
    let network = network_of(address)?;
    let [.., high, low] = address.segments();
    let number = u32::from(high) << 16 | u32::from(low);
    (vip(network, number) == address).then_some(network)
}

/// The IPv6 addresses of `lo` in the calling thread's network namespace.
fn own_addresses() -> Result<Vec<Ipv6Addr>, NetError> {
    let path = PathBuf::from("/proc/thread-self/net/if_inet6");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(loopback_address).collect()),
        Err(source) => Err(NetError::Sysctl {
            action: "read",
            path,
            source,
        }),
    }
}

/// `fdaa…0003 01 80 00 80       lo`: address, index, prefix length, scope, flags, link.
fn loopback_address(line: &str) -> Option<Ipv6Addr> {
    let mut words = line.split_whitespace();
    let bits = u128::from_str_radix(words.next()?, 16).ok()?;
    (words.next_back()? == "lo").then_some(Ipv6Addr::from(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vips_are_vips() {
        let network = NetworkId::try_from(7).unwrap();
        for number in [1, 0xffff, 0x10000, u32::MAX] {
            assert_eq!(vip_network(vip(network, number)), Some(network));
        }
        for other in [
            network_resolver(network),
            types::sixpn::RESOLVER,
            host_addr(network, HostId::new(2)),
            "fdaa:0:7:0:1:1::1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ] {
            assert_eq!(vip_network(other), None, "{other}");
        }
    }

    #[test]
    fn addresses_of_other_links_are_not_the_hosts() {
        let line = "fdaa0000000700000001000000000003 01 80 00 80       lo";
        let address = "fdaa:0:7:0:1::3".parse().ok();
        assert_eq!(loopback_address(line), address);
        assert_eq!(loopback_address(&line.replace("lo", "egress")), None);
    }
}
