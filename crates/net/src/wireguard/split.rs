//! From a super-packet, as the kernel hands it over with segmentation offload, to the packets
//! that it stands for.

use super::segment::{
    CWR, FIN, HEADERS_BYTES_MAX, IpVersion, Layout, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS,
    TCP_SEQUENCE, UDP, UDP_CHECKSUM, UDP_LENGTH,
};
use super::vnet::{Gso, VnetHeader};
use super::{PACKET_BYTES_MAX, checksum};

/// The frame contradicts its own header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Calls `emit` with headers and payload of each packet that the frame stands for, in order, with
/// lengths, sequence numbers, flags and checksums as if the sender had made them one by one.
pub(super) fn split(
    header: VnetHeader,
    packet: &mut [u8],
    emit: &mut impl FnMut(&[u8], &[u8]),
) -> Result<(), Malformed> {
    if packet.is_empty() || packet.len() > PACKET_BYTES_MAX {
        return Err(Malformed);
    }
    if header.gso == Gso::None {
        if header.needs_checksum {
            complete_checksum(header, packet)?;
        }
        emit(packet, &[]);
        return Ok(());
    }
    let layout = Layout::of(packet).ok_or(Malformed)?;
    let fits = match header.gso {
        Gso::None => false,
        Gso::TcpV4 => layout.protocol == TCP && layout.version == IpVersion::V4,
        Gso::TcpV6 => layout.protocol == TCP && layout.version == IpVersion::V6,
        Gso::Udp => layout.protocol == UDP,
    };
    if !fits || header.segment_bytes == 0 {
        return Err(Malformed);
    }
    let (original, payload) = packet.split_at(layout.payload);
    let mut headers = [0; HEADERS_BYTES_MAX];
    let headers = &mut headers[..layout.payload];
    let pieces = payload.chunks(header.segment_bytes.into());
    let last = pieces.len().saturating_sub(1);
    let mut offset = 0;
    for (number, piece) in pieces.enumerate() {
        headers.copy_from_slice(original);
        let place = Place {
            number,
            offset,
            last: number == last,
        };
        rewrite(&layout, headers, piece, place)?;
        emit(headers, piece);
        offset += piece.len();
    }
    Ok(())
}

/// Which piece of the payload it is.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    offset: usize,
    last: bool,
}

/// Makes `headers`, which are the super-packet's, those of one piece.
fn rewrite(
    layout: &Layout,
    headers: &mut [u8],
    piece: &[u8],
    place: Place,
) -> Result<(), Malformed> {
    let total = u16::try_from(headers.len() + piece.len()).map_err(|_| Malformed)?;
    let length =
        u16::try_from(headers.len() - layout.transport + piece.len()).map_err(|_| Malformed)?;
    if layout.version == IpVersion::V4 {
        // Each packet has an identification of its own; they count up.
        let id = u16::from_be_bytes([headers[4], headers[5]]);
        let number = u16::try_from(place.number).map_err(|_| Malformed)?;
        headers[4..6].copy_from_slice(&id.wrapping_add(number).to_be_bytes());
    }
    layout.set_length(headers, total);
    let check_at = layout.transport
        + if layout.protocol == TCP {
            rewrite_tcp(&mut headers[layout.transport..], place)?;
            TCP_CHECKSUM
        } else {
            let field = layout.transport + UDP_LENGTH;
            headers[field..field + 2].copy_from_slice(&length.to_be_bytes());
            UDP_CHECKSUM
        };
    headers[check_at..check_at + 2].fill(0);
    let sum = checksum::sum(
        &headers[layout.transport..],
        layout.pseudo_header(headers, length),
    );
    let mut check = checksum::finish(checksum::sum(piece, sum));
    if layout.protocol == UDP && check == [0, 0] {
        // Zero means "no checksum" (RFC 768).
        check = [0xff, 0xff];
    }
    headers[check_at..check_at + 2].copy_from_slice(&check);
    Ok(())
}

fn rewrite_tcp(tcp: &mut [u8], place: Place) -> Result<(), Malformed> {
    let field = &mut tcp[TCP_SEQUENCE..TCP_SEQUENCE + 4];
    let first = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
    let offset = u32::try_from(place.offset).map_err(|_| Malformed)?;
    field.copy_from_slice(&first.wrapping_add(offset).to_be_bytes());
    if !place.last {
        tcp[TCP_FLAGS] &= !(FIN | PSH);
    }
    if place.number > 0 {
        // The window was reduced once, not once per segment (RFC 3168 6.1.2).
        tcp[TCP_FLAGS] &= !CWR;
    }
    Ok(())
}

/// Does what checksum offload left to the device.
fn complete_checksum(header: VnetHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    let start = usize::from(header.checksum_start);
    let field = start + usize::from(header.checksum_offset);
    if field + 2 > packet.len() {
        return Err(Malformed);
    }
    // The field holds the sum of the pseudo-header, so that it is summed with the rest.
    let mut check = checksum::finish(checksum::sum(&packet[start..], 0));
    if usize::from(header.checksum_offset) == UDP_CHECKSUM && check == [0, 0] {
        check = [0xff, 0xff];
    }
    packet[field..field + 2].copy_from_slice(&check);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
