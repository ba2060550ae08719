//! The guards: what may come from where, as nftables scripts for the host's namespace. Pure.
//!
//! ```text
//! from a machine's link -> from_machine: extension headers, router messages: dropped
//!                       -> map: link -> chain of that machine (one look-up however many there are)
//!                       -> its chain: neighbour discovery with the gateway; then its own source;
//!                          then fdaa::3, its own network, or the world outside 6PN
//! from wgmesh, wggate   -> from_tunnel: as above; then both addresses of one network that is here
//!                          (one look-up of the pair)
//! to this namespace     -> input: from machines   fdaa::3 (names, echo), VIPs
//!                                 from wggate     <net>::3 (names, echo), VIPs
//!                                 from wgmesh     the host plane, from hosts; in other networks
//!                                                 a cluster's API server, from hosts
//!                                 and answers; nothing else
//! from link to link     -> forward: 6PN between machines, mesh and gateway (already judged),
//!                          IPv4/IPv6 of machines to `egress`; never the host plane
//! ```
//!
//! Connections are tracked only where an answer would not be let in otherwise: TCP of the
//! namespace itself, and the way out. All else in 6PN is judged packet by packet in both directions,
//! so nobody can fill the table that all machines of the host share with it (`untracked`).
//!
//! A machine has a chain of literal rules rather than an element in a set of tuples, so that
//! attaching it again with other addresses replaces what it may do in one transaction, whatever
//! it was before. What the tunnels bring was judged by their engines, which know whose a source
//! is; the set of networks is a second lock on the same door.
//!
//! That a VIP or a resolver is one of this host's needs no look-up: `input` sees only what is
//! addressed to the namespace, so the pattern of the address says the rest.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use types::sixpn::{HOST_PLANE, host_addr};
use types::{HostId, NetworkId, SixPn};

use crate::names::{
    API_PORT, CLUSTER_API_PORT, EGRESS_LINK, GATEWAY_LINK, GATEWAY_V4, LinkName, MACHINES_V4,
    MEMBERSHIP_PORT, MESH_LINK, RPC_PORT,
};

/// Bits of a 6PN address that are a machine's own prefix.
pub(crate) const MACHINE_PREFIX_LEN: u8 = 112;

/// TCP connections to the resolver that a machine may have at a time. Each costs the resolver a
/// descriptor; a client needs one or two.
const NAME_STREAMS_MAX: usize = 16;

/// Questions to the resolver by UDP that a machine or a client may ask in a second, so that one
/// does not take the others' room in the resolver's socket.
const NAME_QUERIES_PER_S_MAX: usize = 1000;

/// Connections with the world outside that a machine may have at a time. The kernel tracks 262,144
/// for all of them where it has some memory.
const EGRESS_FLOWS_MAX: usize = 8192;

/// What is one client's: a /120.
const CLIENT_MASK: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00";

/// The network fields of source and destination of an IPv6 packet, as nft reads raw payload.
const NETWORK_PAIR: &str = "@nh,80,32 . @nh,208,32";

/// A VIP of any network, `fdaa:<net>:0:1::N`, as mask and value.
const ANY_VIP: &str = "ffff:0:0:ffff:ffff:ffff:0:0 == fdaa:0:0:0:1:0:0:0";

/// The resolver of any network, `<net>::3`, as mask and value.
const ANY_RESOLVER: &str = "ffff:0:0:ffff:ffff:ffff:ffff:ffff == fdaa:0:0:0:0:0:0:3";

/// Every host in the host plane, as mask and value: only the host field is free.
const ANY_HOST: &str = "ffff:ffff:ffff:ffff:0:ffff:ffff:ffff == fdaa:0:0:a7b:0:0:1:1";

/// Every host in any network, as mask and value. Machines have other addresses, so that only
/// connections of a host's own proxy come from one.
const ANY_HOST_ANYWHERE: &str = "ffff:0:0:ffff:0:ffff:ffff:ffff == fdaa:0:0:a7b:0:0:1:1";

/// The host plane.
const HOST_PLANE_PREFIX: &str = "fdaa:0:0::/48";

/// The chains that all machines of `host` share. Loading it again leaves machines' own chains as
/// they are.
///
/// The hook's priority is before defragmentation (-400), or IPv6 fragments would arrive here put
/// together and without their extension header.
pub(crate) fn base(host: HostId) -> String {
    let chains = r#"
add table inet aerostat
add map inet aerostat machines { type ifname : verdict; }
add set inet aerostat name_streams { type ifname; size 65535; flags dynamic; }
add set inet aerostat name_queries { type ifname; size 65535; flags dynamic, timeout; timeout 1m; }
add set inet aerostat client_streams { type ipv6_addr; size 65535; flags dynamic; }
add set inet aerostat client_queries { type ipv6_addr; size 65535; flags dynamic, timeout; timeout 1m; }
add set inet aerostat egress_flows { type ifname; size 65535; flags dynamic; }
add set inet aerostat networks { typeof @nh,80,32 . @nh,208,32; }
add chain inet aerostat from_machine
add chain inet aerostat from_tunnel
add chain inet aerostat guard { type filter hook prerouting priority -450; policy accept; }
add chain inet aerostat untracked { type filter hook prerouting priority raw; policy accept; }
add chain inet aerostat untracked_own { type filter hook output priority raw; policy accept; }
add chain inet aerostat input { type filter hook input priority filter; policy drop; }
add chain inet aerostat forward { type filter hook forward priority filter; policy drop; }
add chain inet aerostat egress { type nat hook postrouting priority srcnat; policy accept; }
flush chain inet aerostat from_machine
flush chain inet aerostat from_tunnel
flush chain inet aerostat guard
flush chain inet aerostat untracked
flush chain inet aerostat untracked_own
flush chain inet aerostat input
flush chain inet aerostat forward
flush chain inet aerostat egress
add table arp aerostat
add map arp aerostat machines { type ifname : verdict; }
add chain arp aerostat guard { type filter hook input priority filter; policy accept; }
flush chain arp aerostat guard
add rule arp aerostat guard iifname vmap @machines
add rule arp aerostat guard iifname "m*" counter drop
"#;
    let networks = network(HOST_PLANE);
    let rules = [guard(), untracked(), input(host), forward(), networks];
    chains.to_owned() + &rules.concat()
}

fn guard() -> String {
    let (v4, v4_len) = MACHINES_V4;
    let any_discovery = "nd-router-solicit, nd-router-advert, nd-redirect, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report";
    format!(
        r#"
add rule inet aerostat guard iifname "m*" jump from_machine
add rule inet aerostat guard iifname {{ "{MESH_LINK}", "{GATEWAY_LINK}" }} jump from_tunnel
add rule inet aerostat guard iifname "{EGRESS_LINK}" ip6 saddr fdaa::/16 counter drop
add rule inet aerostat guard iifname "{EGRESS_LINK}" ip saddr {v4}/{v4_len} counter drop

add rule inet aerostat from_machine ip6 nexthdr != {{ tcp, udp, ipv6-icmp }} counter drop
add rule inet aerostat from_machine icmpv6 type {{ {any_discovery} }} counter drop
add rule inet aerostat from_machine ip daddr {{ {v4}/{v4_len}, 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }} counter drop
add rule inet aerostat from_machine iifname vmap @machines
add rule inet aerostat from_machine counter drop

add rule inet aerostat from_tunnel meta nfproto != ipv6 counter drop
add rule inet aerostat from_tunnel ip6 nexthdr != {{ tcp, udp, ipv6-icmp }} counter drop
add rule inet aerostat from_tunnel icmpv6 type {{ {any_discovery}, nd-neighbor-solicit, nd-neighbor-advert }} counter drop
add rule inet aerostat from_tunnel ip6 saddr != fdaa::/16 counter drop
add rule inet aerostat from_tunnel ip6 daddr != fdaa::/16 counter drop
add rule inet aerostat from_tunnel iifname "{GATEWAY_LINK}" ip6 daddr {HOST_PLANE_PREFIX} counter drop
add rule inet aerostat from_tunnel {NETWORK_PAIR} != @networks counter drop
"#
    )
}

/// Answers to what is not tracked are let in by rules of their own (`input`), or pass as what they
/// answer does (`forward`).
fn untracked() -> String {
    let (from, own) = ("inet aerostat untracked", "inet aerostat untracked_own");
    format!(
        r#"
add rule {from} ip6 daddr fdaa::/16 meta l4proto udp notrack
add rule {from} ip6 daddr fdaa::/16 icmpv6 type {{ echo-request, echo-reply }} notrack
add rule {from} ip6 daddr fdaa::/16 meta l4proto tcp fib daddr type != local notrack
add rule {own} ip6 daddr fdaa::/16 meta l4proto udp notrack
add rule {own} ip6 daddr fdaa::/16 icmpv6 type {{ echo-request, echo-reply }} notrack
"#
    )
}

/// What may be asked of the namespace itself.
fn input(host: HostId) -> String {
    let resolver = types::sixpn::RESOLVER;
    let us = host_addr(HOST_PLANE, host);
    let queries = format!("{NAME_QUERIES_PER_S_MAX}/second burst {NAME_QUERIES_PER_S_MAX} packets");
    let from_host = format!(
        r#"add rule inet aerostat input iifname "{MESH_LINK}" ip6 saddr & {ANY_HOST} ip6 daddr {us}"#
    );
    let to_cluster = format!(
        r#"add rule inet aerostat input iifname "{MESH_LINK}" ip6 saddr & {ANY_HOST_ANYWHERE} ip6 daddr & {ANY_HOST_ANYWHERE}"#
    );
    let from_peer = format!(
        r#"add rule inet aerostat input iifname "{GATEWAY_LINK}" ip6 daddr & {ANY_RESOLVER}"#
    );
    let to_vip = format!(
        r#"add rule inet aerostat input iifname {{ "m*", "{GATEWAY_LINK}" }} ip6 daddr & {ANY_VIP}"#
    );
    format!(
        r#"
add rule inet aerostat input iifname "lo" accept
add rule inet aerostat input ct state established,related accept
add rule inet aerostat input icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, echo-reply }} accept
add rule inet aerostat input iifname "m*" udp dport 53 add @name_queries {{ iifname limit rate over {queries} }} counter drop
add rule inet aerostat input iifname "{GATEWAY_LINK}" udp dport 53 add @client_queries {{ ip6 saddr & {CLIENT_MASK} limit rate over {queries} }} counter drop
add rule inet aerostat input iifname "{GATEWAY_LINK}" tcp dport 53 add @client_streams {{ ip6 saddr & {CLIENT_MASK} ct count over {NAME_STREAMS_MAX} }} counter drop
add rule inet aerostat input iifname "m*" ip6 daddr {resolver} udp dport 53 accept
add rule inet aerostat input iifname "m*" ip6 daddr {resolver} tcp dport 53 add @name_streams {{ iifname ct count over {NAME_STREAMS_MAX} }} counter drop
add rule inet aerostat input iifname "m*" ip6 daddr {resolver} tcp dport 53 accept
add rule inet aerostat input iifname "m*" ip6 daddr {resolver} icmpv6 type echo-request accept
{to_vip} meta l4proto tcp accept
{to_vip} icmpv6 type echo-request accept
{from_peer} udp dport 53 accept
{from_peer} tcp dport 53 accept
{from_peer} icmpv6 type echo-request accept
{from_host} tcp dport {{ {API_PORT}, {RPC_PORT} }} accept
{from_host} udp dport {MEMBERSHIP_PORT} accept
{to_cluster} ip6 daddr != {HOST_PLANE_PREFIX} tcp dport {CLUSTER_API_PORT} accept
{from_host} icmpv6 type echo-request accept
add rule inet aerostat input counter drop
"#
    )
}

fn forward() -> String {
    let inside = format!(r#"{{ "m*", "{MESH_LINK}", "{GATEWAY_LINK}" }}"#);
    format!(
        r#"
add rule inet aerostat forward ip6 daddr {HOST_PLANE_PREFIX} counter drop
add rule inet aerostat forward ip6 saddr {HOST_PLANE_PREFIX} counter drop
add rule inet aerostat forward tcp flags syn tcp option maxseg size set rt mtu
add rule inet aerostat forward ct state established,related accept
add rule inet aerostat forward iifname "m*" oifname {inside} ip6 daddr fdaa::/16 accept
add rule inet aerostat forward iifname "{MESH_LINK}" oifname {{ "m*", "{GATEWAY_LINK}" }} ip6 daddr fdaa::/16 accept
add rule inet aerostat forward iifname "{GATEWAY_LINK}" oifname {{ "m*", "{MESH_LINK}" }} ip6 daddr fdaa::/16 accept
add rule inet aerostat forward iifname "m*" oifname "{EGRESS_LINK}" add @egress_flows {{ iifname ct count over {EGRESS_FLOWS_MAX} }} counter drop
add rule inet aerostat forward iifname "m*" oifname "{EGRESS_LINK}" ip6 daddr != fdaa::/16 accept
add rule inet aerostat forward iifname "m*" oifname "{EGRESS_LINK}" meta nfproto ipv4 accept
add rule inet aerostat forward counter drop

add rule inet aerostat egress oifname "{EGRESS_LINK}" masquerade
"#
    )
}

/// Lets packets that stay within `network` come from the tunnels. Never taken back: a network's
/// number is not given again.
pub(crate) fn network(network: NetworkId) -> String {
    let id = u32::from(network);
    format!("\nadd element inet aerostat networks {{ {id:#x} . {id:#x} }}\n")
}

/// What the machine on `link` may send: from its own /112 and its own IPv4 address.
pub(crate) fn machine(link: LinkName, address: SixPn, ipv4: Ipv4Addr) -> String {
    let own = machine_prefix(address);
    let own_hex = hex(own, MACHINE_PREFIX_LEN);
    let network = network_prefix(address.network);
    let gateway = types::sixpn::GATEWAY;
    let gateway_hex = hex(gateway, 128);
    let resolver = types::sixpn::RESOLVER;
    let chain = format!("inet aerostat {link}");
    let arp = format!("arp aerostat {link}");
    format!(
        r#"
add chain {chain}
flush chain {chain}
add rule {chain} icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 ip6 daddr {{ ff02::1:ff00:1, {gateway} }} ip6 saddr {{ fe80::/10, {own}/{MACHINE_PREFIX_LEN} }} @th,64,128 {gateway_hex} accept
add rule {chain} icmpv6 type nd-neighbor-advert ip6 hoplimit 255 ip6 daddr {gateway} @th,64,{MACHINE_PREFIX_LEN} {own_hex} accept
add rule {chain} icmpv6 type nd-neighbor-advert ip6 hoplimit 255 ip6 daddr {gateway} @th,64,16 0xfe80 @th,64,128 != {gateway_hex} accept
add rule {chain} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} counter drop
add rule {chain} ip6 saddr != {own}/{MACHINE_PREFIX_LEN} counter drop
add rule {chain} ip saddr != {ipv4} counter drop
add rule {chain} ip6 daddr {resolver} accept
add rule {chain} ip6 daddr {network}/48 accept
add rule {chain} ip6 daddr {{ fdaa::/16, fe80::/10, ff00::/8, ::/127, fd00:ec2::254 }} counter drop
add rule {chain} accept
add element inet aerostat machines {{ "{link}" : jump {link} }}
add chain {arp}
flush chain {arp}
add rule {arp} arp operation request arp saddr ip {ipv4} arp daddr ip {GATEWAY_V4} accept
add rule {arp} arp operation reply arp saddr ip {ipv4} arp daddr ip {GATEWAY_V4} accept
add element arp aerostat machines {{ "{link}" : jump {link} }}
"#
    )
}

/// Takes back what `machine` gave; also when it gave nothing (each thing is added before it is
/// deleted, since this nft has no "delete if there").
pub(crate) fn no_machine(link: LinkName) -> String {
    let mut script = String::new();
    for family in ["inet", "arp"] {
        write!(
            script,
            r#"
add table {family} aerostat
add map {family} aerostat machines {{ type ifname : verdict; }}
add chain {family} aerostat {link}
add element {family} aerostat machines {{ "{link}" : jump {link} }}
delete element {family} aerostat machines {{ "{link}" }}
flush chain {family} aerostat {link}
delete chain {family} aerostat {link}
"#
        )
        .unwrap_or_default();
    }
    script
}

/// The /112 that is the machine's own.
pub(crate) fn machine_prefix(address: SixPn) -> Ipv6Addr {
    SixPn { free: 0, ..address }.addr()
}

fn network_prefix(network: NetworkId) -> Ipv6Addr {
    Ipv6Addr::from(0xfdaa_u128 << 112 | u128::from(u32::from(network)) << 80)
}

/// The first `len` bits of `address` as nft writes raw payload.
fn hex(address: Ipv6Addr, len: u8) -> String {
    let digits = usize::from(len / 4);
    format!(
        "0x{:0digits$x}",
        u128::from(address) >> (128 - u32::from(len))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::HostId;

    #[test]
    fn a_machines_rules_name_its_own_prefix_network_and_ipv4_address() {
        let network = NetworkId::try_from(0x22b7).unwrap();
        let address = SixPn::of_machine(network, HostId::new(0x7d), 0xf066_b83b);
        let link = LinkName::of_machine(address.machine);
        let script = machine(link, address, Ipv4Addr::new(172, 19, 1, 2));
        assert!(script.contains("ip6 saddr != fdaa:0:22b7:a7b:7d:f066:b83b:0/112 counter drop"));
        assert!(script.contains("0xfdaa000022b70a7b007df066b83b accept"));
        assert!(script.contains("ip6 daddr fdaa:0:22b7::/48 accept"));
        assert!(script.contains("ip saddr != 172.19.1.2 counter drop"));
    }
}
