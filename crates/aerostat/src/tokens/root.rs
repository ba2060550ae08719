//! The fleet's root key: whoever has it makes tokens. It stays in a file of the authority that only
//! root may read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use biscuit_auth::builder::Algorithm;
use biscuit_auth::{Biscuit, KeyPair, PrivateKey};
use sha2::{Digest as _, Sha256};
use types::token::Scope;
use zeroize::Zeroizing;

use super::error::TokenError;
use super::text::{PREFIX, restrictions};
use super::verified::PublicKeyText;
use crate::files::{self, Unusable};

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    #[error("cannot read the key of tokens in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key of tokens to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds no key of tokens; put it back, or remove it to make all tokens void", path.display())]
    Malformed { path: PathBuf },
    #[error("{} may be read by others than its owner; make it mode 0600", path.display())]
    TooOpen { path: PathBuf },
}

/// Makes tokens.
pub struct RootKey {
    pair: KeyPair,
    id: u32,
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl RootKey {
    /// The key in `path`, which is made if there is none.
    ///
    /// # Errors
    /// If the file can be neither read nor made, holds something else, or is open to others.
    pub fn open(path: &Path) -> Result<Self, RootKeyError> {
        let at = || path.to_owned();
        match files::read_private(path) {
            Ok(Some(text)) => {
                let key = PrivateKey::from_bytes_hex(text.trim(), Algorithm::Ed25519);
                let key = key.map_err(|_| RootKeyError::Malformed { path: at() })?;
                Ok(Self::new(KeyPair::from(&key)))
            }
            Ok(None) => {
                let root = Self::generate();
                let written = root.write(path);
                written.map_err(|source| RootKeyError::Write { path: at(), source })?;
                Ok(root)
            }
            Err(Unusable::TooOpen) => Err(RootKeyError::TooOpen { path: at() }),
            Err(Unusable::Unreadable(source)) => Err(RootKeyError::Read { path: at(), source }),
        }
    }

    /// A key that is kept nowhere.
    pub fn generate() -> Self {
        Self::new(KeyPair::new_with_algorithm(Algorithm::Ed25519))
    }

    fn new(pair: KeyPair) -> Self {
        let digest = Sha256::digest(pair.public().to_bytes());
        let id = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Self { pair, id }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = Zeroizing::new(self.pair.private().to_bytes_hex());
        files::write_whole(path, 0o600, text.as_bytes())
    }

    /// Which of the fleet's keys this is. Tokens name it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What every host needs to check tokens of this key.
    pub fn public(&self) -> PublicKeyText {
        PublicKeyText(self.pair.public().to_bytes_hex())
    }

    /// A token. `id` is that of its row in the directory.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn mint(&self, id: &str, name: &str, scope: &Scope) -> Result<String, TokenError> {
        use biscuit_auth::builder::{fact, string};
        if name.len() > NAME_BYTES_MAX {
            let reason = format!("its name is longer than {NAME_BYTES_MAX} bytes");
            return Err(TokenError::Restriction { reason });
        }
        let written = |error: biscuit_auth::error::Token| TokenError::Restriction {
            reason: error.to_string(),
        };
        let builder = Biscuit::builder()
            .root_key_id(self.id)
            .fact(fact("token", &[string(id)]))
            .and_then(|builder| builder.fact(fact("name", &[string(name)])))
            .and_then(|builder| builder.code(restrictions(scope)))
            .map_err(written)?;
        let token = builder
            .build(&self.pair)
            .and_then(|token| token.to_base64());
        Ok(format!("{PREFIX}{}", token.map_err(written)?))
    }
}
