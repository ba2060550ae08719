//! Tokens as text: what one says, and a narrower one made from it. Needs no key.

use std::fmt::Write as _;

use biscuit_auth::{BlockBuilder, UnverifiedBiscuit, error};
use jiff::Timestamp;
use types::token::Scope;

use super::error::TokenError;

/// Every token begins with this, so that scanners find one that was published by mistake.
pub(super) const PREFIX: &str = "aero_";
/// A token with a dozen apps and a few blocks has less than 2 KiB; a request's head, 64.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;
pub(super) const BLOCKS_MAX: usize = 16;
/// Holds where nothing is asked for but a valid token. Every check of a scope has it as its other
/// way out; that of time has not.
pub(super) const PLATFORM: &str = r#"scope("platform")"#;

/// What a token says, whether or not it is true.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inspected {
    /// Datalog of each block; the first is the maker's.
    pub blocks: Vec<String>,
    /// With each of these, everything from that block on can be revoked.
    pub revocation_ids: Vec<String>,
    /// The fleet's key that it names.
    pub key: Option<u32>,
}

/// Reads a token without checking it.
///
/// # Errors
/// If it is none.
pub fn inspect(token: &str) -> Result<Inspected, TokenError> {
    let token = parse(token)?;
    let ids = token.revocation_identifiers();
    let blocks = (0..token.block_count()).map(|index| token.print_block_source(index));
    let blocks: Result<_, _> = blocks.collect();
    Ok(Inspected {
        blocks: blocks.map_err(malformed)?,
        revocation_ids: ids.iter().map(|id| hex(id)).collect(),
        key: token.root_key_id(),
    })
}

/// The token, restricted to `scope` as well.
///
/// # Errors
/// If it is none, or sealed.
pub fn attenuate(token: &str, scope: &Scope) -> Result<String, TokenError> {
    let token = parse(token)?;
    if token.block_count() >= BLOCKS_MAX {
        let blocks_max = BLOCKS_MAX;
        return Err(TokenError::TooManyBlocks { blocks_max });
    }
    let block = BlockBuilder::new().code(restrictions(scope));
    let block = block.map_err(|error| TokenError::Restriction {
        reason: error.to_string(),
    })?;
    let narrower = token.append(block).and_then(|token| token.to_base64());
    match narrower {
        Ok(text) => Ok(format!("{PREFIX}{text}")),
        Err(error::Token::AppendOnSealed) => Err(TokenError::Sealed),
        Err(error) => Err(malformed(error)),
    }
}

/// Text to blocks, within bounds.
pub(super) fn parse(token: &str) -> Result<UnverifiedBiscuit, TokenError> {
    let token = token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        let bytes_max = TOKEN_BYTES_MAX;
        return Err(TokenError::TooLong { bytes_max });
    }
    let body = token.strip_prefix(PREFIX).unwrap_or(token);
    if body.is_empty() {
        let reason = "it is empty".to_owned();
        return Err(TokenError::Malformed { reason });
    }
    let parsed = UnverifiedBiscuit::from_base64(body).map_err(malformed)?;
    if parsed.block_count() > BLOCKS_MAX {
        let blocks_max = BLOCKS_MAX;
        return Err(TokenError::TooManyBlocks { blocks_max });
    }
    Ok(parsed)
}

pub(super) fn malformed(error: error::Token) -> TokenError {
    // The crate's text may quote the token.
    let reason = match error {
        error::Token::Base64(_) => "it is not base64",
        error::Token::Format(_) => "it is not a biscuit of this version",
        _ => "it cannot be read",
    };
    TokenError::Malformed {
        reason: reason.to_owned(),
    }
}

/// The checks of a scope. Names are of alphabets that need no quoting in Datalog.
pub(super) fn restrictions(scope: &Scope) -> String {
    let mut code = String::new();
    let mut one_of = |fact: &str, names: Vec<&str>| {
        if names.is_empty() {
            return;
        }
        let ways = names.iter().map(|name| format!("{fact}(\"{name}\") or "));
        let ways: String = ways.collect();
        let _ = writeln!(code, "check if {ways}{PLATFORM};");
    };
    one_of("org", scope.orgs.iter().map(|org| org.as_str()).collect());
    one_of("app", scope.apps.iter().map(|app| app.as_str()).collect());
    let machines = scope.machines.iter().map(|machine| machine.as_str());
    one_of("machine", machines.collect());
    one_of(
        "verb",
        scope.verbs.iter().map(|verb| verb.as_str()).collect(),
    );
    if let Some(at) = scope.expires_at {
        let _ = writeln!(
            code,
            "check if time($time), $time <= {};",
            whole_seconds(at)
        );
    }
    code
}

/// Datalog's dates are in seconds.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
