//! Secrets of apps, in the JSON of the Machines API. What holds values does not show them when it
//! is printed for debugging.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppSecret {
    pub name: String,
    /// Only where a token allows it and `show_secrets` asks for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// Tells whether two values are the same, and nothing else about them.
    pub digest: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSecret")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppSecretList {
    pub secrets: Vec<AppSecret>,
    /// Of all of them. Not Fly's.
    #[serde(default)]
    pub version: u64,
}

/// Body of `POST /v1/apps/{app}/secrets`; `null` deletes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateSecrets {
    pub values: BTreeMap<String, Option<String>>,
}

impl fmt::Debug for UpdateSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpdatedSecrets {
    pub secrets: Vec<AppSecret>,
    /// Grows with each change of the app's secrets; `min_secrets_version` names it.
    pub version: u64,
    /// The deprecated spelling, which older clients read.
    #[serde(rename = "Version")]
    pub version_deprecated: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetSecret {
    pub value: String,
}

impl fmt::Debug for SetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSecret").finish_non_exhaustive()
    }
}

/// Answer of `POST /v1/secrets/rotate_key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotatedKey {
    /// Id of the key that everything is sealed with now.
    pub key: String,
    /// Secrets that were sealed anew.
    pub resealed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SetSecretAnswer {
    #[serde(flatten)]
    pub secret: AppSecret,
    pub version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedSecret {
    pub version: u64,
}
