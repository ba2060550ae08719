//! Looking at the network from inside a namespace, with sockets of its own.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// The longest that an answer of a neighbour may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `f` on a thread in a network namespace.
///
/// # Panics
/// If there is no such namespace, or `f` panics.
pub fn within<T: Send>(netns: &str, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let path = format!("/run/netns/{netns}");
            let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
            f()
        });
        thread.join().expect("the thread in the namespace")
    })
}

/// Who answers at this address, as the first image tells: the machine's host name.
///
/// # Errors
/// If nobody answers in time.
pub fn who_answers(netns: &str, at: Ipv6Addr, port: u16) -> io::Result<String> {
    who_answers_within(netns, at, port, TIMEOUT)
}

/// [`who_answers`], for those who expect that nobody does.
///
/// # Errors
/// If nobody answers in time.
pub fn who_answers_within(
    netns: &str,
    at: Ipv6Addr,
    port: u16,
    timeout: Duration,
) -> io::Result<String> {
    within(netns, || {
        let to = SocketAddr::V6(SocketAddrV6::new(at, port, 0, 0));
        let mut stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(b"GET /cgi-bin/hostname HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
            Some(_) | None => Err(io::Error::other(answer)),
        }
    })
}

/// The IPv6 addresses of `name`, as `server` knows them; empty for a name that is not there.
///
/// # Errors
/// If no answer comes in time, or one that makes no sense.
pub fn resolve(netns: &str, server: Ipv6Addr, name: &str) -> io::Result<Vec<Ipv6Addr>> {
    within(netns, || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect((server, 53))?;
        socket.send(&question(name))?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        addresses(&answer[..length]).ok_or_else(|| io::Error::other("an answer without sense"))
    })
}

/// RFC 1035: one question for AAAA records.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).expect("a label"));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 28, 0, 1]);
    packet
}

fn addresses(packet: &[u8]) -> Option<Vec<Ipv6Addr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let mut at = skip_name(packet, 12)? + 4;
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if kind == 28 {
            found.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends a name.
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
