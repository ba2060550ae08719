//! The network under a fleet: a namespace for each host and one for a client outside, joined by a
//! bridge in a namespace of its own.
//!
//! ```text
//!   aerou-…-h0      aerou-…-h1      aerou-…-h2      aerou-…-client
//!    under           under           under            under        2001:db8::N/64, 192.0.2.N/24
//!      │               │               │                │
//!   ───h0──────────────h1──────────────h2─────────────client───    bridge, in aerou-…-wire
//! ```
//!
//! A cable is pulled by taking down the bridge's end. Nothing is outside the namespaces.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::succeed;

/// Namespaces of concurrent tests must differ.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// The client's number in the addresses.
const CLIENT: u8 = 100;
/// The table that loses packets.
const LOSS: &str = "underlay_loss";

/// Namespaces and links, removed when this is dropped.
#[derive(Debug)]
pub struct Underlay {
    prefix: String,
    hosts: usize,
}

impl Underlay {
    /// # Panics
    /// If this is not root, or the kernel refuses.
    pub fn new(hosts: usize) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "namespaces need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("aerou-{}-{number}", std::process::id());
        let underlay = Self { prefix, hosts };
        let wire = underlay.wire();
        ip(&format!("netns add {wire}"));
        // Forwards from the first packet on: no spanning tree, and multicast to everybody.
        ip(&format!(
            "-n {wire} link add wire type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        ip(&format!("-n {wire} link set wire up"));
        for host in 0..hosts {
            underlay.plug(&underlay.host(host), &port(host), number_of(host));
        }
        underlay.plug(&underlay.client(), "client", CLIENT);
        underlay
    }

    fn plug(&self, netns: &str, port: &str, number: u8) {
        let wire = self.wire();
        ip(&format!("netns add {netns}"));
        ip(&format!(
            "-n {wire} link add {port} type veth peer name under netns {netns}"
        ));
        ip(&format!("-n {wire} link set {port} master wire"));
        ip(&format!("-n {wire} link set {port} up"));
        ip(&format!("-n {netns} link set lo up"));
        let (v6, v4) = (v6(number), v4(number));
        ip(&format!("-n {netns} address add {v6}/64 dev under nodad"));
        ip(&format!("-n {netns} address add {v4}/24 dev under"));
        ip(&format!("-n {netns} link set under up"));
    }

    fn wire(&self) -> String {
        format!("{}-wire", self.prefix)
    }

    /// The namespace that a host's daemon runs in.
    pub fn host(&self, host: usize) -> String {
        format!("{}-h{host}", self.prefix)
    }

    /// The namespace of somebody outside.
    pub fn client(&self) -> String {
        format!("{}-client", self.prefix)
    }

    /// Where a host is reached.
    pub fn address(&self, host: usize) -> IpAddr {
        v6(number_of(host)).into()
    }

    /// Pulls a host's cable.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn cut(&self, host: usize) {
        ip(&format!("-n {} link set {} down", self.wire(), port(host)));
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn heal(&self, host: usize) {
        ip(&format!("-n {} link set {} up", self.wire(), port(host)));
    }

    /// Loses this part of the packets that come to a host and that go from it; 0 loses none.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn lose(&self, host: usize, percent: u8) {
        let netns = self.host(host);
        let nft = |rules: &str| {
            succeed(inside(&netns, "nft").arg(rules));
        };
        nft(&format!("add table inet {LOSS}; delete table inet {LOSS}"));
        if percent == 0 {
            return;
        }
        let lose = match percent {
            100.. => "drop".to_owned(),
            percent => format!("numgen random mod 100 < {percent} drop"),
        };
        nft(&format!(
            "table inet {LOSS} {{
               chain in {{ type filter hook prerouting priority -400; iifname under {lose}; }}
               chain out {{ type filter hook postrouting priority 400; oifname under {lose}; }}
             }}"
        ));
    }
}

impl Drop for Underlay {
    fn drop(&mut self) {
        let hosts = (0..self.hosts).map(|host| self.host(host));
        for netns in hosts.chain([self.client(), self.wire()]) {
            // One that was not made yet is not there.
            let _ = Command::new("ip").args(["netns", "del", &netns]).output();
        }
    }
}

/// A program in a network namespace, and in nothing else of it: `ip netns exec` would give it
/// mounts of its own, and what it mounts nobody else would see.
pub fn inside(netns: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{netns}"))
        .arg(program);
    command
}

fn ip(words: &str) {
    succeed(Command::new("ip").args(words.split_whitespace()));
}

fn port(host: usize) -> String {
    format!("h{host}")
}

fn number_of(host: usize) -> u8 {
    u8::try_from(host + 1).expect("a few hosts")
}

fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into())
}

fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(underlay: &Underlay, from: &str, to: usize) -> bool {
        let to = underlay.address(to).to_string();
        let ping = inside(from, "ping")
            .args(["-6", "-n", "-q", "-c", "1", "-W", "1", &to])
            .output();
        ping.expect("ping runs").status.success()
    }

    #[test]
    fn hosts_reach_each_other_until_a_cable_is_pulled() {
        if !nix::unistd::geteuid().is_root() {
            return crate::skip("underlay", "needs root for network namespaces");
        }
        let underlay = Underlay::new(2);
        let (first, client) = (underlay.host(0), underlay.client());
        assert!(reaches(&underlay, &first, 1));
        assert!(reaches(&underlay, &client, 1));
        underlay.cut(1);
        assert!(!reaches(&underlay, &first, 1));
        assert!(reaches(&underlay, &client, 0));
        underlay.heal(1);
        crate::eventually("the cable", || {
            reaches(&underlay, &first, 1)
                .then_some(())
                .ok_or_else(|| "nothing comes".to_owned())
        });
        underlay.lose(1, 100);
        assert!(!reaches(&underlay, &first, 1));
        underlay.lose(1, 0);
        assert!(reaches(&underlay, &first, 1));
        drop(underlay);
        assert!(!std::path::Path::new("/run/netns").join(first).exists());
    }
}
