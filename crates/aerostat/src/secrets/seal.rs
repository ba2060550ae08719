//! Sealing and opening one value: AES-256-GCM under the app's own key. Pure, but for random nonces.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use types::AppName;
use zeroize::Zeroizing;

use super::keys::{KEY_BYTES, Key, Keyring};
use super::value::Secret;
use crate::directory::Sealed;

/// A name becomes a variable of the environment.
pub const NAME_BYTES_MAX: usize = 128;
/// Linux takes no longer string in an environment (`MAX_ARG_STRLEN`), and a name has to fit too.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

const SALT: &[u8] = b"aerostat secrets 1";
/// Half of a digest is more than enough to tell values apart.
const DIGEST_BYTES: usize = 16;

/// A name or value that no secret can have. Does not show the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error(
        "`{name}` cannot be the name of a secret: use up to 128 letters, digits and underscores, beginning with no digit"
    )]
    Name { name: String },
    #[error("the value of secret `{name}` is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong { name: String },
    #[error("the value of secret `{name}` holds a zero byte, which no variable can")]
    ZeroByte { name: String },
}

/// A secret that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("secret `{name}` was sealed with key {key}, which is not here")]
    KeyMissing { name: String, key: String },
    #[error("the ciphertext of secret `{name}` has been changed, or is of another app or name")]
    Broken { name: String },
}

/// Whose secret it is: bound into the seal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) app_id: &'a str,
    pub(super) app: &'a AppName,
}

pub(super) fn check(name: &str, value: Option<&str>) -> Result<(), InvalidSecret> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let word = |b: u8| first(b) || b.is_ascii_digit();
    let is_name = name.bytes().next().is_some_and(first) && name.bytes().all(word);
    if !is_name || name.len() > NAME_BYTES_MAX {
        let name = name.chars().take(80).collect();
        return Err(InvalidSecret::Name { name });
    }
    let name = || name.to_owned();
    match value {
        Some(value) if value.len() > VALUE_BYTES_MAX => {
            Err(InvalidSecret::TooLong { name: name() })
        }
        Some(value) if value.contains('\0') => Err(InvalidSecret::ZeroByte { name: name() }),
        Some(_) | None => Ok(()),
    }
}

/// Seals with the key that seals.
pub(super) fn seal(keys: &Keyring, owner: Owner<'_>, name: &str, value: &Secret) -> Sealed {
    let key = keys.active();
    let mut text = Zeroizing::new(value.expose().as_bytes().to_vec());
    let cipher = cipher(key, owner);
    let nonce = cipher
        .seal_in_place_append_tag(bound(owner, name), &mut *text)
        .expect("a value is far below the cipher's 64 GiB");
    let sealed = [nonce.as_ref().as_slice(), &text].concat();
    Sealed {
        key: key.id.clone(),
        text: STANDARD.encode(sealed),
        digest: digest(key, owner, value),
    }
}

/// Opens with the key that it names.
pub(super) fn open(
    keys: &Keyring,
    owner: Owner<'_>,
    name: &str,
    sealed: &Sealed,
) -> Result<Secret, OpenError> {
    let key = keys
        .find(&sealed.key)
        .ok_or_else(|| OpenError::KeyMissing {
            name: name.to_owned(),
            key: sealed.key.clone(),
        })?;
    let broken = || OpenError::Broken {
        name: name.to_owned(),
    };
    let bytes = STANDARD.decode(&sealed.text).map_err(|_| broken())?;
    let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
    let mut text = Zeroizing::new(rest.to_vec());
    let opened = cipher(key, owner).open_in_place(nonce, bound(owner, name), &mut text);
    let opened = opened.map_err(|_| broken())?;
    let value = String::from_utf8(opened.to_vec()).map_err(|_| broken())?;
    Ok(Secret::new(value))
}

fn bound(owner: Owner<'_>, name: &str) -> Aad<String> {
    // No part can hold a zero byte.
    Aad::from(format!("secret\0{}\0{}\0{name}", owner.app_id, owner.app))
}

fn cipher(key: &Key, owner: Owner<'_>) -> RandomizedNonceKey {
    let bytes = derive(key, "seal", owner);
    RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).expect("the length is the cipher's")
}

/// Keyed: whoever has the digest alone cannot try values.
fn digest(key: &Key, owner: Owner<'_>, value: &Secret) -> String {
    let bytes = derive(key, "digest", owner);
    let key = hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice());
    let tag = hmac::sign(&key, value.expose().as_bytes());
    let half = tag.as_ref().iter().take(DIGEST_BYTES);
    half.map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn derive(key: &Key, purpose: &str, owner: Owner<'_>) -> Zeroizing<[u8; KEY_BYTES]> {
    let root = Salt::new(HKDF_SHA256, SALT).extract(key.bytes.as_slice());
    let info = [purpose.as_bytes(), b"\0", owner.app_id.as_bytes()];
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    root.expand(&info, Length)
        .and_then(|derived| derived.fill(bytes.as_mut_slice()))
        .expect("the length is below HKDF's bound");
    bytes
}
