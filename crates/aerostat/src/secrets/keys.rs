//! Root keys: one that seals, and those of before, which still open.
//!
//! As text, one key in a line, 32 bytes in base64 or hexadecimal, the one that seals first. That is
//! what the file holds, what the variable says and what the command prints.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files::{self, Unusable};

/// AES-256 and HKDF take as much.
pub(super) const KEY_BYTES: usize = 32;
/// A key in base64 and a line feed, with room to spare.
const LINE_BYTES_MAX: usize = 64;
/// Keys that still open something.
const KEYS_MAX: usize = 16;

/// Where the root keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// Made if it is not there. Only root may read it.
    File(PathBuf),
    /// Given by the environment, under this name.
    Variable(&'static str),
    /// What this program prints: that of a key service, for example.
    Command(Vec<String>),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key of secrets in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key of secrets to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} may be read by others than its owner; make it mode 0600", path.display())]
    TooOpen { path: PathBuf },
    #[error("{place} holds no keys: each line must be 32 bytes in base64 or hexadecimal")]
    Malformed { place: String },
    #[error("cannot run `{program}`, which is to print the key of secrets")]
    Spawn { program: String, source: io::Error },
    /// What it printed might hold a key, so it is not shown.
    #[error("`{program}`, which is to print the key of secrets, failed: {status}")]
    Failed { program: String, status: String },
    #[error(
        "{place} gives the key of secrets; put the new one there before the old, start again, and repeat this"
    )]
    NotOurs { place: String },
}

/// A key, and what it is called in what it has sealed.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// The key that seals, and all that open.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Key>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_tuple("Keyring").field(&ids).finish()
    }
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        // Names the key and says nothing about it: 64 bits of a digest of 256 random ones.
        let digest = Sha256::digest([b"aerostat key id 1".as_slice(), bytes.as_slice()].concat());
        let id = digest[..8].iter().map(|byte| format!("{byte:02x}"));
        let id = id.collect();
        Self { id, bytes }
    }

    fn generate() -> Self {
        Self::new(Zeroizing::new(rand::random()))
    }
}

impl Keyring {
    /// The keys of `source`. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(source: &KeySource) -> Result<Self, KeyError> {
        match source {
            KeySource::File(path) => Self::of_file(path),
            KeySource::Variable(name) => {
                let text = Zeroizing::new(std::env::var(name).unwrap_or_default());
                Self::parse(&text).ok_or_else(|| malformed(source))
            }
            KeySource::Command(words) => {
                let text = printed(words)?;
                Self::parse(&text).ok_or_else(|| malformed(source))
            }
        }
    }

    fn of_file(path: &Path) -> Result<Self, KeyError> {
        let at = || path.to_owned();
        match files::read_private(path) {
            Ok(Some(text)) => Self::parse(&text).ok_or_else(|| malformed(&KeySource::File(at()))),
            Ok(None) => {
                let made = Self::generate();
                made.write(path)?;
                Ok(made)
            }
            Err(Unusable::TooOpen) => Err(KeyError::TooOpen { path: at() }),
            Err(Unusable::Unreadable(source)) => Err(KeyError::Read { path: at(), source }),
        }
    }

    /// A key that is kept nowhere.
    pub fn generate() -> Self {
        let keys = vec![Key::generate()];
        Self { keys }
    }

    /// Keys in text, the one that seals first; `None` if there is none or one is malformed.
    fn parse(text: &str) -> Option<Self> {
        let words = text.split(|c: char| c.is_whitespace() || c == ',');
        let words = words.filter(|word| !word.is_empty());
        let keys = words.map(|word| decode(word).map(Key::new));
        let keys: Vec<Key> = keys.take(KEYS_MAX).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(Self { keys })
    }

    fn write(&self, path: &Path) -> Result<(), KeyError> {
        let write = || -> io::Result<()> {
            if let Some(folder) = path.parent() {
                files::private_folder(folder)?;
            }
            // As long as it will be: a text that grows leaves copies of keys behind.
            let mut text = Zeroizing::new(String::with_capacity(KEYS_MAX * LINE_BYTES_MAX));
            for key in &self.keys {
                STANDARD.encode_string(key.bytes.as_slice(), &mut text);
                text.push('\n');
            }
            files::write_whole(path, 0o600, text.as_bytes())
        };
        write().map_err(|source| KeyError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// The key that seals.
    pub(super) fn active(&self) -> &Key {
        // There is at least one, by `parse` and `generate`.
        &self.keys[0]
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The same with a new key that seals, kept in `source`. Of a source that is not ours, the
    /// keys are read again: somebody has put a new one there, or has not.
    pub(super) fn rotated(&self, source: &KeySource) -> Result<Self, KeyError> {
        match source {
            KeySource::File(path) => {
                let mut keys = vec![Key::generate()];
                keys.extend(self.keys.iter().take(KEYS_MAX - 1).cloned());
                let next = Self { keys };
                next.write(path)?;
                Ok(next)
            }
            KeySource::Variable(_) | KeySource::Command(_) => {
                let next = Self::load(source)?;
                if next.keys.len() < 2 {
                    return Err(KeyError::NotOurs {
                        place: source.place(),
                    });
                }
                Ok(next)
            }
        }
    }

    /// Only the key that seals, once nothing needs the others.
    pub(super) fn forget_old(&self, source: &KeySource) -> Result<Self, KeyError> {
        let keys = vec![self.active().clone()];
        let next = Self { keys };
        if let KeySource::File(path) = source {
            next.write(path)?;
        }
        Ok(next)
    }
}

impl KeySource {
    fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => format!("the variable {name}"),
            Self::Command(words) => format!("`{}`", words.first().map_or("", String::as_str)),
        }
    }
}

fn malformed(source: &KeySource) -> KeyError {
    KeyError::Malformed {
        place: source.place(),
    }
}

fn decode(word: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = match word.len() {
        64 => {
            let pairs = (0..KEY_BYTES).map(|at| word.get(2 * at..2 * at + 2));
            let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok());
            bytes.collect::<Option<Vec<u8>>>()
        }
        _ => STANDARD.decode(word).ok(),
    };
    let bytes = Zeroizing::new(bytes?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

fn printed(words: &[String]) -> Result<Zeroizing<String>, KeyError> {
    let (program, arguments) = words.split_first().ok_or_else(|| KeyError::Malformed {
        place: "an empty command".into(),
    })?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| KeyError::Spawn {
            program: program.clone(),
            source,
        })?;
    let text = Zeroizing::new(String::from_utf8_lossy(&output.stdout).into_owned());
    if !output.status.success() {
        return Err(KeyError::Failed {
            program: program.clone(),
            status: output.status.to_string(),
        });
    }
    Ok(text)
}
