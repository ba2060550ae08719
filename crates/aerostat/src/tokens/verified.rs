//! A token that the fleet's key has signed, and what it allows.

use std::time::{Duration, SystemTime};

use biscuit_auth::builder::{Algorithm, fact, string};
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits, Biscuit, PublicKey, error};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Access;
use super::error::{Denied, TokenError};
use super::text::{PREFIX, hex, malformed, parse};

/// Bounds of what a token may make us compute. Ours take some dozen facts and less than a
/// millisecond; on a host that is loaded, that millisecond may be a hundred on the clock.
const FACTS_MAX: u64 = 500;
const ITERATIONS_MAX: u64 = 50;
const TIME_MAX: Duration = Duration::from_millis(250);

/// A public key of the fleet, as the directory has it: Ed25519, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKeyText(pub String);

/// A token whose signatures are right. Whether it is revoked is for others to say.
pub struct Verified {
    token: Biscuit,
    id: String,
    name: String,
    revocation_ids: Vec<String>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Verified {
    /// Checks the signatures of `token` with the key that it names.
    ///
    /// # Errors
    /// If it is no token, or not of this fleet.
    pub fn of(token: &str, key: impl Fn(u32) -> Option<PublicKeyText>) -> Result<Self, TokenError> {
        let parsed = parse(token)?;
        let key = parsed.root_key_id().and_then(key);
        let PublicKeyText(key) = key.ok_or(TokenError::UnknownKey)?;
        let key = PublicKey::from_bytes_hex(&key, Algorithm::Ed25519);
        let key = key.map_err(|_| TokenError::UnknownKey)?;
        let token = parsed.verify(key).map_err(|error| match error {
            error::Format::Signature(_) | error::Format::SealedSignature => TokenError::Signature,
            other => malformed(error::Token::Format(other)),
        })?;
        let revocation_ids = token.revocation_identifiers();
        let mut verified = Self {
            id: String::new(),
            name: String::new(),
            revocation_ids: revocation_ids.iter().map(|id| hex(id)).collect(),
            token,
        };
        // Only the maker's block and this program can say these: the others are not looked at.
        verified.id = verified.said("token")?;
        verified.name = verified.said("name")?;
        Ok(verified)
    }

    fn said(&self, what: &str) -> Result<String, TokenError> {
        let authorizer = AuthorizerBuilder::new().build(&self.token);
        let facts = authorizer.and_then(|mut authorizer| {
            let rule = format!("said($text) <- {what}($text)");
            authorizer.query_with_limits::<_, (String,), _>(rule.as_str(), limits())
        });
        let facts = facts.map_err(malformed)?;
        Ok(facts.into_iter().next().unwrap_or_default().0)
    }

    /// The id of its row in the directory.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What its maker called it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id and those of its blocks: if one of them is revoked, it is.
    pub fn revocation_ids(&self) -> impl Iterator<Item = &str> {
        let own = std::iter::once(self.id.as_str()).filter(|id| !id.is_empty());
        own.chain(self.revocation_ids.iter().map(String::as_str))
    }

    /// Datalog of each block.
    pub fn blocks(&self) -> Vec<String> {
        let blocks = (0..self.token.block_count()).map(|at| self.token.print_block_source(at));
        blocks.map(Result::unwrap_or_default).collect()
    }

    /// Its text.
    pub fn text(&self) -> String {
        let text = self.token.to_base64().unwrap_or_default();
        format!("{PREFIX}{text}")
    }

    /// Whether it allows `access` at `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn allow(&self, access: Access<'_>, now: Timestamp) -> Result<(), Denied> {
        let unusable = |error: error::Token| Denied::Unusable {
            reason: error.to_string(),
        };
        let mut authorizer = ambient(access, now)
            .and_then(|builder| builder.build(&self.token))
            .map_err(unusable)?;
        let failed = match authorizer.authorize_with_limits(limits()) {
            Ok(_) => return Ok(()),
            Err(error::Token::FailedLogic(error::Logic::Unauthorized { checks, .. })) => checks,
            Err(error) => return Err(unusable(error)),
        };
        let rules: Vec<String> = failed.iter().map(|check| rule(check).to_owned()).collect();
        match rules.iter().find_map(|rule| expiry(rule)) {
            Some(at) => Err(Denied::Expired { at }),
            None => Err(Denied::Missing {
                wanted: access.to_string(),
                check: rules.into_iter().next().unwrap_or_default(),
            }),
        }
    }
}

impl Verified {
    /// The first moment that one of its checks names as its end.
    pub fn ends_at(&self) -> Option<Timestamp> {
        // Long after any end that a token can name, so that each of these checks fails.
        let authorizer = ambient(Access::Platform, Timestamp::MAX);
        let mut authorizer = authorizer.ok()?.build(&self.token).ok()?;
        let failed = match authorizer.authorize_with_limits(limits()) {
            Err(error::Token::FailedLogic(error::Logic::Unauthorized { checks, .. })) => checks,
            Ok(_) | Err(_) => return None,
        };
        failed.iter().filter_map(|check| expiry(rule(check))).min()
    }
}

fn rule(check: &error::FailedCheck) -> &str {
    match check {
        error::FailedCheck::Block(check) => &check.rule,
        error::FailedCheck::Authorizer(check) => &check.rule,
    }
}

fn limits() -> AuthorizerLimits {
    AuthorizerLimits {
        max_facts: FACTS_MAX,
        max_iterations: ITERATIONS_MAX,
        max_time: TIME_MAX,
    }
}

/// The facts that a request brings along. What a token may is in its checks alone, so beyond them
/// everything is allowed.
fn ambient(access: Access<'_>, now: Timestamp) -> Result<AuthorizerBuilder, error::Token> {
    // Up to a whole second, which is as fine as a check is: what ends at a moment is over then.
    let started = i64::from(now.subsec_nanosecond() > 0);
    let since = Duration::from_secs((now.as_second() + started).try_into().unwrap_or(0));
    let now = SystemTime::UNIX_EPOCH + since;
    let mut builder = AuthorizerBuilder::new()
        .fact(fact("time", &[biscuit_auth::builder::date(&now)]))?
        .policy("allow if true")?;
    match access {
        Access::Platform => builder = builder.fact(fact("scope", &[string("platform")]))?,
        Access::To(target) => {
            builder = builder.fact(fact("verb", &[string(target.verb.as_str())]))?;
            for (name, value) in [
                ("org", target.org),
                ("app", target.app),
                ("machine", target.machine),
            ] {
                if let Some(value) = value {
                    builder = builder.fact(fact(name, &[string(value)]))?;
                }
            }
        }
    }
    Ok(builder)
}

/// The moment in `check if time($time), $time <= 2027-01-01T00:00:00Z`.
fn expiry(rule: &str) -> Option<Timestamp> {
    let (_, at) = rule.strip_prefix("check if time(")?.split_once("<=")?;
    at.trim().trim_end_matches(';').parse().ok()
}
