//! The keys that sign tokens of service accounts.
//!
//! A folder may hold several, `service-account-<number>.key`: the highest number signs, all
//! verify. To change keys, make a new one ([`Keys::rotate`]), have the servers read the folder
//! again, and remove the old ones ([`Keys::drop_old`]) when the last token that they signed has
//! ended. ES256, because it signs in a
//! twentieth of the time of RS256 and a key is made at once.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pki::{self, PkiError};

pub(super) const ALGORITHM: Algorithm = Algorithm::ES256;
pub(super) const ALGORITHM_NAME: &str = "ES256";
const PREFIX: &str = "service-account-";
const SUFFIX: &str = ".key";

/// Why tokens cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the keys of service accounts in {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write a key of service accounts")]
    Write { source: PkiError },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot make a key of service accounts")]
    Make { source: rcgen::Error },
    #[error("{path} does not hold an EC P-256 private key in PEM")]
    Parse { path: PathBuf },
    #[error("cannot sign a token")]
    Sign { source: jsonwebtoken::errors::Error },
}

/// The keys of one folder.
pub struct Keys {
    signing: EncodingKey,
    /// The one that signs first.
    verifying: Vec<Verifying>,
}

pub(super) struct Verifying {
    pub(super) id: String,
    pub(super) key: DecodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.verifying.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

impl Keys {
    /// Reads the keys in `dir`, or makes the first.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        let mut numbers = numbers(dir)?;
        if numbers.is_empty() {
            numbers.push(Self::rotate(dir)?);
        }
        let mut keys = Vec::new();
        for number in numbers.iter().rev() {
            keys.push(load(&path(dir, *number))?);
        }
        let mut keys = keys.into_iter();
        let (signing, first) = keys.next().expect("at least the one made above");
        let verifying = std::iter::once(first).chain(keys.map(|(_, verifying)| verifying));
        Ok(Self {
            signing,
            verifying: verifying.collect(),
        })
    }

    /// Makes a key that signs once the folder is read again; returns its number.
    pub fn rotate(dir: &Path) -> Result<u64, KeyError> {
        let number = numbers(dir)?.last().map_or(1, |last| last + 1);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| KeyError::Make { source })?;
        pki::write_private(&path(dir, number), &key.serialize_pem())
            .map_err(|source| KeyError::Write { source })?;
        Ok(number)
    }

    /// Removes every key but the one that signs; returns how many there were.
    pub fn drop_old(dir: &Path) -> Result<usize, KeyError> {
        let mut numbers = numbers(dir)?;
        numbers.pop();
        for number in &numbers {
            let path = path(dir, *number);
            std::fs::remove_file(&path).map_err(|source| KeyError::Remove { path, source })?;
        }
        Ok(numbers.len())
    }

    /// Ids of the keys, the one that signs first.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.verifying.iter().map(|key| key.id.as_str()).collect()
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let header = Header {
            typ: None,
            kid: Some(self.verifying[0].id.clone()),
            ..Header::new(ALGORITHM)
        };
        jsonwebtoken::encode(&header, claims, &self.signing)
            .map_err(|source| KeyError::Sign { source })
    }

    /// The keys that may have signed a token with this key id: the one, or all if it is unknown.
    pub(super) fn candidates(&self, id: Option<&str>) -> Vec<&Verifying> {
        let is_named = |key: &&Verifying| Some(key.id.as_str()) == id;
        match self.verifying.iter().find(is_named) {
            Some(key) => vec![key],
            None => self.verifying.iter().collect(),
        }
    }

    pub(super) fn jwks(&self) -> Value {
        let keys: Vec<_> = self.verifying.iter().map(|key| &key.jwk).collect();
        json!({"keys": keys})
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number}{SUFFIX}"))
}

/// The numbers of the keys in a folder, in order.
fn numbers(dir: &Path) -> Result<Vec<u64>, KeyError> {
    let read = |source| KeyError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let number = number.and_then(|name| name.strip_suffix(SUFFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn load(path: &Path) -> Result<(EncodingKey, Verifying), KeyError> {
    let parse = || KeyError::Parse {
        path: path.to_owned(),
    };
    let pem = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    let pair = KeyPair::from_pem(&pem).map_err(|_| parse())?;
    if !pair.is_compatible(&PKCS_ECDSA_P256_SHA256) {
        return Err(parse());
    }
    let signing = EncodingKey::from_ec_der(pair.serialized_der());
    let mut jwk = Jwk::from_encoding_key(&signing, ALGORITHM).map_err(|_| parse())?;
    // As upstream derives it: the digest of the public key.
    let digest = Sha256::digest(pair.subject_public_key_info());
    let id = BASE64_URL_SAFE_NO_PAD.encode(digest);
    jwk.common.key_id = Some(id.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| parse())?;
    Ok((signing, Verifying { id, key, jwk }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_key_signs_and_the_old_ones_are_still_published() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Keys::open(dir.path()).expect("made");
        let again = Keys::open(dir.path()).expect("read");
        assert_eq!(first.jwks(), again.jwks());
        let mode = std::fs::metadata(path(dir.path(), 1))
            .expect("written")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(Keys::rotate(dir.path()).expect("made"), 2);
        let both = Keys::open(dir.path()).expect("read");
        let jwks = both.jwks();
        let keys = jwks["keys"].as_array().expect("a list");
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[1], first.jwks()["keys"][0]);
        for field in ["kid", "x", "y"] {
            assert!(keys[0][field].is_string(), "{}", keys[0]);
        }
        assert_eq!(
            (&keys[0]["alg"], &keys[0]["use"]),
            (&json!("ES256"), &json!("sig"))
        );
        assert!(keys[0].get("d").is_none(), "{}", keys[0]);
        assert_eq!(Keys::drop_old(dir.path()).expect("removed"), 1);
        let last = Keys::open(dir.path()).expect("read");
        assert_eq!(last.ids(), [both.ids()[0]]);
    }
}
