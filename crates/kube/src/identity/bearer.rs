//! Bearer tokens: whose is it?

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use jsonwebtoken::Validation;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::claims::{Claims, LEGACY_ISSUER};
use super::keys::{ALGORITHM, KeyError};
use super::{Identity, OidcError, User, bootstrap_token, oidc};
use crate::api::Api;
use crate::rbac::quoted;

/// Longer texts are no token of anybody's.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Tokens whose signature is known to be good. The signature is a twentieth of a millisecond; a
/// busy controller sends the same token with every request.
const VERIFIED_MAX: usize = 4096;
/// Clocks may differ by so much.
pub(super) const LEEWAY_S: u64 = 60;
const WEBSOCKET_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Why a token is nobody's, or not for us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("invalid bearer token")]
    Unknown,
    #[error("[invalid bearer token, service account token has expired]")]
    Expired,
    #[error("[invalid bearer token, service account token has been invalidated]")]
    Gone {
        /// What it was bound to.
        what: &'static str,
    },
    #[error(
        "[invalid bearer token, token audiences {have} is invalid for the target audiences {want}]"
    )]
    Audience { have: String, want: String },
    #[error("[invalid bearer token, the claims contradict each other]")]
    Claims,
    #[error("[invalid bearer token, the signature is not good]")]
    Signature(#[source] jsonwebtoken::errors::Error),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(transparent)]
    Sign(#[from] KeyError),
}

/// Claims whose signature has been verified, by digest of the token.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<HashMap<[u8; 32], Claims>>);

impl Verified {
    fn get(&self, digest: &[u8; 32]) -> Option<Claims> {
        self.lock().get(digest).cloned()
    }

    fn put(&self, digest: [u8; 32], claims: &Claims) {
        let mut all = self.lock();
        if all.len() >= VERIFIED_MAX {
            all.clear();
        }
        all.insert(digest, claims.clone());
    }

    /// Every signature is looked at again.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Claims>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The token of a request: in its header or, from browsers, among the subprotocols of a WebSocket.
pub(super) fn token_of(headers: &HeaderMap) -> Option<String> {
    if let Some(text) = headers.get(AUTHORIZATION) {
        let text = text.to_str().ok()?;
        let (scheme, token) = text.trim().split_once(' ')?;
        let token = token.trim().split(' ').next().unwrap_or_default();
        let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
        return is_bearer.then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let protocols = protocols.filter_map(|value| value.to_str().ok());
    let token = protocols
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_PREFIX))?;
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    String::from_utf8(token)
        .ok()
        .filter(|token| !token.is_empty())
}

/// The part of a JWT that tells who signed it, before anything is believed.
#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

impl Identity {
    /// Whose token it is, and for which of `audiences` (empty: this server's) it is meant.
    pub(crate) async fn token(
        &self,
        api: &Api,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Unknown);
        }
        let ours = &self.0.audiences;
        let wanted = if audiences.is_empty() {
            ours
        } else {
            audiences
        };
        // What is not a service account's is meant for this server.
        let here = || intersection(ours, wanted);
        if let Some(user) = self.0.static_tokens.user(token) {
            return Ok((user, here()?));
        }
        if bootstrap_token::is_one(token) {
            let user = bootstrap_token::user(api, token, Timestamp::now());
            return Ok((user.ok_or(TokenError::Unknown)?, here()?));
        }
        let issuer = jsonwebtoken::dangerous::insecure_decode::<Issuer>(token);
        let issuer = issuer.map_err(|_| TokenError::Unknown)?.claims.iss;
        if issuer == self.0.issuer || issuer == LEGACY_ISSUER {
            return self.service_account(api, token, wanted);
        }
        match &self.0.oidc {
            Some(oidc) if oidc.issuer() == issuer => {
                let user = oidc::user(oidc, token).await?;
                Ok((user, here()?))
            }
            Some(_) | None => Err(TokenError::Unknown),
        }
    }

    fn service_account(
        &self,
        api: &Api,
        token: &str,
        wanted: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        let now = Timestamp::now();
        let claims = self.verified(token)?;
        let expired = claims
            .exp
            .is_some_and(|exp| exp.saturating_add_unsigned(LEEWAY_S) < now.as_second());
        if expired {
            return Err(TokenError::Expired);
        }
        let audiences = match claims.iss == LEGACY_ISSUER {
            true => intersection(&self.0.audiences, wanted)?,
            false => intersection(&claims.aud, wanted)?,
        };
        Ok((claims.user(api, token, now)?, audiences))
    }

    /// The claims of a token that one of our keys has signed.
    fn verified(&self, token: &str) -> Result<Claims, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.0.verified.get(&digest) {
            return Ok(claims);
        }
        let header = jsonwebtoken::decode_header(token).map_err(TokenError::Signature)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.leeway = LEEWAY_S;
        // The legacy ones have no end; ours is looked at with each use.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let mut result = Err(TokenError::Unknown);
        let keys = self.keys();
        for key in keys.candidates(header.kid.as_deref()) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => {
                    let claims = decoded.claims;
                    if claims.iss != LEGACY_ISSUER && claims.exp.is_none() {
                        return Err(TokenError::Claims);
                    }
                    self.0.verified.put(digest, &claims);
                    return Ok(claims);
                }
                Err(error) => result = Err(TokenError::Signature(error)),
            }
        }
        result
    }
}

/// Those of `want` that are in `have`, at least one.
fn intersection(have: &[String], want: &[String]) -> Result<Vec<String>, TokenError> {
    let both = want.iter().filter(|one| have.contains(one)).cloned();
    let both: Vec<_> = both.collect();
    if both.is_empty() {
        return Err(TokenError::Audience {
            have: quoted(have),
            want: quoted(want),
        });
    }
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_the_header_or_among_the_subprotocols() {
        let of = |name: hyper::header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            token_of(&headers)
        };
        assert_eq!(of(AUTHORIZATION, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of(AUTHORIZATION, "bearer  abc").as_deref(), Some("abc"));
        assert_eq!(of(AUTHORIZATION, "Basic abc"), None);
        assert_eq!(of(AUTHORIZATION, "Bearer "), None);
        let protocol = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(of(SEC_WEBSOCKET_PROTOCOL, protocol).as_deref(), Some("abc"));
    }
}
