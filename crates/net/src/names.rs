//! Names and addresses of what a host keeps in the kernel. Pure; all derived from the host id and
//! the machine field, so that whoever finds a thing knows whose it is.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use types::HostId;

/// IPv4 of machines, the same on every host and never seen outside of its namespace: the
/// namespace translates it to the host's egress address, so it cannot clash with a bridge of
/// another program that uses the same range.
pub const MACHINES_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 19, 0, 0), 16);

/// The IPv4 next hop of every machine.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 1);

/// All of 6PN.
pub(crate) const SIX_PN: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 0), 16);

/// The hardware address of every machine's next hop. The same on every link and host, so that
/// the neighbour cache of a restored or moved guest stays true.
pub(crate) const GATEWAY_MAC: Mac = Mac([0x02, 0xae, 0, 0, 0, 1]);

/// The namespace's end of the way out.
pub(crate) const EGRESS_LINK: &str = "egress";

/// The mesh's TUN device in the host's namespace: the way to other hosts. Not `m…`: those are
/// machines' links.
pub const MESH_LINK: &str = "wgmesh";

/// The gateway's TUN device in the host's namespace: the way to WireGuard clients.
pub const GATEWAY_LINK: &str = "wggate";

/// TCP port of the Machines API in the host plane.
pub const API_PORT: u16 = 4280;

/// TCP port in the host plane for what the roles of hosts ask of each other.
pub const RPC_PORT: u16 = 4281;

/// UDP port of membership in the host plane.
pub const MEMBERSHIP_PORT: u16 = 4282;

/// TCP port of a host's own address in a network, on which a cluster's API server answers the
/// proxies of that network.
pub const CLUSTER_API_PORT: u16 = 6443;

/// Where `ip netns` keeps named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A machine's link inside the host's namespace: `m` and the machine field as 8 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(u32);

impl LinkName {
    /// The link of the machine with this field.
    pub fn of_machine(field: u32) -> Self {
        Self(field)
    }

    /// The machine field.
    pub fn field(self) -> u32 {
        self.0
    }

    /// The hardware address of the machine's end: locally administered, `02:61` and the field.
    pub fn mac(self) -> Mac {
        let [a, b, c, d] = self.0.to_be_bytes();
        Mac([0x02, 0x61, a, b, c, d])
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{:08x}", self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not the name of a machine's link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a machine's link: `m` and 8 lower-case hexadecimal digits")]
pub struct NotALinkName {
    text: String,
}

impl FromStr for LinkName {
    type Err = NotALinkName;
    fn from_str(text: &str) -> Result<Self, NotALinkName> {
        let field = text.strip_prefix('m').and_then(parse_hex8);
        field.map(Self).ok_or_else(|| NotALinkName {
            text: text.chars().take(32).collect(),
        })
    }
}

fn parse_hex8(text: &str) -> Option<u32> {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == 8 && text.bytes().all(hex)).then(|| u32::from_str_radix(text, 16).ok())?
}

/// A hardware address; displays as `02:61:00:01:00:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The host's namespace.
pub(crate) fn host_netns(host: HostId) -> PathBuf {
    PathBuf::from(format!("{NETNS_DIR}/aero-{host}"))
}

/// The namespace of a machine that is attached by veth.
pub(crate) fn machine_netns(host: HostId, name: LinkName) -> PathBuf {
    PathBuf::from(format!("{NETNS_DIR}/aero-{host}-{:08x}", name.0))
}

/// Whether `file_name`, found in `NETNS_DIR`, is the namespace of a machine of `host`.
pub(crate) fn is_machine_netns(host: HostId, file_name: &str) -> bool {
    let field = file_name
        .strip_prefix(&format!("aero-{host}-"))
        .and_then(parse_hex8);
    field.is_some()
}

/// The outside end of the way out.
pub(crate) fn outside_link(host: HostId) -> String {
    format!("aero{host}")
}

/// The nftables table (family `inet`) outside.
pub(crate) fn outside_table(host: HostId) -> String {
    format!("{OUTSIDE_TABLE_PREFIX}{host}")
}

pub(crate) const OUTSIDE_TABLE_PREFIX: &str = "aerostat_";

/// Both ends of the way out, `(outside, inside)`; prefix length 31 (RFC 3021).
///
/// From 198.18.0.0/15, the range for benchmarks (RFC 2544): no provider, DHCP server or VPN gives
/// it out, other than 100.64.0.0/10 (carrier NAT; Tailscale drops it) or RFC 1918, and 17 bits
/// are room for a pair for each of the 2^16 hosts, other than 169.254.0.0/16.
pub(crate) fn egress_v4(host: HostId) -> (Ipv4Addr, Ipv4Addr) {
    let outside = u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (host.bits() & 0xffff) << 1;
    (Ipv4Addr::from(outside), Ipv4Addr::from(outside | 1))
}

/// The same for IPv6; prefix length 64. A unique local prefix of our own.
pub(crate) fn egress_v6(host: HostId) -> (Ipv6Addr, Ipv6Addr) {
    let prefix = 0xfd61_6572_6f73_u128 << 80 | u128::from(host.bits() & 0xffff) << 64;
    (Ipv6Addr::from(prefix | 1), Ipv6Addr::from(prefix | 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_survives_the_way_there_and_back_and_fits_the_kernel() {
        let name = LinkName::of_machine(0x000a_b0c1);
        assert_eq!(name.to_string(), "m000ab0c1");
        assert_eq!("m000ab0c1".parse(), Ok(name));
        assert!(outside_link(HostId::new(0xffff)).len() <= 15);
        for text in [
            "",
            "m",
            "m1",
            "m0000000G",
            "m0000000A",
            "eth0",
            "mm0000000",
            "m000000001",
        ] {
            assert!(text.parse::<LinkName>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_and_the_last_host_have_egress_addresses_of_the_range() {
        assert_eq!(egress_v4(HostId::new(0)).0, Ipv4Addr::new(198, 18, 0, 0));
        assert_eq!(egress_v4(HostId::new(2)).1, Ipv4Addr::new(198, 18, 0, 5));
        assert_eq!(
            egress_v4(HostId::new(0xffff)).1,
            Ipv4Addr::new(198, 19, 255, 255)
        );
        assert_eq!(
            egress_v6(HostId::new(2)).1.to_string(),
            "fd61:6572:6f73:2::2"
        );
    }

    #[test]
    fn only_a_hosts_own_machine_namespaces_are_taken_for_its() {
        let host = HostId::new(2);
        assert!(is_machine_netns(host, "aero-0002-00010000"));
        assert!(!is_machine_netns(host, "aero-0002"));
        assert!(!is_machine_netns(host, "aero-0003-00010000"));
        assert!(!is_machine_netns(host, "aero-0002-mine"));
    }
}
