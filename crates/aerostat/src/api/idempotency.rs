//! `Idempotency-Key`: a creation that may be repeated.
//!
//! What was created keeps two digests, of the key and of the body (`creation_key`, one text), as
//! long as it is known itself: through restarts, and on every host that has heard of it. A request
//! with a known key and the same body is answered with it; with another body it is refused, for
//! somebody has used a key twice. Requests with one key that come at once take turns.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use sha2::{Digest, Sha256};
use types::api::IDEMPOTENCY_KEY_HEADER;

use super::error::ApiError;

/// A UUID has 36.
const KEY_BYTES_MAX: usize = 255;
/// Of each digest that is kept: 128 bits as hexadecimal digits.
const DIGITS: usize = 32;

/// The key of a request, if it has one.
#[derive(Debug, Clone)]
pub(super) struct Key(Option<String>);

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY_HEADER) else {
            return Ok(Self(None));
        };
        let text = value.to_str().map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > KEY_BYTES_MAX {
            return Err(ApiError::bad(format!(
                "{IDEMPOTENCY_KEY_HEADER} must be 1 to {KEY_BYTES_MAX} visible characters"
            )));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl Key {
    /// The digests of this key and `body`.
    pub(super) fn with<T: Serialize>(&self, body: &T) -> Option<CreationKey> {
        let key = self.0.as_deref()?;
        // Bodies are our own types: maps with string keys, in order, and no failing serialisers.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Some(CreationKey(format!(
            "{}{}",
            digits(key.as_bytes()),
            digits(&body)
        )))
    }
}

fn digits(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let digits = digest.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().chars().take(DIGITS).collect()
}

/// What is kept of a key and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CreationKey(pub(super) String);

impl CreationKey {
    /// The part that is the same for every body.
    pub(super) fn key(&self) -> &str {
        self.0.get(..DIGITS).unwrap_or(&self.0)
    }

    /// Whether something with the creation key `known` was created by this request before.
    ///
    /// # Errors
    /// If it was created with this key and another body.
    pub(super) fn has_created(&self, known: Option<&str>) -> Result<bool, ApiError> {
        match known {
            Some(known) if known == self.0 => Ok(true),
            Some(known) if known.get(..DIGITS) == Some(self.key()) => {
                Err(ApiError::IdempotencyKeyReused)
            }
            Some(_) | None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_again_and_a_second_body_is_noticed() {
        let key = |key: &str, body: &str| Key(Some(key.into())).with(&body).unwrap();
        let first = key("a", "one");
        assert_eq!(first.0.len(), 2 * DIGITS);
        assert!(first.has_created(Some(&key("a", "one").0)).unwrap());
        assert!(!first.has_created(Some(&key("b", "one").0)).unwrap());
        assert!(!first.has_created(None).unwrap());
        assert!(first.has_created(Some(&key("a", "two").0)).is_err());
        assert!(!first.has_created(Some("")).unwrap());
        assert_eq!(Key(None).with(&"one"), None);
    }
}
