//! Many WireGuard clients that each shake hands once, for `bench/gateway.sh`.
//!
//! `wireguard_clients keys COUNT` prints their public keys; `wireguard_clients shake TARGET
//! PUBLIC_KEY COUNT` has them shake hands with TARGET (IPv4), from addresses of 127.0.0.0/8 so that
//! no source has too many, and prints how many were answered and how long it took in seconds.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotatun::noise::Tunn;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519::{PublicKey, StaticSecret};

/// Clients of one source address.
const PER_SOURCE: usize = 4;
/// Not answered yet; a real gateway's socket would hold more.
const UNDER_WAY_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_millis(500);
/// Below what a gateway works on before it asks everybody for a cookie.
const CLIENTS_PER_S: u32 = 1500;

fn secret(number: usize) -> StaticSecret {
    let mut bytes = [0x5a; 32];
    // Not at either end, of which X25519 does not read every bit.
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

fn public(number: usize) -> net::wireguard::PublicKey {
    net::wireguard::PublicKey(PublicKey::from(&secret(number)).to_bytes())
}

fn initiation(number: usize, to: PublicKey) -> Packet {
    let own = secret(number);
    let limiter = RateLimiter::new(&PublicKey::from(&own), 100);
    let indices = IndexTable::from_os_rng();
    let mut client = Tunn::new(own, to, None, None, indices, Arc::new(limiter));
    let made = client.format_handshake_initiation(true);
    made.map(|message| WgKind::from(message).into())
        .unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["keys", count] => {
            let mut text = String::new();
            for number in 0..count.parse()? {
                text += &format!("{}\n", public(number));
            }
            std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
            Ok(())
        }
        ["shake", target, key, count] => shake(target.parse()?, key.parse()?, count.parse()?),
        _ => Err("keys COUNT | shake TARGET PUBLIC_KEY COUNT".into()),
    }
}

fn shake(
    target: SocketAddr,
    key: net::wireguard::PublicKey,
    count: usize,
) -> Result<(), Box<dyn Error>> {
    let initiations: Vec<Packet> = (0..count)
        .map(|number| initiation(number, key.0.into()))
        .collect();
    let begun = Instant::now();
    let mut answered = 0;
    let mut buffer = [0; 2000];
    let interval = Duration::from_secs(1) / CLIENTS_PER_S * u32::try_from(UNDER_WAY_MAX)?;
    for (number, batch) in initiations.chunks(UNDER_WAY_MAX).enumerate() {
        let due = begun + interval * u32::try_from(number)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut sockets = Vec::new();
        for (source, packets) in batch.chunks(PER_SOURCE).enumerate() {
            let number = u32::try_from(number * UNDER_WAY_MAX / PER_SOURCE + source)?;
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
            let socket = UdpSocket::bind((address, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            for packet in packets {
                socket.send_to(packet.as_ref(), target)?;
            }
            sockets.push((socket, packets.len()));
        }
        for (socket, sent) in sockets {
            for _ in 0..sent {
                // A response is 92 bytes, a cookie 64.
                match socket.recv(&mut buffer) {
                    Ok(92) => answered += 1,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
    let line = format!("{answered} {:.3}\n", begun.elapsed().as_secs_f64());
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    Ok(())
}
