//! The token that lets one host in: where the fleet is, how to know it, and a secret.
//!
//! `aero1-` and base64url of: fingerprint (32 bytes), secret (16 bytes), address (text).

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Says what it is and which version, to people and to secret scanners.
const PREFIX: &str = "aero1-";
const FINGERPRINT_BYTES: usize = 32;
/// Guessed never, in an hour of at most 16 connections at a time.
const SECRET_BYTES: usize = 16;
/// The longest address with a scope and a port, and some.
const ADDRESS_BYTES_MAX: usize = 64;

/// Text that is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token: one begins with `{PREFIX}` and is printed by \
     `aerostat host token create`; is it whole?"
)]
pub struct InvalidToken;

/// An invitation. Whoever has the text may join, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Where the fleet lets hosts in.
    pub address: SocketAddr,
    /// Of the fleet: SHA-256 of its authority's certificate.
    pub(super) fingerprint: [u8; FINGERPRINT_BYTES],
    secret: [u8; SECRET_BYTES],
}

impl Token {
    /// A new invitation.
    pub(super) fn generate(address: SocketAddr, fingerprint: [u8; FINGERPRINT_BYTES]) -> Self {
        Self {
            address,
            fingerprint,
            secret: rand::random(),
        }
    }

    /// The fleet that it leads to, in hexadecimal.
    pub fn fleet(&self) -> String {
        hex(&self.fingerprint)
    }

    /// What is told to the fleet, in base64url.
    pub(super) fn secret(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.secret)
    }

    /// What the directory keeps: from it the secret cannot be had.
    pub(super) fn hash(&self) -> [u8; 32] {
        hash_of(&self.secret())
    }
}

/// The hash of a secret as it was told.
pub(super) fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// SHA-256 of a certificate: what a fleet is known by.
pub(super) fn fingerprint(der: &[u8]) -> [u8; FINGERPRINT_BYTES] {
    Sha256::digest(der).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken)?;
        if body.len() > (FINGERPRINT_BYTES + SECRET_BYTES + ADDRESS_BYTES_MAX) * 4 / 3 + 4 {
            return Err(InvalidToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidToken)?;
        let (fingerprint, rest) = bytes.split_first_chunk().ok_or(InvalidToken)?;
        let (secret, address) = rest.split_first_chunk().ok_or(InvalidToken)?;
        let address = str::from_utf8(address).map_err(|_| InvalidToken)?;
        Ok(Self {
            address: address.parse().map_err(|_| InvalidToken)?,
            fingerprint: *fingerprint,
            secret: *secret,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        let bytes = [&self.fingerprint[..], &self.secret, address.as_bytes()].concat();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Shows where it leads, never the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("address", &self.address)
            .field("fleet", &self.fleet())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_what_it_writes_and_nothing_else() {
        for address in ["192.0.2.1:51822", "[2001:db8::1]:51822"] {
            let token = Token::generate(address.parse().unwrap(), [7; 32]);
            let text = token.to_string();
            assert_eq!(text.parse(), Ok(token.clone()));
            assert!(!format!("{token:?}").contains(&token.secret()));
            for cut in 0..text.len() {
                assert_ne!(text[..cut].parse(), Ok(token.clone()));
            }
        }
        let long = format!("{PREFIX}{}", "A".repeat(5000));
        for text in ["", "aero1-", "aero2-AAAA", "secret", &long] {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken));
        }
    }
}
