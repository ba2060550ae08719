//! What a handshake initiation says of its sender, before anything is kept for it: its key and its
//! time. Pure; the first part of Noise IK as WireGuard uses it (WireGuard paper, section 5.4.2).
//!
//! ```text
//!  type 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16
//!                      e ──► es ──────► key ──► ss ──► time
//! ```
//!
//! gotatun knows both but tells only the key, and forgets the time of the last initiation together
//! with the peer. Whoever removes peers that may come back has to remember it, or a recorded
//! initiation opens the door again.
//!
//! The order of checks is that of their price to us beside their price to the sender:
//! 1. mac1: one hash, 0.3 µs. Whoever does not know our public key ends here.
//! 2. Too many from one source, or from all: a cookie, so that only who can receive there goes on;
//!    and far too many, nothing (`flood`).
//! 3. `open`: one X25519, some 40 µs, and the sender has paid as much.
//! 4. Only for a key that no peer has, or that is not removed yet, `time`: one more X25519 (kept
//!    for peers, so that for them it is two hashes and an AEAD of 12 bytes).
//! 5. Only then is anything written down or anybody asked.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use blake2::{Blake2s256, Digest as _};
use gotatun::packet::WgHandshakeInit;
use gotatun::x25519;

use super::key::{PrivateKey, PublicKey};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// Of BLAKE2s, as HMAC needs it.
const BLOCK_BYTES: usize = 64;
const TAG_BYTES: usize = 16;

type Hash = [u8; 32];

/// When an initiation was made, by its sender's clock: TAI64N. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub [u8; 12]);

/// The static-static secret of us and a peer.
#[derive(Clone)]
pub(super) struct Shared(Hash);

/// Whom initiations are for.
pub(super) struct Responder {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    chain: Hash,
    hash: Hash,
}

/// An initiation whose sender is known, but not proven: that takes `time`.
pub(super) struct Opened {
    pub(super) sender: PublicKey,
    chain: Hash,
    hash: Hash,
}

impl Responder {
    pub(super) fn new(key: &PrivateKey) -> Self {
        let secret = key.secret();
        let public = x25519::PublicKey::from(&secret);
        let chain = hash(&[CONSTRUCTION]);
        let identity = hash(&[&chain, IDENTIFIER]);
        Self {
            hash: hash(&[&identity, public.as_bytes()]),
            chain,
            secret,
            public,
        }
    }

    pub(super) fn secret(&self) -> &x25519::StaticSecret {
        &self.secret
    }

    pub(super) fn public(&self) -> &x25519::PublicKey {
        &self.public
    }

    /// `None` for a key that has the same secret with everybody: it would prove nothing.
    pub(super) fn shared(&self, key: &PublicKey) -> Option<Shared> {
        let shared = self.secret.diffie_hellman(&key.0.into());
        shared.was_contributory().then(|| Shared(shared.to_bytes()))
    }

    /// Who sent `message`; `None` if it is not for us or not whole.
    pub(super) fn open(&self, message: &WgHandshakeInit) -> Option<Opened> {
        let ephemeral = message.unencrypted_ephemeral;
        let hashed = hash(&[&self.hash, &ephemeral]);
        let chain = hmac(&hmac(&self.chain, &[&ephemeral]), &[&[1]]);
        let shared = self.secret.diffie_hellman(&ephemeral.into());
        let (chain, key) = derive(&chain, shared.as_bytes());
        let sealed = &message.encrypted_static;
        let mut bytes = [0; 32 + TAG_BYTES];
        bytes[..32].copy_from_slice(&sealed.encrypted);
        bytes[32..].copy_from_slice(&sealed.tag);
        let after = hash(&[&hashed, &bytes]);
        let sender = open_sealed(&key, &hashed, &mut bytes)?.try_into().ok()?;
        Some(Opened {
            sender: PublicKey(sender),
            chain,
            hash: after,
        })
    }
}

impl Opened {
    /// When the sender made `message`. `None` if the sender does not have the key that it names.
    pub(super) fn time(&self, message: &WgHandshakeInit, shared: &Shared) -> Option<Timestamp> {
        let (_, key) = derive(&self.chain, &shared.0);
        let mut bytes = [0; 12 + TAG_BYTES];
        bytes[..12].copy_from_slice(&message.timestamp.encrypted);
        bytes[12..].copy_from_slice(&message.timestamp.tag);
        let time = open_sealed(&key, &self.hash, &mut bytes)?.try_into().ok()?;
        Some(Timestamp(time))
    }
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// RFC 2104, over BLAKE2s; not BLAKE2's own keyed mode.
fn hmac(key: &Hash, parts: &[&[u8]]) -> Hash {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        for (padded, key) in block.iter_mut().zip(key) {
            *padded ^= key;
        }
        block
    };
    let mut inner = Blake2s256::new();
    inner.update(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    hash(&[&pad(0x5c), &inner.finalize()])
}

/// The next chaining key, and a key to open something with.
fn derive(chain: &Hash, input: &[u8]) -> (Hash, Hash) {
    let temporary = hmac(chain, &[input]);
    let chain = hmac(&temporary, &[&[1]]);
    let key = hmac(&temporary, &[&chain, &[2]]);
    (chain, key)
}

/// Opens a text that was sealed with a key of its own, hence nonce 0.
fn open_sealed<'a>(key: &Hash, authenticated: &Hash, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let opened = key.open_in_place(nonce, Aad::from(authenticated), sealed);
    opened.ok().map(|text| &*text)
}

#[cfg(test)]
mod tests;
