//! Secrets encrypted at rest: what the store keeps of a Secret only a holder of the key can read.
//!
//! ```text
//! Api ──> Vault ── seal with the first key ──> store, backups, etcd
//!     <──       ── open with the key it names ──┘
//! ```
//!
//! A sealed value is `k8s:enc:aerostat:v1:<key id>:`, a nonce of 12 bytes, and the AES-256-GCM
//! ciphertext with its tag. The key of the store is bound into the seal, so that one Secret's
//! value cannot be put in another's place. Plain values (from before there were keys) are read as
//! they are.
//!
//! The key file has a line for each key, `<id> <base64 of 32 bytes>`; the first one seals, all of
//! them open. To change keys: put a new line first ([`Keys::rotate`]), wait until [`reseal`] has
//! rewritten what the others have sealed, take the other lines out. Where several servers share a
//! store, put the new line last at first, so that all of them can open before one seals.

mod keys;
mod reseal;
mod vault;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

pub use keys::{KeyFileError, Keys};
pub use reseal::{Outcome, reseal, run};
pub(crate) use vault::{Vault, Watch};

/// Keys of the store that hold Secrets begin so.
pub(crate) const PREFIX: &str = "/registry/core/secrets/";
const MAGIC: &[u8] = b"k8s:enc:aerostat:v1:";

/// A value that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("it is encrypted, and this server has no keys")]
    NoKeys,
    #[error("key {id:?}, with which it is encrypted, is not in {path}")]
    KeyMissing { id: String, path: PathBuf },
    #[error("the ciphertext has been changed, or belongs to another object")]
    Broken,
    #[error("it is encrypted in a form that this version does not know")]
    Unknown,
}

/// The keys in use; clones share them.
#[derive(Debug, Clone)]
pub struct Secrecy {
    path: Arc<Path>,
    keys: Arc<RwLock<Arc<Keys>>>,
}

impl Secrecy {
    /// Reads the key file, or makes one that only its owner can read.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let keys = Keys::load_or_make(path)?;
        Ok(Self {
            path: path.into(),
            keys: Arc::new(RwLock::new(Arc::new(keys))),
        })
    }

    /// Reads the key file again; true if the keys have changed. On an error the old keys stay.
    pub fn reload(&self) -> Result<bool, KeyFileError> {
        let read = Keys::load(&self.path)?;
        let mut keys = self
            .keys
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let changed = read.ids() != keys.ids();
        if changed {
            *keys = Arc::new(read);
        }
        Ok(changed)
    }

    /// The file with the keys.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids of the keys, the one that seals first.
    pub fn key_ids(&self) -> Vec<String> {
        self.keys().ids().into_iter().map(str::to_owned).collect()
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        keys.clone()
    }

    /// What the store is to keep at `key` for `plain`.
    pub(crate) fn seal(&self, key: &str, plain: Vec<u8>) -> Bytes {
        let keys = self.keys();
        let (id, secret) = keys.first();
        let mut text = plain;
        let nonce = cipher(secret)
            .seal_in_place_append_tag(Aad::from(key.as_bytes()), &mut text)
            .expect("an object is far below the cipher's 64 GiB");
        [MAGIC, id.as_bytes(), b":", nonce.as_ref(), &text]
            .concat()
            .into()
    }

    /// Whether the key that seals now has sealed this value.
    pub(crate) fn is_current(&self, value: &[u8]) -> bool {
        key_id(value) == Some(self.keys().first().0)
    }

    fn unseal(&self, key: &str, value: &[u8]) -> Result<Bytes, OpenError> {
        let id = key_id(value).ok_or(OpenError::Unknown)?;
        let keys = self.keys();
        let secret = keys.get(id).ok_or_else(|| OpenError::KeyMissing {
            id: id.to_owned(),
            path: self.path.to_path_buf(),
        })?;
        let rest = &value[MAGIC.len() + id.len() + 1..];
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Broken)?;
        let mut text = text.to_vec();
        let plain = cipher(secret)
            .open_in_place(nonce, Aad::from(key.as_bytes()), &mut text)
            .map_err(|_| OpenError::Broken)?
            .len();
        text.truncate(plain);
        Ok(text.into())
    }
}

/// The plain value at `key`, whether or not it is sealed.
pub(crate) fn open(
    secrecy: Option<&Secrecy>,
    key: &str,
    value: &Bytes,
) -> Result<Bytes, OpenError> {
    if !is_sealed(value) {
        return Ok(value.clone());
    }
    secrecy.ok_or(OpenError::NoKeys)?.unseal(key, value)
}

/// Whether a value is sealed, in whatever form. Plain objects are JSON and never begin so.
pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(b"k8s:enc:")
}

/// The id of the key that has sealed a value, if it is sealed.
pub(crate) fn key_id(value: &[u8]) -> Option<&str> {
    let rest = value.strip_prefix(MAGIC)?;
    let end = rest
        .iter()
        .take(keys::ID_BYTES_MAX + 1)
        .position(|byte| *byte == b':')?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn cipher(secret: &[u8; keys::KEY_BYTES]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, secret).expect("a key of the cipher's size")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/registry/core/secrets/default/a";

    #[test]
    fn a_sealed_value_opens_in_its_place_only_and_with_its_key_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secrets.keys");
        let secrecy = Secrecy::open(&path).expect("made");
        let sealed = secrecy.seal(PLACE, b"canary".to_vec());
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        let opened = open(Some(&secrecy), PLACE, &sealed).expect("opens");
        assert_eq!(&*opened, b"canary");
        let elsewhere = open(Some(&secrecy), "/registry/core/secrets/default/b", &sealed);
        assert!(matches!(elsewhere, Err(OpenError::Broken)));
        for end in 0..sealed.len() {
            let cut = sealed.slice(..end);
            let opened = open(Some(&secrecy), PLACE, &cut);
            assert!(end < 8 || opened.is_err(), "{end}");
        }
        let other = Secrecy::open(&dir.path().join("other.keys")).expect("made");
        let missing = open(Some(&other), PLACE, &sealed);
        assert!(matches!(missing, Err(OpenError::KeyMissing { .. })));
        assert!(matches!(open(None, PLACE, &sealed), Err(OpenError::NoKeys)));
        let plain = Bytes::from_static(b"{}");
        assert_eq!(open(None, PLACE, &plain).expect("plain"), plain);
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secrets.keys");
        let secrecy = Secrecy::open(&path).expect("made");
        let sealed = secrecy.seal(PLACE, b"canary".to_vec());
        assert!(!secrecy.reload().expect("read"));
        Keys::rotate(&path).expect("rotated");
        assert!(secrecy.is_current(&sealed));
        assert!(secrecy.reload().expect("read"));
        assert!(!secrecy.is_current(&sealed));
        assert_eq!(
            &*open(Some(&secrecy), PLACE, &sealed).expect("opens"),
            b"canary"
        );
        let ids = secrecy.key_ids();
        assert_eq!(Keys::drop_old(&path).expect("written"), 1);
        assert!(secrecy.reload().expect("read"));
        assert_eq!(secrecy.key_ids(), [ids[0].as_str()]);
        let gone = open(Some(&secrecy), PLACE, &sealed);
        assert!(matches!(gone, Err(OpenError::KeyMissing { .. })));
    }
}
