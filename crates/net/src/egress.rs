//! The way out: a veth pair between the host's namespace and the one outside, and translation.
//!
//! Machines' addresses are translated inside already, to the host's egress address, so that
//! outside nothing is seen of 172.19.0.0/16 (which other programs' bridges use too) or `fdaa::/16`.
//! Outside translates once more, to whatever the host's own address is.
//!
//! Forwarding outside is switched on where it is off. That it was off is written down as a set
//! without elements in our table (`restore_…`): it lives exactly as long as the setting itself,
//! and is made before the setting changes. Whoever goes last restores it; before that, a host
//! that goes hands the note to one that stays.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

use serde_json::Value;
use tracing::{info, warn};
use types::HostId;

use crate::error::NetError;
use crate::links::{End, Links, index};
use crate::names::{
    EGRESS_LINK, Mac, OUTSIDE_TABLE_PREFIX, egress_v4, egress_v6, host_netns, outside_link,
    outside_table,
};
use crate::{netns, nft, sysctl};

/// Bytes; machines' links have less, so this never is the narrow place.
const EGRESS_MTU: u32 = 1500;

const OUTSIDE_MAC: Mac = Mac([0x02, 0xae, 0, 0, 1, 1]);
const INSIDE_MAC: Mac = Mac([0x02, 0xae, 0, 0, 1, 2]);

/// Link-local addresses of the pair's ends; link-local, since the kernel asks for neighbours from
/// one, and it makes none by itself where we are.
const OUTSIDE_LL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const INSIDE_LL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A family's switch outside, and the note in our table that says it was off.
struct Forwarding {
    key: &'static str,
    note: &'static str,
}

const FORWARDING_V4: Forwarding = Forwarding {
    key: "ipv4/ip_forward",
    note: "restore_ipv4_forwarding",
};
const FORWARDING_V6: Forwarding = Forwarding {
    key: "ipv6/conf/all/forwarding",
    note: "restore_ipv6_forwarding",
};

/// Makes or repairs the way out of `host`. To be called outside, under the lock.
pub(crate) fn ensure(host: HostId) -> Result<(), NetError> {
    let outside = outside_link(host);
    let v6 = offers_v6()?;
    nft::apply("set up translation", &outside_script(host))?;
    let inner = host_netns(host);
    let has_inner_end = netns::enter(&inner, || index(EGRESS_LINK).is_some())?;
    netns::outside(|| {
        let links = Links::open()?;
        if index(&outside).is_none() || !has_inner_end {
            links.delete(&outside)?;
            netns::enter(&inner, || Links::open()?.delete(EGRESS_LINK))??;
            add_pair(&links, host, &outside)?;
        }
        links.set_up(&outside, None, EGRESS_MTU)?;
        links.address(&outside, IpAddr::V4(egress_v4(host).0), 31)?;
        if v6 {
            links.address(&outside, IpAddr::V6(OUTSIDE_LL), 64)?;
            links.address(&outside, IpAddr::V6(egress_v6(host).0), 64)?;
        }
        Ok(())
    })??;
    netns::enter(&inner, || ensure_inside(host, v6))??;
    switch_on(host, &FORWARDING_V4)?;
    if v6 {
        switch_on(host, &FORWARDING_V6)?;
    }
    Ok(())
}

fn add_pair(links: &Links, host: HostId, outside: &str) -> Result<(), NetError> {
    let path = host_netns(host);
    let inner = fs::File::open(&path).map_err(|source| NetError::Namespace {
        action: "open",
        path,
        source,
    })?;
    let far = End {
        name: EGRESS_LINK,
        mac: INSIDE_MAC,
        netns: Some(inner.as_fd()),
    };
    links.add_veth(
        &End {
            name: outside,
            mac: OUTSIDE_MAC,
            netns: None,
        },
        &far,
    )
}

fn ensure_inside(host: HostId, v6: bool) -> Result<(), NetError> {
    let links = Links::open()?;
    links.set_up(EGRESS_LINK, None, EGRESS_MTU)?;
    let (outside, inside) = egress_v4(host);
    links.address(EGRESS_LINK, IpAddr::V4(inside), 31)?;
    links.default_route(EGRESS_LINK, IpAddr::V4(outside))?;
    if v6 {
        let (outside, inside) = egress_v6(host);
        links.address(EGRESS_LINK, IpAddr::V6(INSIDE_LL), 64)?;
        links.address(EGRESS_LINK, IpAddr::V6(inside), 64)?;
        links.default_route(EGRESS_LINK, IpAddr::V6(outside))?;
    }
    Ok(())
}

/// Takes back what is outside of `host`. To be called outside, under the lock.
pub(crate) fn remove(host: HostId) -> Result<(), NetError> {
    netns::outside(|| Links::open()?.delete(&outside_link(host)))??;
    let table = outside_table(host);
    let tables = tables()?;
    if !tables.contains(&table) {
        return Ok(());
    }
    let notes = notes(&table)?;
    let heir = tables.iter().find(|other| **other != table);
    let mut script = String::new();
    for forwarding in [&FORWARDING_V4, &FORWARDING_V6] {
        if !notes.iter().any(|note| note == forwarding.note) {
            continue;
        }
        match heir {
            Some(heir) => script += &note_script(heir, forwarding),
            None => {
                sysctl::set(forwarding.key, "0")?;
                info!(
                    key = forwarding.key,
                    "forwarding is off again, as it was before"
                );
            }
        }
    }
    script += &format!("delete table inet {table}\n");
    nft::apply("remove translation", &script)
}

/// What there is outside of `host`, for people and for comparing.
pub(crate) fn inventory(host: HostId) -> Result<Vec<String>, NetError> {
    let mut found = Vec::new();
    let link = outside_link(host);
    if index(&link).is_some() {
        found.push(format!("link {link}"));
    }
    let table = outside_table(host);
    if tables()?.contains(&table) {
        found.extend(
            notes(&table)?
                .into_iter()
                .map(|note| format!("note {table} {note}")),
        );
        found.push(format!("nft table inet {table}"));
    }
    Ok(found)
}

/// Drops what machines send to the host itself or what others send to them; translates the rest.
///
/// Addresses of this host are judged before destination translation, so that published ports of
/// other programs on this host are out of reach, too.
fn outside_script(host: HostId) -> String {
    let table = format!("inet {}", outside_table(host));
    let link = outside_link(host);
    let (v4, v6) = (egress_v4(host).1, egress_v6(host).1);
    format!(
        r#"
add table {table}
add chain {table} guard {{ type filter hook prerouting priority raw; policy accept; }}
add chain {table} forward {{ type filter hook forward priority filter; policy accept; }}
add chain {table} nat {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain {table} guard
flush chain {table} forward
flush chain {table} nat
add rule {table} guard iifname != "{link}" accept
add rule {table} guard icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
add rule {table} guard fib daddr type {{ local, broadcast, multicast, anycast }} counter drop
add rule {table} guard ip saddr {v4} accept
add rule {table} guard ip6 saddr {v6} accept
add rule {table} guard counter drop
add rule {table} forward oifname "{link}" ct state established,related accept
add rule {table} forward oifname "{link}" counter drop
add rule {table} forward iifname "{link}" tcp flags syn tcp option maxseg size set rt mtu
add rule {table} nat oifname != "{link}" ip saddr {v4} masquerade
add rule {table} nat oifname != "{link}" ip6 saddr {v6} masquerade
"#
    )
}

fn switch_on(host: HostId, forwarding: &Forwarding) -> Result<(), NetError> {
    if sysctl::read(forwarding.key)? == "0" {
        nft::apply(
            "note forwarding",
            &note_script(&outside_table(host), forwarding),
        )?;
        sysctl::set(forwarding.key, "1")?;
        info!(
            key = forwarding.key,
            "forwarding is on, since machines need it"
        );
    }
    Ok(())
}

fn note_script(table: &str, forwarding: &Forwarding) -> String {
    format!(
        "add set inet {table} {} {{ type inet_service; }}\n",
        forwarding.note
    )
}

/// Whether machines get IPv6 outside: the host has a default route, and switching forwarding on
/// would not cost it that route. (A kernel that forwards ignores router advertisements, so a host
/// that got its route from one would lose it.)
fn offers_v6() -> Result<bool, NetError> {
    // /proc/net is the process's namespace; this is the thread's.
    let path = "/proc/thread-self/net/ipv6_route";
    let routes = fs::read_to_string(path).unwrap_or_default();
    let default = default_v6(&routes);
    if default == Some(FromRouter::Yes) && sysctl::read(FORWARDING_V6.key)? == "0" {
        warn!("no IPv6 outside for machines: the host's route is from a router advertisement");
        return Ok(false);
    }
    Ok(default.is_some())
}

#[derive(Debug, PartialEq, Eq)]
enum FromRouter {
    Yes,
    No,
}

/// Reads /proc/net/ipv6_route: destination, length, source, length, next hop, metric, two
/// counters, flags, link.
fn default_v6(routes: &str) -> Option<FromRouter> {
    const RTF_UP: u32 = 0x1;
    const RTF_REJECT: u32 = 0x200;
    const RTF_ADDRCONF: u32 = 0x4_0000;
    let flags = routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, _, _, _, _, flags, link] = fields[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (link != "lo" && flags & RTF_UP != 0 && flags & RTF_REJECT == 0).then_some(flags)
    });
    flags.fold(None, |found, flags| {
        match (found, flags & RTF_ADDRCONF != 0) {
            (Some(FromRouter::No), _) | (_, false) => Some(FromRouter::No),
            (_, true) => Some(FromRouter::Yes),
        }
    })
}

/// All hosts' tables here.
fn tables() -> Result<Vec<String>, NetError> {
    let tables = nft::list("table")?.into_iter();
    let ours = tables
        .filter(|table| text(table, "family") == "inet")
        .filter_map(|table| {
            let name = text(&table, "name").to_owned();
            name.starts_with(OUTSIDE_TABLE_PREFIX).then_some(name)
        });
    Ok(ours.collect())
}

fn notes(table: &str) -> Result<Vec<String>, NetError> {
    let sets = nft::list("set")?.into_iter();
    let ours = sets.filter(|set| text(set, "table") == table);
    Ok(ours.map(|set| text(&set, "name").to_owned()).collect())
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "00000000000000000000000000000000";

    fn line(flags: &str, link: &str) -> String {
        format!("{ZERO} 00 {ZERO} 00 {ZERO} 00000400 00000001 00000000 {flags} {link}\n")
    }

    #[test]
    fn a_default_route_counts_only_if_it_leads_somewhere() {
        assert_eq!(default_v6(""), None);
        assert_eq!(default_v6(&line("00200200", "lo")), None);
        assert_eq!(default_v6(&line("00000003", "eth0")), Some(FromRouter::No));
        assert_eq!(default_v6(&line("00450003", "eth0")), Some(FromRouter::Yes));
    }

    #[test]
    fn one_lasting_default_route_is_enough() {
        let both = line("00450003", "eth0") + &line("00000003", "eth1");
        assert_eq!(default_v6(&both), Some(FromRouter::No));
    }
}
