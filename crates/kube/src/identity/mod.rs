//! Who calls: users, and how a request proves to be one's.
//!
//! ```text
//! TLS certificate ──┐                      ┌─ static tokens
//! bearer token ─────┼─> Identity ──> User  ├─ service accounts: signed here, live with objects
//! nothing ──────────┘      │          │    ├─ bootstrap tokens: Secrets in kube-system
//!                          │          │    └─ OIDC: signed by the configured issuer
//!                 invalid: 401        └─> impersonation ─> rbac::Authorizer
//! ```
//!
//! A certificate counts more than a token, as upstream. A token that nobody knows is an error, no
//! token is nobody in particular ([`User::anonymous`]).

mod bearer;
mod bootstrap_token;
mod certificate;
mod claims;
#[doc(hidden)]
pub mod fuzz;
mod impersonation;
mod keys;
mod legacy;
mod oidc;
mod static_tokens;
mod token_request;
mod user;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};

use crate::api::Api;
use crate::pki::{Pki, PkiError};

pub(crate) use certificate::{BadCertificate, Peer};
pub use keys::{KeyError, Keys};
pub use legacy::{renew as renew_token_secrets, run as fill_token_secrets};
pub use oidc::{OidcConfig, OidcError};
pub use static_tokens::TokenFileError;
pub use user::User;

pub(crate) use bearer::TokenError;
pub(crate) use impersonation::impersonation;
pub(crate) use user::{
    ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, service_account_groups, service_account_name,
    service_account_of,
};

/// Who issues the tokens of service accounts, unless it is configured.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How callers are known.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder with the keys that sign tokens of service accounts; those are made if there are
    /// none.
    pub keys_dir: PathBuf,
    /// URL in the claim `iss` of these tokens. Others find the keys below it.
    pub issuer: String,
    /// What tokens must be meant for to be good here, and are unless asked otherwise. Empty: the
    /// issuer.
    pub audiences: Vec<String>,
    /// Where others fetch the public keys; empty: below the issuer.
    pub jwks_uri: String,
    /// Fixed tokens, in upstream's format: `token,user,uid,"group,group"` in each line.
    pub token_file: Option<PathBuf>,
    pub oidc: Option<OidcConfig>,
    /// Whether requests without credentials are let in as `system:anonymous`.
    pub anonymous: bool,
}

impl Config {
    /// Certificates, service accounts and bootstrap tokens; what one cluster needs by itself.
    pub fn new(keys_dir: &Path) -> Self {
        Self {
            keys_dir: keys_dir.to_owned(),
            issuer: ISSUER.to_owned(),
            audiences: Vec::new(),
            jwks_uri: String::new(),
            token_file: None,
            oidc: None,
            anonymous: true,
        }
    }
}

/// Why callers cannot be known as configured.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    #[error(transparent)]
    Oidc(#[from] OidcError),
}

/// Tells who calls, and issues tokens. Clones share keys and caches.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys_dir: PathBuf,
    keys: RwLock<Arc<Keys>>,
    issuer: String,
    audiences: Vec<String>,
    jwks_uri: String,
    static_tokens: static_tokens::StaticTokens,
    oidc: Option<oidc::Oidc>,
    clients: certificate::Clients,
    anonymous: bool,
    verified: bearer::Verified,
}

/// The credentials of a request are not good: 401.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unauthenticated {
    #[error("the client certificate is not good")]
    Certificate,
    #[error("the bearer token is not good")]
    Token(#[source] TokenError),
    #[error("credentials are needed")]
    Missing,
}

impl Identity {
    /// Reads, or makes, what the configuration names.
    pub fn open(config: Config, pki: &Pki) -> Result<Self, IdentityError> {
        let audiences = match config.audiences {
            none if none.is_empty() => vec![config.issuer.clone()],
            some => some,
        };
        let jwks_uri = match config.jwks_uri.as_str() {
            "" => format!("{}/openid/v1/jwks", config.issuer),
            given => given.to_owned(),
        };
        let static_tokens = match &config.token_file {
            Some(path) => static_tokens::StaticTokens::load(path)?,
            None => static_tokens::StaticTokens::default(),
        };
        Ok(Self(Arc::new(Inner {
            keys: RwLock::new(Arc::new(Keys::open(&config.keys_dir)?)),
            keys_dir: config.keys_dir,
            issuer: config.issuer,
            audiences,
            jwks_uri,
            static_tokens,
            oidc: config.oidc.map(oidc::Oidc::new).transpose()?,
            clients: certificate::Clients::new(pki)?,
            anonymous: config.anonymous,
            verified: bearer::Verified::default(),
        })))
    }

    /// Who a connection is by its certificate; `None` without one.
    pub(crate) fn peer(
        &self,
        certificates: &[rustls::pki_types::CertificateDer<'_>],
    ) -> Option<Result<Peer, BadCertificate>> {
        self.0.clients.peer(certificates)
    }

    /// Who sends a request. `now_unix_s` is for the end of certificates.
    pub(crate) async fn authenticate(
        &self,
        api: &Api,
        peer: Option<&Result<Peer, BadCertificate>>,
        headers: &hyper::HeaderMap,
        now_unix_s: i64,
    ) -> Result<User, Unauthenticated> {
        if let Some(Ok(peer)) = peer
            && peer.is_valid(now_unix_s)
        {
            return Ok(peer.user.clone());
        }
        match (bearer::token_of(headers), peer) {
            (Some(token), _) => {
                let verified = self.token(api, &token, &[]).await;
                let (user, _) = verified.map_err(Unauthenticated::Token)?;
                Ok(user)
            }
            (None, Some(_)) => Err(Unauthenticated::Certificate),
            (None, None) if self.0.anonymous => Ok(User::anonymous()),
            (None, None) => Err(Unauthenticated::Missing),
        }
    }

    /// The discovery document of the issuer of service accounts' tokens.
    pub(crate) fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.0.issuer,
            "jwks_uri": self.0.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [keys::ALGORITHM_NAME],
        })
    }

    /// The public keys of that issuer.
    pub(crate) fn jwks(&self) -> Value {
        self.keys().jwks()
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Reads the folder of keys again; true if they are others than before. What is signed from
    /// now on is signed with the newest, and what only a key that is gone has signed is void.
    ///
    /// # Errors
    /// If they cannot be read; those from before stay.
    pub fn reload_keys(&self) -> Result<bool, KeyError> {
        let read = Keys::open(&self.0.keys_dir)?;
        if read.ids() == self.keys().ids() {
            return Ok(false);
        }
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = Arc::new(read);
        drop(keys);
        self.0.verified.clear();
        Ok(true)
    }

    /// Ids of the keys of tokens, the one that signs first.
    pub fn key_ids(&self) -> Vec<String> {
        self.keys().ids().into_iter().map(str::to_owned).collect()
    }
}

/// A value of a Secret.
fn data(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).ok()
}
