//! The five rtnetlink requests that a guest needs, as bytes (rtnetlink(7)).
//!
//! A crate for this brings a tree of others into PID 1, for what are a few dozen bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

const HEADER_BYTES: usize = 16;

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).expect("attributes here are short");
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("messages here are short");
    let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and port: one request at a time on a socket of its own.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// struct ifinfomsg.
fn link(index: u32, flags: u32, change: u32, attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body.extend(attributes);
    // Links are changed, never made.
    message(RTM_NEWLINK, 0, &body)
}

/// struct ifaddrmsg.
fn address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    // The host alone decides who has which address, so there is nobody to ask.
    let mut body = vec![family(address), prefix, IFA_F_NODAD, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(IFA_LOCAL, &octets(address)));
    body.extend(attribute(IFA_ADDRESS, &octets(address)));
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

/// struct rtmsg: the default route.
fn default_route(index: u32, gateway: IpAddr) -> Vec<u8> {
    let table = [RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST];
    let mut body = vec![family(gateway), 0, 0, 0];
    body.extend(table);
    let is_link_local = match gateway {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    // Addresses are alone in their networks, so a gateway is never in one of them.
    let flags = if is_link_local { 0 } else { RTNH_F_ONLINK };
    body.extend(flags.to_ne_bytes());
    body.extend(attribute(RTA_GATEWAY, &octets(gateway)));
    body.extend(attribute(RTA_OIF, &index.to_ne_bytes()));
    message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

/// What the kernel answered.
fn parse_answer(bytes: &[u8]) -> io::Result<()> {
    let unexpected = || io::Error::other("netlink answer is none");
    let (header, rest) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(unexpected)?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let code = rest.first_chunk::<4>().ok_or_else(unexpected)?;
    match (kind, i32::from_ne_bytes(*code)) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        (_, _) => Err(unexpected()),
    }
}

/// A route socket of the kernel.
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket })
    }

    fn ask(&self, request: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let socket = self.socket.as_raw_fd();
        sendto(socket, request, &kernel, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(socket, &mut answer, MsgFlags::empty())?;
        parse_answer(&answer[..length])
    }

    pub(crate) fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let name = [name.as_bytes(), &[0]].concat();
        self.ask(&link(index, 0, 0, &attribute(IFLA_IFNAME, &name)))
    }

    pub(crate) fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.ask(&link(index, 0, 0, &attribute(IFLA_MTU, &mtu.to_ne_bytes())))
    }

    pub(crate) fn set_up(&self, index: u32) -> io::Result<()> {
        self.ask(&link(index, IFF_UP, IFF_UP, &[]))
    }

    pub(crate) fn add_v6(&self, index: u32, own: Ipv6Addr, gateway: Ipv6Addr) -> io::Result<()> {
        self.ask(&address(index, own.into(), 128))?;
        self.ask(&default_route(index, gateway.into()))
    }

    pub(crate) fn add_v4(&self, index: u32, own: Ipv4Addr, gateway: Ipv4Addr) -> io::Result<()> {
        self.ask(&address(index, own.into(), 32))?;
        self.ask(&default_route(index, gateway.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_lengths_and_alignment() {
        let own: IpAddr = "fdaa::2".parse().unwrap();
        for (request, length) in [
            (link(1, IFF_UP, IFF_UP, &[]), 32),
            (link(1, 0, 0, &attribute(IFLA_IFNAME, b"eth0\0")), 32 + 12),
            (address(1, own, 128), 16 + 8 + 2 * 20),
            (default_route(1, own), 16 + 12 + 20 + 8),
        ] {
            assert_eq!(request.len(), length);
            assert_eq!(request[..4], u32::try_from(length).unwrap().to_ne_bytes());
        }
    }

    #[test]
    fn answers_are_acknowledgements_or_errors() {
        let answer = |code: i32| [&[0, 0, 0, 0, 2, 0][..], &[0; 10], &code.to_ne_bytes()].concat();
        assert!(parse_answer(&answer(0)).is_ok());
        let error = parse_answer(&answer(-17)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(17));
        assert!(parse_answer(&[]).is_err());
    }

    #[test]
    fn the_kernel_takes_requests_and_refuses_those_for_no_interface() {
        let netlink = Netlink::open().unwrap();
        let error = netlink.set_mtu(0x7fff_fff0, 1420).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
