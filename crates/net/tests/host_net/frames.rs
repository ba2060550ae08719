//! Packets as a hostile guest would write them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use net::Mac;

pub(crate) const ROUTER_ADVERT: u8 = 134;
pub(crate) const NEIGHBOUR_SOLICIT: u8 = 135;
pub(crate) const NEIGHBOUR_ADVERT: u8 = 136;

/// Hop-by-hop options, routing, fragment, destination options.
pub(crate) const EXTENSION_HEADERS: [u8; 4] = [0, 43, FRAGMENT, 60];

const FRAGMENT: u8 = 44;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const IPV6_HEADER_LEN: usize = 40;
const ETHERNET_HEADER_LEN: usize = 14;
const VNET_HEADER_LEN: usize = 10;
const GATEWAY_MAC: [u8; 6] = [0x02, 0xae, 0, 0, 0, 1];

/// `packet` as it is written to a tap: behind a virtio-net and an Ethernet header.
pub(crate) fn on_tap(source: Mac, packet: &[u8]) -> Vec<u8> {
    let ethernet = [&GATEWAY_MAC[..], &source.0, &[0x86, 0xdd]].concat();
    [&[0; VNET_HEADER_LEN][..], &ethernet, packet].concat()
}

/// A datagram of 4 bytes, which no other has.
pub(crate) fn udp(source: Ipv6Addr, destination: Ipv6Addr, port: u16) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut payload = Vec::new();
    for word in [9999, port, 12, 0] {
        payload.extend(u16::to_be_bytes(word));
    }
    payload.extend(NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    packet(source, destination, UDP, payload, 6)
}

/// A neighbour solicitation or advertisement (or, with the same layout, something close enough to
/// a router's) about `target`, with our hardware address as its option.
pub(crate) fn neighbour(kind: u8, source: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let flags = if kind == NEIGHBOUR_ADVERT { 0x60 } else { 0 };
    let option = if kind == NEIGHBOUR_ADVERT { 2 } else { 1 };
    let mut payload = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    payload.extend(target.octets());
    payload.extend([option, 1, 2, 0x61, 0, 1, 0, 1]);
    packet(source, to, ICMPV6, payload, 2)
}

fn packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let addresses = [source.octets(), destination.octets()].concat();
    let pseudo = [&addresses[..], &length, &[0, next_header], &payload].concat();
    let checksum = checksum(&pseudo).to_be_bytes();
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    let header = [
        &[0x60, 0, 0, 0][..],
        &length,
        &[next_header, 255],
        &addresses,
    ]
    .concat();
    [header, payload].concat()
}

/// `packet` with an extension header before its payload; a fragment that is the whole.
pub(crate) fn with_extension(packet: &[u8], kind: u8) -> Vec<u8> {
    let mut extended = packet[..IPV6_HEADER_LEN].to_vec();
    let inner = std::mem::replace(&mut extended[6], kind);
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    extended[4..6].copy_from_slice(&length.to_be_bytes());
    // For options, a PadN of 4 bytes; a routing header of type 1 with nothing left to visit.
    extended.extend(match kind {
        FRAGMENT => [inner, 0, 0, 0, 0, 0, 0, 7],
        _ => [inner, 0, 1, 4, 0, 0, 0, 0],
    });
    extended.extend(&packet[IPV6_HEADER_LEN..]);
    extended
}

pub(crate) fn arp_request(mac: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ethernet = [&[0xff; 6][..], &mac.0, &[0x08, 0x06]].concat();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &mac.0,
        &source.octets(),
        &[0; 6],
        &target.octets(),
    ];
    [&[0; VNET_HEADER_LEN][..], &ethernet, &arp.concat()].concat()
}

pub(crate) fn is_arp_reply(frame: &[u8]) -> bool {
    let packet = &frame[VNET_HEADER_LEN + ETHERNET_HEADER_LEN..];
    frame[VNET_HEADER_LEN + 12..].starts_with(&[0x08, 0x06]) && packet[6..8] == [0, 2]
}

/// The ICMPv6 type of a frame read from a tap.
pub(crate) fn icmpv6_kind(frame: &[u8]) -> Option<u8> {
    let packet = frame.get(VNET_HEADER_LEN + ETHERNET_HEADER_LEN..)?;
    (packet.get(6) == Some(&ICMPV6)).then(|| packet.get(IPV6_HEADER_LEN).copied())?
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or_default(),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
