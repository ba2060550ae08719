//! Where the headers of a packet are, for those packets that are split or coalesced: IP without
//! extension headers or fragments, and TCP or UDP directly after it.

use std::net::Ipv6Addr;

use super::counters::DropReason;
use super::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, checksum};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const TCP_HEADER_BYTES_MIN: usize = 20;
/// IPv4 with all its options and TCP with all of its.
pub(super) const HEADERS_BYTES_MAX: usize = 60 + 60;

/// Offsets into the TCP header.
pub(super) const TCP_SEQUENCE: usize = 4;
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const TCP_CHECKSUM: usize = 16;
/// Offsets into the UDP header.
pub(super) const UDP_LENGTH: usize = 4;
pub(super) const UDP_CHECKSUM: usize = 6;

/// Flags of the TCP header.
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// The headers of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) version: IpVersion,
    pub(super) protocol: u8,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
}

impl Layout {
    /// `None` for every packet that is not plain TCP or UDP. Looks at no length field: a
    /// super-packet's need not be right.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (version, protocol, transport) = match packet.first()? >> 4 {
            4 => {
                let header = packet.get(..IPV4_HEADER_BYTES)?;
                let bytes = usize::from(header[0] & 0x0f) * 4;
                // Neither more fragments to come nor an offset.
                let whole = header[6] & 0x3f == 0 && header[7] == 0;
                (bytes >= IPV4_HEADER_BYTES && whole).then_some((
                    IpVersion::V4,
                    header[9],
                    bytes,
                ))?
            }
            6 => {
                let header = packet.get(..IPV6_HEADER_BYTES)?;
                (IpVersion::V6, header[6], IPV6_HEADER_BYTES)
            }
            _ => return None,
        };
        let payload = transport
            + match protocol {
                TCP => {
                    let bytes = usize::from(packet.get(transport + 12)? >> 4) * 4;
                    (bytes >= TCP_HEADER_BYTES_MIN).then_some(bytes)?
                }
                UDP => UDP_HEADER_BYTES,
                _ => return None,
            };
        (payload <= packet.len()).then_some(Self {
            version,
            protocol,
            transport,
            payload,
        })
    }

    /// Source and destination, next to each other, as they stand in the packet.
    pub(super) fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        match self.version {
            IpVersion::V4 => &packet[12..20],
            IpVersion::V6 => &packet[8..40],
        }
    }

    /// Makes the IP header say that `total` bytes follow its first one.
    pub(super) fn set_length(&self, headers: &mut [u8], total: u16) {
        match self.version {
            IpVersion::V4 => {
                headers[2..4].copy_from_slice(&total.to_be_bytes());
                headers[10..12].fill(0);
                let check = checksum::finish(checksum::sum(&headers[..self.transport], 0));
                headers[10..12].copy_from_slice(&check);
            }
            IpVersion::V6 => {
                let header: u16 = 40;
                headers[4..6].copy_from_slice(&total.saturating_sub(header).to_be_bytes());
            }
        }
    }

    /// The pseudo-header's share of the checksum for `length_bytes` of transport header and
    /// payload.
    pub(super) fn pseudo_header(&self, headers: &[u8], length_bytes: u16) -> u64 {
        checksum::pseudo_header(self.addresses(headers), self.protocol, length_bytes)
    }
}

/// The length that the IP header gives the packet; `None` if there is less of it. Tunnels pad, so
/// there may be more.
pub(super) fn total_bytes(packet: &[u8]) -> Option<usize> {
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *packet.get(at)?,
            *packet.get(at + 1)?,
        ])))
    };
    let (total, least) = match packet.first()? >> 4 {
        4 => (word(2)?, IPV4_HEADER_BYTES),
        6 => (word(4)? + IPV6_HEADER_BYTES, IPV6_HEADER_BYTES),
        _ => return None,
    };
    (least <= total && total <= packet.len()).then_some(total)
}

/// Source and destination of an inner packet, which has to be whole.
pub(super) fn addresses(packet: &[u8]) -> Result<(Ipv6Addr, Ipv6Addr), DropReason> {
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => {}
        Some(4) => return Err(DropReason::NotIpv6),
        _ => return Err(DropReason::Malformed),
    }
    let header = packet
        .get(..IPV6_HEADER_BYTES)
        .ok_or(DropReason::Malformed)?;
    total_bytes(packet).ok_or(DropReason::Malformed)?;
    let address = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(bytes)
    };
    Ok((address(8), address(24)))
}
