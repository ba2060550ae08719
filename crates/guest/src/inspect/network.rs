//! The network's tables in /proc: who listens, and what came and went.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest table that is read; a line has about 150 bytes.
pub(super) const TABLE_BYTES_MAX: u64 = 4 << 20;

/// Kernel's include/net/tcp_states.h: a TCP socket that listens, and a UDP socket without a peer.
const TCP_LISTEN: &str = "0A";
const UDP_OPEN: &str = "07";

/// Inode and address of the sockets of /proc/net/{tcp,udp}{,6} that take new peers.
pub(super) fn listening(table: &str, proto: &str) -> Vec<(u64, SocketAddr)> {
    let wanted = match proto {
        "tcp" => TCP_LISTEN,
        _ => UDP_OPEN,
    };
    let lines = table.lines().skip(1);
    let found = lines.filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == wanted).then_some((inode, address(local)?))
    });
    found.collect()
}

/// `0100007F:1F90`: words in the byte order of the processor, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let host = match host.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(host, port))
}

/// Bytes through an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub receive_bytes: u64,
    pub send_bytes: u64,
}

/// The counters of `interface` in the text of /proc/net/dev.
pub fn traffic(table: &str, interface: &str) -> Option<Traffic> {
    let mut lines = table.lines();
    let fields = lines.find_map(|line| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == interface).then_some(fields)
    })?;
    let mut fields = fields.split_ascii_whitespace();
    Some(Traffic {
        receive_bytes: fields.next()?.parse().ok()?,
        send_bytes: fields.nth(7)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP6: &str = "  sl  local_address  remote_address  st tx_queue rx_queue tr tm->when \
        retrnsmt   uid  timeout inode\n\
        0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A \
        00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0\n\
        1: 00000000000000000000000001000000:1F91 00000000000000000000000001000000:0001 01 \
        00000000:00000000 00:00000000 00000000 0 0 4712 1 0 100 0 0 10 0\n\
        nonsense\n";

    #[test]
    fn only_sockets_that_listen_are_found() {
        let found = listening(TCP6, "tcp");
        assert_eq!(found, [(4711, "[::]:8080".parse().unwrap())]);
        let v4 = TCP6.replace(&"0".repeat(32), "0100007F");
        let found = listening(&v4, "tcp");
        assert_eq!(found, [(4711, "127.0.0.1:8080".parse().unwrap())]);
        assert_eq!(listening(&TCP6.replace(" 0A ", " 07 "), "udp").len(), 1);
        assert_eq!(address("é"), None);
        assert_eq!(address("0100007é:1F90"), None);
    }

    #[test]
    fn traffic_of_one_interface_is_read() {
        let table = "Inter-| Receive | Transmit\n face |bytes ...\n    lo: 1 2 3 4 5 6 7 8 9 10\n\
            eth0:500 1 0 0 0 0 0 0 700 1 0 0 0 0 0 0\n";
        let expected = Traffic {
            receive_bytes: 500,
            send_bytes: 700,
        };
        assert_eq!(traffic(table, "eth0"), Some(expected));
        assert_eq!(traffic(table, "eth1"), None);
    }
}
