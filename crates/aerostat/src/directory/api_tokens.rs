//! Tokens of the Machines API: the public key that they are checked with, what was made, and what
//! was revoked. Every host has a copy of these rows; the texts of tokens are in none of them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use store::Set;
use types::token::Token;

use super::command::{Decision, Reply};
use super::error::{Error, Refused};
use super::rows::{self, API_TOKENS, REVOCATIONS, Rows, TOKEN_KEYS, put};
use super::{Command, Handle};

/// Tokens that have not expired. Each pull request's pipeline may have one.
const TOKENS_MAX: usize = 10_000;
/// Revocations of single blocks, whose expiry nobody knows.
const REVOCATIONS_MAX: usize = 10_000;
/// For so long an expired token is still listed.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);
/// A block's id is a signature: 64 bytes, in hexadecimal.
const BLOCK_ID_LENGTH: usize = 128;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RevocationRow {
    at: Timestamp,
    /// When the token expires anyway. `None`: never, or nobody knows.
    until: Option<Timestamp>,
}

/// The fleet has one key; the tokens of another are void.
pub(super) fn put_key(rows: &Rows, id: u32, public_key: String) -> Decision {
    let key = rows::token_key_key(id);
    let present = rows.all(TOKEN_KEYS);
    let mut writes: Vec<Set> = Vec::new();
    for (other, _) in &present {
        if **other != *key {
            writes.push(Set::remove(other.to_string()));
        }
    }
    let known: Option<String> = rows.read(&key);
    if known.as_ref() != Some(&public_key) {
        writes.push(put(key, &public_key));
    }
    Decision::new(Reply::Done, writes)
}

pub(super) fn create(rows: &Rows, token: Token) -> Result<Decision, Refused> {
    let now = token.created_at;
    let mut writes = Vec::new();
    let mut live = 0;
    for (key, value) in rows.all(API_TOKENS) {
        let known: Option<Token> = rows::decode(&key, &value);
        let expiry = known.as_ref().and_then(|known| known.scope.expires_at);
        match expiry {
            Some(at) if now.duration_since(at) > EXPIRED_KEPT => {
                writes.push(Set::remove(key.to_string()));
            }
            Some(_) | None => live += 1,
        }
    }
    if live >= TOKENS_MAX {
        return Err(Refused::TooManyApiTokens { live });
    }
    for (key, value) in rows.all(REVOCATIONS) {
        let row: Option<RevocationRow> = rows::decode(&key, &value);
        let over = |until: Timestamp| now.duration_since(until) > EXPIRED_KEPT;
        if row.and_then(|row| row.until).is_some_and(over) {
            writes.push(Set::remove(key.to_string()));
        }
    }
    writes.push(put(rows::api_token_key(&token.id), &token));
    Ok(Decision::new(Reply::Done, writes))
}

/// By the token's id, or by that of one of its blocks.
pub(super) fn revoke(rows: &Rows, id: &str, now: Timestamp) -> Result<Decision, Refused> {
    let key = rows::api_token_key(id);
    let token: Option<Token> = rows.read(&key);
    let missing = || Refused::ApiTokenNotFound {
        id: id.chars().take(BLOCK_ID_LENGTH).collect(),
    };
    let revocation = |until| (rows::revocation_key(id), RevocationRow { at: now, until });
    let Some(token) = token else {
        let is_block = id.len() == BLOCK_ID_LENGTH && id.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_block {
            return Err(missing());
        }
        let live = rows.all(REVOCATIONS).len();
        if live >= REVOCATIONS_MAX {
            return Err(Refused::TooManyApiTokens { live });
        }
        let (key, row) = revocation(None);
        return Ok(Decision::new(Reply::Done, [put(key, &row)]));
    };
    if token.revoked_at.is_some() {
        return Ok(Decision::new(Reply::Done, []));
    }
    let (revocation_key, row) = revocation(token.scope.expires_at);
    let token = Token {
        revoked_at: Some(now),
        ..token
    };
    Ok(Decision::new(
        Reply::Done,
        [put(key, &token), put(revocation_key, &row)],
    ))
}

impl Handle {
    /// The public key with this id, in hexadecimal, as far as it is known here.
    pub fn token_key(&self, id: u32) -> Option<String> {
        self.inner.rows.read(&rows::token_key_key(id))
    }

    /// Whether any key is known here. A host that has just joined has to hear of it.
    pub fn has_token_key(&self) -> bool {
        !self.inner.rows.all(TOKEN_KEYS).is_empty()
    }

    /// Whether a token with one of these ids is revoked, as far as it is known here.
    pub fn is_revoked<'a>(&self, mut ids: impl Iterator<Item = &'a str>) -> bool {
        ids.any(|id| self.inner.rows.has(&rows::revocation_key(id)))
    }

    /// Tokens that were made, by id: the oldest first.
    pub fn api_tokens(&self) -> Vec<Token> {
        self.inner.rows.list(API_TOKENS)
    }

    /// Makes this the key that tokens are checked with. Those of another become void.
    ///
    /// # Errors
    /// If this is not the authority.
    pub async fn put_token_key(&self, id: u32, public_key: String) -> Result<(), Error> {
        self.done(Command::PutTokenKey { id, public_key }).await
    }

    /// Remembers that a token was made.
    ///
    /// # Errors
    /// If this is not the authority, or there are too many.
    pub async fn create_api_token(&self, token: Token) -> Result<(), Error> {
        let token = Box::new(token);
        self.done(Command::CreateApiToken { token }).await
    }

    /// Revokes a token by its id, or everything that was made from a block by the block's.
    ///
    /// # Errors
    /// If this is not the authority, or there is no such token.
    pub async fn revoke_api_token(&self, id: &str, now: Timestamp) -> Result<(), Error> {
        let id = id.to_owned();
        self.done(Command::RevokeApiToken { id, now }).await
    }
}
