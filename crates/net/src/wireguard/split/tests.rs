//! Split against a reader of its own, and against `coalesce`.

use proptest::prelude::*;

use super::*;
use crate::wireguard::coalesce::coalesce;
use crate::wireguard::segment::{ACK, total_bytes};

/// A packet with right lengths and checksums.
pub(crate) fn tcp_packet(v6: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let mut tcp = vec![0x1f, 0x90, 0xc3, 0x50];
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(77_u32.to_be_bytes());
    tcp.extend([0x80, flags, 0x10, 0x00, 0, 0, 0, 0]);
    tcp.extend(options);
    tcp.extend(payload);
    packet(v6, TCP, &tcp)
}

fn udp_packet(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut udp = vec![0x1f, 0x90, 0xc3, 0x50];
    udp.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    packet(v6, UDP, &udp)
}

fn packet(v6: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(transport.len()).unwrap();
    let mut packet = if v6 {
        let mut ip = vec![0x60, 0, 0, 9];
        ip.extend(length.to_be_bytes());
        ip.extend([protocol, 64]);
        ip.extend(crate::wireguard::policy::machine(7, 2, 0x10001).octets());
        ip.extend(crate::wireguard::policy::machine(7, 3, 0x10001).octets());
        ip
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend((length + 20).to_be_bytes());
        ip.extend([0xff, 0xff, 0x40, 0, 64, protocol, 0, 0]);
        ip.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        ip
    };
    packet.extend(transport);
    let layout = Layout::of(&packet).unwrap();
    let total = u16::try_from(packet.len()).unwrap();
    layout.set_length(&mut packet, total);
    let field = layout.transport
        + if protocol == TCP {
            TCP_CHECKSUM
        } else {
            UDP_CHECKSUM
        };
    let sum = layout.pseudo_header(&packet, length);
    let check = checksum::finish(checksum::sum(&packet[layout.transport..], sum));
    packet[field..field + 2].copy_from_slice(&check);
    packet
}

pub(crate) fn assert_sound(packet: &[u8]) {
    let layout = Layout::of(packet).unwrap();
    assert_eq!(total_bytes(packet), Some(packet.len()));
    let transport = &packet[layout.transport..];
    let length = u16::try_from(transport.len()).unwrap();
    let sum = checksum::sum(transport, layout.pseudo_header(packet, length));
    assert!(checksum::holds(sum), "transport checksum");
    if layout.version == IpVersion::V4 {
        let ip = checksum::sum(&packet[..layout.transport], 0);
        assert!(checksum::holds(ip), "IP checksum");
    }
}

fn super_header(packet: &[u8], gso: Gso, segment_bytes: usize) -> VnetHeader {
    let layout = Layout::of(packet).unwrap();
    VnetHeader {
        needs_checksum: true,
        gso,
        header_bytes: u16::try_from(layout.payload).unwrap(),
        segment_bytes: u16::try_from(segment_bytes).unwrap(),
        checksum_start: u16::try_from(layout.transport).unwrap(),
        checksum_offset: if layout.protocol == TCP { 16 } else { 6 },
    }
}

fn split_all(header: VnetHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut packets = Vec::new();
    let mut packet = packet.to_vec();
    split(header, &mut packet, &mut |headers, payload| {
        packets.push([headers, payload].concat());
    })?;
    Ok(packets)
}

proptest! {
    #[test]
    fn split_and_coalesce_give_the_stream_back(
        v6: bool,
        sequence: u32,
        push: bool,
        payload in proptest::collection::vec(any::<u8>(), 1..9000),
        segment_bytes in 1_usize..1400,
    ) {
        prop_assume!(payload.len() / segment_bytes < 300);
        let flags = if push { ACK | PSH } else { ACK };
        let whole = tcp_packet(v6, sequence, flags, &payload);
        let gso = if v6 { Gso::TcpV6 } else { Gso::TcpV4 };
        let packets = split_all(super_header(&whole, gso, segment_bytes), &whole).unwrap();
        prop_assert_eq!(packets.len(), payload.len().div_ceil(segment_bytes));
        for (number, packet) in packets.iter().enumerate() {
            assert_sound(packet);
            let layout = Layout::of(packet).unwrap();
            let tcp = &packet[layout.transport..];
            let at = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            let offset = u32::try_from(number * segment_bytes).unwrap();
            prop_assert_eq!(at, sequence.wrapping_add(offset));
            let last = number + 1 == packets.len();
            prop_assert_eq!(tcp[TCP_FLAGS] & PSH != 0, push && last);
        }

        let mut frames = Vec::new();
        coalesce(&packets, &mut |header, pieces| frames.push((header, pieces.concat())));
        prop_assert_eq!(frames.len(), 1);
        let (header, joined) = &frames[0];
        let again = split_all(*header, joined).unwrap();
        // IPv4 identifications count up from the first one's again.
        prop_assert_eq!(again, packets);
    }

    #[test]
    fn datagrams_of_a_super_packet_are_whole(
        v6: bool,
        payload in proptest::collection::vec(any::<u8>(), 1..9000),
        segment_bytes in 100_usize..1400,
    ) {
        let whole = udp_packet(v6, &payload);
        let packets = split_all(super_header(&whole, Gso::Udp, segment_bytes), &whole).unwrap();
        let mut joined: Vec<u8> = Vec::new();
        for packet in &packets {
            assert_sound(packet);
            joined.extend(&packet[Layout::of(packet).unwrap().payload..]);
        }
        prop_assert_eq!(joined, payload);
    }
}

#[test]
fn a_checksum_that_was_left_to_us_is_completed() {
    for v6 in [false, true] {
        let right = tcp_packet(v6, 1, ACK, b"odd");
        let layout = Layout::of(&right).unwrap();
        let mut left = right.clone();
        let length = u16::try_from(right.len() - layout.transport).unwrap();
        let pseudo = checksum::fold(layout.pseudo_header(&right, length));
        let field = layout.transport + TCP_CHECKSUM;
        left[field..field + 2].copy_from_slice(&pseudo);
        let header = VnetHeader {
            gso: Gso::None,
            ..super_header(&right, Gso::None, 0)
        };
        assert_eq!(split_all(header, &left), Ok(vec![right]));
    }
}

#[test]
fn only_the_first_segment_reduces_the_window_and_only_the_last_ends_the_stream() {
    let whole = tcp_packet(true, 1, ACK | CWR | FIN, &[0; 30]);
    let packets = split_all(super_header(&whole, Gso::TcpV6, 10), &whole).unwrap();
    let flags: Vec<u8> = packets
        .iter()
        .map(|packet| packet[40 + TCP_FLAGS])
        .collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | FIN]);
}

#[test]
fn frames_that_contradict_their_header_are_refused() {
    let tcp = tcp_packet(true, 1, ACK, &[0; 30]);
    let refused = |header, packet: &[u8]| assert_eq!(split_all(header, packet), Err(Malformed));
    refused(super_header(&tcp, Gso::TcpV6, 0), &tcp);
    refused(super_header(&tcp, Gso::TcpV4, 10), &tcp);
    refused(super_header(&tcp, Gso::Udp, 10), &tcp);
    refused(super_header(&tcp, Gso::TcpV6, 10), &tcp[..59]);
    refused(super_header(&tcp, Gso::TcpV6, 10), &[]);
    let beyond = VnetHeader {
        gso: Gso::None,
        checksum_start: 65_535,
        checksum_offset: 65_535,
        ..super_header(&tcp, Gso::None, 0)
    };
    refused(beyond, &tcp);
}
