//! The Internet checksum (RFC 1071).

/// Adds `data` to a sum. Only the last piece of what is summed may be of odd length.
///
/// Words are taken in the machine's own byte order: a one's complement sum comes out right in
/// either, and the compiler vectorises this one.
pub(super) fn sum(data: &[u8], mut sum: u64) -> u64 {
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

/// What the pseudo-header adds to a sum: `addresses` are source and destination as they stand in
/// the IP header, `length_bytes` that of transport header and payload.
pub(super) fn pseudo_header(addresses: &[u8], protocol: u8, length_bytes: u16) -> u64 {
    let [high, low] = length_bytes.to_be_bytes();
    sum(&[0, protocol, high, low], sum(addresses, 0))
}

/// The sum as 16 bits, as it goes on the wire.
pub(super) fn fold(sum: u64) -> [u8; 2] {
    folded(sum).to_ne_bytes()
}

/// The checksum of what was summed, as it goes on the wire.
pub(super) fn finish(sum: u64) -> [u8; 2] {
    (!folded(sum)).to_ne_bytes()
}

/// Whether what was summed holds its right checksum.
pub(super) fn holds(sum: u64) -> bool {
    folded(sum) == 0xffff
}

fn folded(mut sum: u64) -> u16 {
    loop {
        match u16::try_from(sum) {
            Ok(folded) => return folded,
            Err(_) => sum = (sum & 0xffff) + (sum >> 16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&data, 0)), [0xdd, 0xf2]);
        assert_eq!(finish(sum(&data, 0)), [0x22, 0x0d]);
    }

    #[test]
    fn data_with_its_checksum_holds() {
        let mut data = *b"\x45\x00\x00\x54\x00\x00odd";
        let check = finish(sum(&data, 0));
        data[4..6].copy_from_slice(&check);
        assert!(holds(sum(&data, 0)));
        data[7] ^= 1;
        assert!(!holds(sum(&data, 0)));
    }
}
