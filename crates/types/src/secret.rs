//! Secrets of apps, in the JSON of the Machines API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppSecretList {
    pub secrets: Vec<AppSecret>,
}

/// Body of `POST /v1/apps/{app}/secrets`; `null` deletes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateSecrets {
    pub values: BTreeMap<String, Option<String>>,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetSecret {
    pub value: String,
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
