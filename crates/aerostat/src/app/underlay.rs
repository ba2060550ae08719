//! Under which address others reach this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::Config;
use crate::fleet::Identity;

/// Documentation addresses (RFC 5737, RFC 3849). Nothing is sent there; the kernel only says from
/// which address it would.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The configured address; else the one from which this host speaks to the fleet, or would speak
/// to the Internet. `None` on a host without a network.
pub(super) fn advertised(config: &Config, identity: &Identity) -> Option<IpAddr> {
    let seeds = identity.seeds.iter().map(|seed| seed.endpoint.ip());
    let configured = config.advertise;
    configured.or_else(|| seeds.chain(SOMEWHERE).find_map(source_towards))
}

/// The address from which the kernel would speak to `there`.
fn source_towards(there: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match there {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((there, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified() && !source.is_loopback()).then_some(source)
}

/// Where others find a port of this host that listens on `listen`: there, if it is one address;
/// else on the one that is advertised. On a host without a network that is loopback.
pub(super) fn endpoint(listen: IpAddr, port: u16, advertised: Option<IpAddr>) -> SocketAddr {
    let ip = match (listen.is_unspecified(), advertised) {
        (true, Some(ip)) => ip,
        (true, None) => Ipv4Addr::LOCALHOST.into(),
        (false, _) => listen,
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_where_one_listens_or_what_is_advertised() {
        let any = Ipv6Addr::UNSPECIFIED.into();
        let here: IpAddr = "198.51.100.7".parse().unwrap();
        assert_eq!(endpoint(any, 7, Some(here)), SocketAddr::new(here, 7));
        assert!(endpoint(any, 7, None).ip().is_loopback());
        let listen = "203.0.113.1".parse().unwrap();
        assert_eq!(endpoint(listen, 7, Some(here)), SocketAddr::new(listen, 7));
    }
}
