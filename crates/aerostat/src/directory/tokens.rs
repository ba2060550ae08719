//! Join tokens: kept as hashes, good for one key until they expire.

use jiff::{SignedDuration, Timestamp};
use store::Set;
use types::fleet::PublicKeyText;

use super::command::{Decision, Reply};
use super::error::Refused;
use super::rows::{self, JOIN_TOKENS, JoinTokenRow, Rows, put};

/// Invitations that can be open at a time.
const TOKENS_MAX: usize = 1000;
/// For so long, whoever comes with an expired token is told that it has expired.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn create(
    rows: &Rows,
    hash: &[u8; 32],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<Decision, Refused> {
    let mut writes = Vec::new();
    let mut live = 0;
    for (key, value) in rows.all(JOIN_TOKENS) {
        let row: Option<JoinTokenRow> = rows::decode(&key, &value);
        let old = |row: &JoinTokenRow| now.duration_since(row.expires_at) > EXPIRED_KEPT;
        match row {
            Some(row) if !old(&row) => {
                live += usize::from(row.redeemed_by.is_none() && row.expires_at > now);
            }
            Some(_) | None => writes.push(Set::remove(key)),
        }
    }
    if live >= TOKENS_MAX {
        return Err(Refused::TooManyTokens { live });
    }
    let row = JoinTokenRow {
        expires_at,
        redeemed_by: None,
    };
    writes.push(put(rows::join_token_key(hash), &row));
    Ok(Decision::new(Reply::Done, writes))
}

/// The key that has used a token may use it again until it expires: it may not have heard the
/// answer.
pub(super) fn redeem(
    rows: &Rows,
    hash: &[u8; 32],
    public_key: PublicKeyText,
    now: Timestamp,
) -> Result<Decision, Refused> {
    let key = rows::join_token_key(hash);
    let row: Option<JoinTokenRow> = rows.read(&key);
    let row = row.ok_or(Refused::TokenNotFound)?;
    if row.redeemed_by.as_ref().is_some_and(|by| *by != public_key) {
        return Err(Refused::TokenUsed);
    }
    if row.expires_at <= now {
        let expired_at = row.expires_at;
        return Err(Refused::TokenExpired { expired_at });
    }
    if row.redeemed_by.is_some() {
        return Ok(Decision::new(Reply::Done, []));
    }
    let row = JoinTokenRow {
        redeemed_by: Some(public_key),
        ..row
    };
    Ok(Decision::new(Reply::Done, [put(key, &row)]))
}
