//! The virtio-net header before each frame of a TUN device (virtio 1.2 section 5.1.6, linux
//! virtio_net.h): ten bytes in the machine's byte order.

pub(super) const VNET_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
/// Set beside the type for segments that carry explicit congestion notification.
const GSO_ECN: u8 = 0x80;

/// What a frame is a super-packet of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gso {
    None,
    TcpV4,
    TcpV6,
    /// `VIRTIO_NET_HDR_GSO_UDP_L4`: datagrams of equal size, over either IP.
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VnetHeader {
    /// The checksum at `checksum_start + checksum_offset` holds the sum of the pseudo-header only.
    pub(super) needs_checksum: bool,
    pub(super) gso: Gso,
    pub(super) header_bytes: u16,
    /// Payload of each segment but the last.
    pub(super) segment_bytes: u16,
    pub(super) checksum_start: u16,
    pub(super) checksum_offset: u16,
}

impl VnetHeader {
    /// Before a frame that is one whole packet.
    pub(super) const PLAIN: Self = Self {
        needs_checksum: false,
        gso: Gso::None,
        header_bytes: 0,
        segment_bytes: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header of a frame and returns the packet after it. `None` for a frame that is
    /// too short or of a kind that we never asked for.
    pub(super) fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (header, packet) = frame.split_first_chunk::<VNET_HEADER_BYTES>()?;
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let gso = match header[1] & !GSO_ECN {
            0 => Gso::None,
            1 => Gso::TcpV4,
            4 => Gso::TcpV6,
            5 => Gso::Udp,
            _ => return None,
        };
        let header = Self {
            needs_checksum: header[0] & NEEDS_CHECKSUM != 0,
            gso,
            header_bytes: word(2),
            segment_bytes: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        };
        Some((header, packet))
    }

    pub(super) fn to_bytes(self) -> [u8; VNET_HEADER_BYTES] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => 1,
            Gso::TcpV6 => 4,
            Gso::Udp => 5,
        };
        let mut bytes = [0; VNET_HEADER_BYTES];
        bytes[0] = u8::from(self.needs_checksum) * NEEDS_CHECKSUM;
        bytes[1] = gso;
        bytes[2..4].copy_from_slice(&self.header_bytes.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_bytes.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let header = VnetHeader {
            needs_checksum: true,
            gso: Gso::TcpV6,
            header_bytes: 72,
            segment_bytes: 1348,
            checksum_start: 40,
            checksum_offset: 16,
        };
        let mut frame = header.to_bytes().to_vec();
        frame.push(0x60);
        assert_eq!(VnetHeader::parse(&frame), Some((header, &[0x60][..])));
    }

    #[test]
    fn unknown_kinds_and_short_frames_are_refused() {
        assert_eq!(VnetHeader::parse(&[0; 9]), None);
        assert_eq!(VnetHeader::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
