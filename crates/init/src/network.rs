//! The machine's only interface, `eth0`, and loopback.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use guest::RuntimeError;
use types::guest::Network;

use crate::netlink::Netlink;

const NAME: &str = "eth0";

const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings before the interface comes up. The host decides about addresses and routes, so the
/// kernel neither asks around for duplicates nor listens to routers. Ports below 1024 are open to
/// every user: there is nobody else in a machine.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/eth0/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/eth0/accept_ra", "0"),
    ("ipv4/ip_unprivileged_port_start", "0"),
];

/// Sets the interface up as specified, with loopback.
pub(crate) fn bring_up(network: &Network) -> Result<(), RuntimeError> {
    let step = |doing: &'static str| move |source: io::Error| RuntimeError::new(doing, source);
    let netlink = Netlink::open().map_err(step("open a netlink socket"))?;
    let loopback = index_of("lo").map_err(step("find loopback"))?;
    netlink
        .set_up(loopback)
        .map_err(step("bring up loopback"))?;
    let found = wait_for_card().map_err(step("find the network interface"))?;
    let index = index_of(&found).map_err(step("find the network interface"))?;
    if found != NAME {
        netlink
            .rename(index, NAME)
            .map_err(step("name the network interface"))?;
    }
    for (path, value) in SETTINGS {
        let path = Path::new("/proc/sys/net").join(path);
        fs::write(path, value).map_err(step("set the network's parameters"))?;
    }
    netlink
        .set_mtu(index, network.mtu)
        .map_err(step("set the MTU"))?;
    netlink
        .set_up(index)
        .map_err(step("bring up the network interface"))?;
    let v6 = netlink.add_v6(index, network.ipv6, network.gateway_v6);
    v6.map_err(step("set the IPv6 address and route"))?;
    let v4 = netlink.add_v4(index, network.ipv4, network.gateway_v4);
    v4.map_err(step("set the IPv4 address and route"))
}

fn index_of(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// The interface that has a device behind it.
fn wait_for_card() -> io::Result<String> {
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    loop {
        for entry in fs::read_dir("/sys/class/net")? {
            let entry = entry?;
            if entry.path().join("device").exists() {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the machine has no network card",
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
