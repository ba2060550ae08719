//! The daemon's surroundings: its ports, what an earlier one left, and the other hosts.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use net::HostNet;
use types::fleet::HostStatus;

use super::super::Context;
use super::Check;
use super::fix::Repair;
use crate::app;
use crate::config::Config;
use crate::fleet::Identity;

/// How many hosts of the fleet are there, as this one sees it.
pub(super) async fn hosts(context: &Context) -> Check {
    let name = "hosts";
    let asked = async { anyhow::Ok(context.client()?.hosts().await?.hosts) };
    let hosts = match asked.await {
        Ok(hosts) => hosts,
        Err(error) => {
            let means = "the daemon does not answer";
            let fix = "look into its log, or `aerostat down` and `aerostat up`";
            return Check::warn(name, format!("{error:#}"), means, fix);
        }
    };
    let away = hosts.iter().filter(|found| found.status != HostStatus::Ok);
    let away: Vec<&str> = away.map(|found| found.host.name.as_str()).collect();
    let count = format!("{} of {} ok", hosts.len() - away.len(), hosts.len());
    if away.is_empty() {
        return Check::ok(name, count);
    }
    Check::warn(
        name,
        format!("{count}; not: {}", away.join(", ")),
        "machines there are out of reach",
        "look there; `aerostat host remove` forgets a host that is gone for good",
    )
}

/// What a daemon that no longer lives has left in the kernel. Machines outlive a daemon, and then
/// it is theirs.
pub(super) fn leftovers(config: &Config, context: &Context, is_root: bool) -> Option<Check> {
    let name = "leftovers";
    let stale = context.paths.endpoints().exists() || context.paths.socket().exists();
    let network = match app::host_id(config, &context.paths) {
        Ok(host) if is_root => HostNet::inventory(host).unwrap_or_default(),
        Ok(_) | Err(_) => Vec::new(),
    };
    if !stale && network.is_empty() {
        return None;
    }
    let machines = network.iter().any(|line| line.contains("machine"));
    let detail = match network.len() {
        0 => "files of a daemon that no longer lives".to_owned(),
        1 => "a daemon that no longer lives left 1 thing in the network".to_owned(),
        count => format!("a daemon that no longer lives left {count} things in the network"),
    };
    let means = if machines {
        "its machines go on without it"
    } else {
        "the next one takes them over; until then they are in the way of nobody"
    };
    let fix = "`aerostat up` goes on from there; `aerostat down` takes all of it away";
    Some(Check::warn(name, detail, means, fix).with(Repair::Leftovers))
}

/// The ports that the daemon will take.
pub(super) fn ports(config: &Config, context: &Context) -> Vec<Check> {
    let identity = Identity::load(&context.paths.fleet());
    // The first start of a host that has joined no fleet founds one.
    let is_founder = match &identity {
        Ok(Some(identity)) => identity.is_authority(),
        Ok(None) | Err(_) => true,
    };
    let port = |name, transport, address, key| port(name, transport, address, key, context);
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    let mut checks = vec![
        port("api port", tcp, config.api_listen, "api_listen"),
        port("mesh port", udp, config.mesh_listen, "mesh_listen"),
        port("gateway port", udp, config.gateway_listen, "gateway_listen"),
    ];
    if is_founder {
        checks.push(port("join port", tcp, config.join_listen, "join_listen"));
    }
    if config.kubernetes.unwrap_or(is_founder) {
        let address = config.kubernetes_listen;
        checks.push(port("kubernetes port", tcp, address, "kubernetes_listen"));
    }
    if let Err(error) = identity {
        let error = types::chain(&error).to_string();
        let fix = "`aerostat down --purge` begins anew";
        let means = "this host does not know who it is, and does not start";
        checks.push(Check::fail("identity", error, means, fix));
    }
    checks
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn bind(self, address: SocketAddr) -> io::Result<()> {
        match self {
            Self::Tcp => TcpListener::bind(address).map(drop),
            Self::Udp => UdpSocket::bind(address).map(drop),
        }
    }
}

fn port(
    name: &'static str,
    transport: Transport,
    address: SocketAddr,
    key: &str,
    context: &Context,
) -> Check {
    let bound = match transport.bind(address) {
        // A kernel without IPv6, on which everywhere is IPv4.
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && address.is_ipv6()
                && address.ip().is_unspecified() =>
        {
            transport.bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    match bound {
        Ok(()) => Check::ok(name, format!("{address} is free")),
        Err(error) => Check::fail(
            name,
            format!("{address}: {error}"),
            "`aerostat up` will not start",
            format!(
                "end what listens there, or set {key} in {}",
                context.paths.config.display()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::output;
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_port_that_is_taken_fails() {
        let paths = crate::config::Paths {
            data_dir: "/nonexistent".into(),
            run_dir: "/nonexistent".into(),
            config: "/etc/aerostat.toml".into(),
            guest_dir: None,
        };
        let format = output::Format::Json;
        let context = Context {
            paths,
            format,
            remote: None,
        };
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let look = || {
            port(
                "mesh port",
                Transport::Udp,
                address,
                "mesh_listen",
                &context,
            )
        };
        let check = look();
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.fix.contains("mesh_listen"), "{}", check.fix);
        drop(taken);
        assert_eq!(look().verdict, Verdict::Ok);
    }
}
