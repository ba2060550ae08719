//! What is joined, and what is not.

use super::*;
use crate::wireguard::segment::FIN;
use crate::wireguard::split::tests::tcp_packet;

/// The frames that come of these packets: how many packets are in each.
fn joined(packets: &[Vec<u8>]) -> Vec<usize> {
    let mut counts = Vec::new();
    coalesce(packets, &mut |_, pieces| {
        counts.push(pieces.len().saturating_sub(1).max(1))
    });
    counts
}

fn segment(sequence: u32, payload: usize) -> Vec<u8> {
    tcp_packet(true, sequence, ACK, &vec![0x5a; payload])
}

#[test]
fn segments_that_follow_each_other_are_joined_up_to_a_shorter_one() {
    let packets = [
        segment(0, 100),
        segment(100, 100),
        segment(200, 40),
        segment(240, 40),
    ];
    assert_eq!(joined(&packets), [3, 1]);
}

#[test]
fn a_push_ends_a_super_packet_and_is_kept() {
    let pushed = tcp_packet(true, 100, ACK | PSH, &[0; 100]);
    let packets = [segment(0, 100), pushed, segment(200, 100)];
    let mut flags = Vec::new();
    coalesce(&packets, &mut |_, pieces| {
        flags.push(pieces[0][40 + TCP_FLAGS])
    });
    assert_eq!(flags, [ACK | PSH, ACK]);
}

#[test]
fn sequence_numbers_wrap() {
    assert_eq!(
        joined(&[segment(u32::MAX - 49, 100), segment(50, 100)]),
        [2]
    );
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    let gap = [segment(0, 100), segment(300, 100)];
    assert_eq!(joined(&gap), [1, 1]);
    let longer = [segment(0, 100), segment(100, 120)];
    assert_eq!(joined(&longer), [1, 1]);
    let end = [segment(0, 100), tcp_packet(true, 100, ACK | FIN, &[0; 100])];
    assert_eq!(joined(&end), [1, 1]);
    let acknowledgements = [segment(100, 0), segment(100, 0)];
    assert_eq!(joined(&acknowledgements), [1, 1]);
    let other_ip = [segment(0, 100), tcp_packet(false, 100, ACK, &[0; 100])];
    assert_eq!(joined(&other_ip), [1, 1]);
}

#[test]
fn another_flow_window_or_hop_limit_is_not_joined() {
    // Port, window (with the checksum made right again), hop limit (which no checksum covers).
    for (at, fix) in [(40, true), (54, true), (7, false)] {
        let mut other = segment(100, 100);
        other[at] ^= 1;
        if fix {
            let field = 40 + TCP_CHECKSUM;
            other[field..field + 2].fill(0);
            let layout = Layout::of(&other).unwrap();
            let length = u16::try_from(other.len() - 40).unwrap();
            let sum = checksum::sum(&other[40..], layout.pseudo_header(&other, length));
            other[field..field + 2].copy_from_slice(&checksum::finish(sum));
        }
        assert_eq!(joined(&[segment(0, 100), other]), [1, 1], "byte {at}");
    }
}

#[test]
fn a_wrong_checksum_is_left_for_the_kernel_to_see() {
    let mut wrong = segment(100, 100);
    wrong[100] ^= 1;
    let packets = [segment(0, 100), wrong.clone(), segment(200, 100)];
    let mut seen = Vec::new();
    coalesce(&packets, &mut |header, pieces| {
        seen.push((header, pieces.concat()))
    });
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1], (VnetHeader::PLAIN, wrong));
}

#[test]
fn no_super_packet_is_longer_than_ip_allows() {
    let mut packets = Vec::new();
    for number in 0..60_u32 {
        packets.push(segment(number * 1348, 1348));
    }
    let mut lengths = Vec::new();
    coalesce(&packets, &mut |_, pieces| {
        lengths.push(pieces.concat().len())
    });
    assert_eq!(lengths.len(), 2);
    assert!(
        lengths.iter().all(|bytes| *bytes <= PACKET_BYTES_MAX),
        "{lengths:?}"
    );
}
