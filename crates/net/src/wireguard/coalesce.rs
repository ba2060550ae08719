//! From decrypted TCP segments to super-packets, which cost the kernel one walk instead of many.
//!
//! Only what the sender itself would have sent as one: segments of one flow that follow each
//! other, alike in everything but sequence, push flag and checksums, whose checksums are right
//! (the kernel believes us about a super-packet's), none after a shorter one or a push.

use super::segment::{
    ACK, HEADERS_BYTES_MAX, IpVersion, Layout, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_SEQUENCE,
    total_bytes,
};
use super::vnet::{Gso, VnetHeader};
use super::{PACKET_BYTES_MAX, checksum};

/// Calls `write` with each frame for the TUN device, in order: its header and the pieces of its
/// packet. Packets that cannot be coalesced pass unchanged.
pub(super) fn coalesce<'a, P: AsRef<[u8]>>(
    packets: &'a [P],
    write: &mut impl FnMut(VnetHeader, &[&[u8]]),
) {
    let mut run: Option<Run<'a>> = None;
    for packet in packets {
        let packet = packet.as_ref();
        let segment = Segment::parse(packet);
        if let (Some(open), Some(segment)) = (&mut run, &segment)
            && open.takes(segment)
        {
            open.push(segment);
            continue;
        }
        if let Some(run) = run.take() {
            run.write(write);
        }
        match segment {
            Some(segment) => run = Some(Run::new(packet, segment)),
            None => write(VnetHeader::PLAIN, &[packet]),
        }
    }
    if let Some(run) = run {
        run.write(write);
    }
}

/// A TCP segment with payload that may be joined to others.
struct Segment<'a> {
    layout: Layout,
    headers: &'a [u8],
    payload: &'a [u8],
    sequence: u32,
    push: bool,
}

impl<'a> Segment<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let layout = Layout::of(packet)?;
        let exact = total_bytes(packet) == Some(packet.len());
        if layout.protocol != TCP || !exact || packet.len() == layout.payload {
            return None;
        }
        // With "don't fragment" the identification means nothing (RFC 6864).
        if layout.version == IpVersion::V4 && packet[6] & 0x40 == 0 {
            return None;
        }
        let (headers, payload) = packet.split_at(layout.payload);
        let tcp = &headers[layout.transport..];
        let flags = tcp[TCP_FLAGS];
        let length = u16::try_from(tcp.len() + payload.len()).ok()?;
        let pseudo = layout.pseudo_header(headers, length);
        let right = checksum::holds(checksum::sum(&packet[layout.transport..], pseudo));
        let ip_right = layout.version == IpVersion::V6
            || checksum::holds(checksum::sum(&headers[..layout.transport], 0));
        (flags & !PSH == ACK && right && ip_right).then(|| Self {
            layout,
            headers,
            payload,
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            push: flags & PSH != 0,
        })
    }

    /// The headers with all that may differ within a run made zero.
    fn likeness(&self) -> [u8; HEADERS_BYTES_MAX] {
        let mut likeness = [0; HEADERS_BYTES_MAX];
        likeness[..self.headers.len()].copy_from_slice(self.headers);
        match self.layout.version {
            IpVersion::V4 => {
                likeness[2..6].fill(0);
                likeness[10..12].fill(0);
            }
            IpVersion::V6 => likeness[4..6].fill(0),
        }
        let tcp = &mut likeness[self.layout.transport..];
        tcp[TCP_SEQUENCE..TCP_SEQUENCE + 4].fill(0);
        tcp[TCP_FLAGS] &= !PSH;
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        likeness
    }
}

/// Segments that go together.
struct Run<'a> {
    first: &'a [u8],
    layout: Layout,
    likeness: [u8; HEADERS_BYTES_MAX],
    headers_bytes: usize,
    payloads: Vec<&'a [u8]>,
    segment_bytes: usize,
    next_sequence: u32,
    total_bytes: usize,
    /// A shorter segment or a push came, which can only be the last.
    closed: bool,
    push: bool,
}

impl<'a> Run<'a> {
    fn new(first: &'a [u8], segment: Segment<'a>) -> Self {
        let mut run = Self {
            first,
            layout: segment.layout,
            likeness: segment.likeness(),
            headers_bytes: segment.headers.len(),
            payloads: Vec::new(),
            segment_bytes: segment.payload.len(),
            next_sequence: segment.sequence,
            total_bytes: segment.headers.len(),
            closed: false,
            push: false,
        };
        run.push(&segment);
        run
    }

    fn takes(&self, segment: &Segment) -> bool {
        !self.closed
            && segment.sequence == self.next_sequence
            && segment.payload.len() <= self.segment_bytes
            && self.total_bytes + segment.payload.len() <= PACKET_BYTES_MAX
            && segment.layout == self.layout
            && segment.likeness() == self.likeness
    }

    fn push(&mut self, segment: &Segment<'a>) {
        let bytes = segment.payload.len();
        self.payloads.push(segment.payload);
        self.total_bytes += bytes;
        // A payload is at most 65,535 bytes long.
        let step = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.next_sequence = segment.sequence.wrapping_add(step);
        self.push |= segment.push;
        self.closed = segment.push || bytes < self.segment_bytes;
    }

    fn write(self, write: &mut impl FnMut(VnetHeader, &[&[u8]])) {
        let sizes = (
            u16::try_from(self.total_bytes),
            u16::try_from(self.segment_bytes),
            u16::try_from(self.headers_bytes),
            u16::try_from(self.layout.transport),
        );
        let (Ok(total), Ok(segment_bytes), Ok(header_bytes), Ok(transport)) = sizes else {
            // `takes` lets no run grow beyond a packet.
            return;
        };
        if self.payloads.len() == 1 {
            return write(VnetHeader::PLAIN, &[self.first]);
        }
        let mut headers = [0; HEADERS_BYTES_MAX];
        let headers = &mut headers[..self.headers_bytes];
        headers.copy_from_slice(&self.first[..self.headers_bytes]);
        self.layout.set_length(headers, total);
        if self.push {
            headers[self.layout.transport + TCP_FLAGS] |= PSH;
        }
        // The kernel adds the rest, if anybody asks for it at all.
        let pseudo = checksum::fold(self.layout.pseudo_header(headers, total - transport));
        let field = self.layout.transport + TCP_CHECKSUM;
        headers[field..field + 2].copy_from_slice(&pseudo);
        let header = VnetHeader {
            needs_checksum: true,
            gso: match self.layout.version {
                IpVersion::V4 => Gso::TcpV4,
                IpVersion::V6 => Gso::TcpV6,
            },
            header_bytes,
            segment_bytes,
            checksum_start: transport,
            checksum_offset: 16,
        };
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(1 + self.payloads.len());
        pieces.push(headers);
        pieces.extend(&self.payloads);
        write(header, &pieces);
    }
}

#[cfg(test)]
mod tests;
