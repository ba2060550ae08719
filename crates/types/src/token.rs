//! Tokens of the Machines API: what they may, in the JSON of requests and answers.
//!
//! A [`Scope`] only ever takes away: an empty list does not restrict, and a token that is made
//! from another one may do what both say.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AppName, MachineId, OrgSlug};

/// What a request does to what it names.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// See apps, machines, services, volumes, logs, and names of secrets.
    Read,
    /// Make, change and remove them; also set secrets, without seeing those that are set.
    Write,
    /// Run commands in machines, attach to them, copy files.
    Exec,
    /// See the values of secrets.
    Secrets,
    /// What is beyond apps: hosts, images, the mesh, WireGuard peers, tokens.
    Admin,
}

impl Verb {
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Exec,
        Self::Secrets,
        Self::Admin,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exec => "exec",
            Self::Secrets => "secrets",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no verb; there are read, write, exec, secrets and admin")]
pub struct UnknownVerb(pub String);

impl FromStr for Verb {
    type Err = UnknownVerb;
    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        let found = Self::ALL.into_iter().find(|verb| verb.as_str() == text);
        found.ok_or_else(|| UnknownVerb(text.chars().take(40).collect()))
    }
}

/// What a token is restricted to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Scope {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orgs: Vec<OrgSlug>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<Verb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Scope {
    /// Whether it restricts nothing.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateToken {
    /// For people.
    pub name: String,
    #[serde(flatten)]
    pub scope: Scope,
    /// Seconds that it is good for, instead of `expires_at`. Neither: 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// A token that was made here. Its text is told once, to whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    #[serde(flatten)]
    pub scope: Scope,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    pub token: String,
    #[serde(flatten)]
    pub details: Token,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenList {
    pub tokens: Vec<Token>,
}

/// Body of `POST /v1/apps/{app}/deploy_token`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateDeployToken {
    /// `8760h`; empty: a year.
    pub expiry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployToken {
    pub token: String,
}

/// Answer of `GET /v1/tokens/current`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentTokens {
    pub tokens: Vec<CurrentToken>,
}

/// A token as Fly's clients see it: one of them for each organisation that it may read in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CurrentToken {
    pub token_id: String,
    /// Name of the organisation.
    pub organization: String,
    pub org_slug: String,
    /// Those it may read, if it may not read all of them.
    pub apps: Vec<String>,
    pub user: String,
    pub source_machine_id: String,
    pub restricted_to_machine: String,
    /// Ours beyond Fly's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<Verb>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Body of `POST /v1/tokens/authenticate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuthenticateTokens {
    /// As in an `Authorization` header.
    pub header: String,
}

/// A token whose signatures, expiry and revocation have been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedToken {
    /// As it can stand in an `Authorization` header.
    pub header: String,
    pub nonce: TokenNonce,
    pub caveats: TokenCaveats,
}

/// Fly's macaroons have such a thing; of ours, the id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenNonce {
    /// Bytes of the token's id.
    pub rnd: Vec<u8>,
    pub kid: Vec<u8>,
    pub proof: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenCaveats {
    pub caveats: Vec<TokenCaveat>,
}

/// What one block of a token restricts, in Datalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenCaveat {
    pub block: usize,
    pub datalog: String,
}

/// Body of `POST /v1/tokens/authorize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuthorizeToken {
    pub header: String,
    pub access: TokenAccess,
}

/// What somebody wants to do, in Fly's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenAccess {
    /// Bits: 1 read, 2 write, 4 create, 8 delete, 16 control; or letters of `rwcdC`.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub action: serde_json::Value,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub org_slug: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// A command to be run in the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(flatten)]
    pub other: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorizedToken {
    pub access: TokenAccess,
    pub verified_token: VerifiedToken,
}
