//! The key file.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use crate::pki;

pub(super) const KEY_BYTES: usize = 32;
pub(super) const ID_BYTES_MAX: usize = 64;
/// Random parts of the ids of keys made here.
const ID_BYTES: usize = 4;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read the keys of Secrets in {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the keys of Secrets")]
    Write { source: pki::PkiError },
    #[error("{path} line {line}: want `<id> <base64 of {KEY_BYTES} bytes>`")]
    Line { path: PathBuf, line: usize },
    #[error("{path} holds no key, and Secrets may be encrypted with one; restore it from a backup")]
    Empty { path: PathBuf },
    #[error("the system gave no random bytes")]
    Random { source: rand::rand_core::OsError },
}

/// The keys of one file, in its order.
pub struct Keys(Vec<(String, Zeroizing<[u8; KEY_BYTES]>)>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.ids()).finish()
    }
}

impl Keys {
    pub(super) fn load_or_make(path: &Path) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::write(path, "")?;
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    pub(super) fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read(path)?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_error = || KeyFileError::Line {
                path: path.to_owned(),
                line: index + 1,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, secret) = line.split_once(' ').ok_or_else(line_error)?;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if id.len() > ID_BYTES_MAX || !id.bytes().all(is_plain) {
                return Err(line_error());
            }
            let secret = BASE64_STANDARD
                .decode(secret.trim())
                .ok()
                .map(Zeroizing::new);
            let secret = secret.and_then(|secret| <[u8; KEY_BYTES]>::try_from(&**secret).ok());
            let secret = Zeroizing::new(secret.ok_or_else(line_error)?);
            keys.push((id.to_owned(), secret));
        }
        if keys.is_empty() {
            let path = path.to_owned();
            return Err(KeyFileError::Empty { path });
        }
        Ok(Self(keys))
    }

    /// Makes a new key and puts it first; returns its id.
    pub fn rotate(path: &Path) -> Result<String, KeyFileError> {
        let text = read(path)?;
        Self::write(path, &text)
    }

    /// Takes every key but the first out of the file; returns how many there were.
    pub fn drop_old(path: &Path) -> Result<usize, KeyFileError> {
        let keys = Self::load(path)?;
        let (id, secret) = keys.first();
        let secret = Zeroizing::new(BASE64_STANDARD.encode(secret));
        let text = Zeroizing::new(format!("{id} {}\n", &*secret));
        pki::write_private(path, &text).map_err(|source| KeyFileError::Write { source })?;
        Ok(keys.0.len() - 1)
    }

    fn write(path: &Path, others: &str) -> Result<String, KeyFileError> {
        let (mut id, mut secret) = ([0; ID_BYTES], Zeroizing::new([0; KEY_BYTES]));
        for bytes in [&mut id[..], &mut secret[..]] {
            let filled = OsRng.try_fill_bytes(bytes);
            filled.map_err(|source| KeyFileError::Random { source })?;
        }
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = Zeroizing::new(BASE64_STANDARD.encode(*secret));
        let text = Zeroizing::new(format!("{id} {}\n{others}", &*secret));
        pki::write_private(path, &text).map_err(|source| KeyFileError::Write { source })?;
        Ok(id)
    }

    pub(super) fn first(&self) -> (&str, &[u8; KEY_BYTES]) {
        let (id, secret) = &self.0[0];
        (id, secret)
    }

    pub(super) fn get(&self, id: &str) -> Option<&[u8; KEY_BYTES]> {
        let found = self.0.iter().find(|(one, _)| one == id);
        found.map(|(_, secret)| &**secret)
    }

    /// The ids, the one that seals first.
    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|(id, _)| id.as_str()).collect()
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Zeroizing::new(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_private_and_what_is_no_key_is_named_by_its_line() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secrets.keys");
        Keys::load_or_make(&path).expect("made");
        let mode = std::fs::metadata(&path).expect("written").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let good = std::fs::read_to_string(&path).expect("read");
        for bad in ["x", "a b c", "id dG9vIHNob3J0", "i:d AAAA"] {
            std::fs::write(&path, format!("# keys\n{good}{bad}\n")).expect("written");
            let error = Keys::load(&path).expect_err(bad);
            assert!(matches!(error, KeyFileError::Line { line: 3, .. }), "{bad}");
        }
        std::fs::write(&path, "\n").expect("written");
        let error = Keys::load_or_make(&path).expect_err("an empty file is not made anew");
        assert!(matches!(error, KeyFileError::Empty { .. }));
    }
}
