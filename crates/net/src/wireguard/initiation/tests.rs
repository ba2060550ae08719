//! Against initiations that gotatun makes, which is what a client would send.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gotatun::noise::Tunn;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::packet::{Packet, WgKind};

use super::*;

fn initiations(from: &PrivateKey, to: PublicKey, count: usize) -> Vec<Packet<WgHandshakeInit>> {
    let limiter = RateLimiter::new(&x25519::PublicKey::from(&from.secret()), 100);
    let mut tunn = Tunn::new(
        from.secret(),
        to.0.into(),
        None,
        None,
        IndexTable::from_os_rng(),
        Arc::new(limiter),
    );
    (0..count)
        .map(|_| tunn.format_handshake_initiation(true).unwrap())
        .collect()
}

fn keys() -> (PrivateKey, PrivateKey) {
    (
        PrivateKey::from_bytes([7; 32]),
        PrivateKey::generate().unwrap(),
    )
}

#[test]
fn sender_and_time_of_a_real_initiation_are_read() {
    let (us, client) = keys();
    let responder = Responder::new(&us);
    let shared = responder.shared(&client.public()).unwrap();
    let mut times = Vec::new();
    for message in initiations(&client, us.public(), 3) {
        let opened = responder.open(&message).unwrap();
        assert_eq!(opened.sender, client.public());
        let theirs = parse_handshake_anon(responder.secret(), responder.public(), &message);
        assert_eq!(theirs.unwrap().peer_static_public, opened.sender.0);
        times.push(opened.time(&message, &shared).unwrap());
    }
    assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
    // TAI64: seconds since 1970 and 2^62, and the 37 that gotatun adds.
    let seconds = u64::from_be_bytes(times[0].0[..8].try_into().unwrap()) - (1 << 62) - 37;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    assert!(now.unwrap().abs_diff(Duration::from_secs(seconds)) < Duration::from_secs(60));
}

#[test]
fn any_changed_bit_of_what_is_sealed_is_noticed() {
    let (us, client) = keys();
    let responder = Responder::new(&us);
    let shared = responder.shared(&client.public()).unwrap();
    let original: Packet = WgKind::from(initiations(&client, us.public(), 1).remove(0)).into();
    // From the ephemeral key up to mac1.
    for at in 8..116 {
        let mut changed = original.as_ref().to_vec();
        changed[at] ^= 4;
        let Ok(WgKind::HandshakeInit(message)) = Packet::copy_from(&changed[..]).try_into_wg()
        else {
            panic!("byte {at} is no part of the frame");
        };
        let time = responder
            .open(&message)
            .and_then(|opened| opened.time(&message, &shared));
        assert_eq!(time, None, "byte {at}");
    }
}

#[test]
fn an_initiation_to_somebody_else_is_not_opened() {
    let (us, client) = keys();
    let message = initiations(&client, us.public(), 1).remove(0);
    let other = Responder::new(&PrivateKey::generate().unwrap());
    assert!(other.open(&message).is_none());
}

#[test]
fn who_names_a_key_of_another_cannot_make_its_time() {
    let (us, client) = keys();
    let responder = Responder::new(&us);
    let message = initiations(&client, us.public(), 1).remove(0);
    let opened = responder.open(&message).unwrap();
    let other = PrivateKey::generate().unwrap().public();
    let shared = responder.shared(&other).unwrap();
    assert_eq!(opened.time(&message, &shared), None);
}

#[test]
fn a_key_of_low_order_shares_nothing() {
    let (us, _) = keys();
    let responder = Responder::new(&us);
    let mut one = [0; 32];
    one[0] = 1;
    for low in [[0; 32], one] {
        assert!(responder.shared(&PublicKey(low)).is_none());
    }
}
