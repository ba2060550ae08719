//! Kubernetes clusters, in the JSON of the Machines API.

mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AppName;

pub use settings::{AuditSettings, ClusterSettings, OidcSettings};

/// Characters of a name. With what is put before it, it is the name of an app.
const NAME_LEN_MAX: usize = 40;

/// Name of a cluster: an RFC 1123 label of at most 40 characters.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ClusterName(String);

/// Why something is no name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a cluster: 1 to {NAME_LEN_MAX} of a-z, 0-9 and -, not - at either end"
)]
pub struct InvalidClusterName(String);

impl ClusterName {
    /// The one that a host has without being asked.
    pub fn default_cluster() -> Self {
        Self("default".to_owned())
    }

    pub fn is_default(&self) -> bool {
        self.0 == "default"
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, InvalidClusterName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_good = !text.is_empty()
            && text.len() <= NAME_LEN_MAX
            && text.chars().all(plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClusterName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidClusterName;

    fn try_from(text: String) -> Result<Self, InvalidClusterName> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Kubernetes control plane on this host, with the app whose machines are its pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    pub name: ClusterName,
    pub state: ClusterState,
    /// Why it is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its Kubernetes API, over TLS.
    pub listen: SocketAddr,
    pub app: AppName,
    /// File on the host with the credentials of its administrator.
    pub kubeconfig: String,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    Running,
    /// It could not be started; the next start of the host tries again.
    Failed,
    /// Its pods and its data are being removed.
    Deleting,
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    pub name: ClusterName,
    /// Where its API is to listen. Unset: on loopback, at a port that is free, and the same one
    /// ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "ClusterSettings::is_default")]
    pub settings: ClusterSettings,
}

/// Keys of a cluster that can be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterKeys {
    /// What Secrets are sealed with on the disk.
    Secrets,
    /// What service accounts' tokens are signed with.
    Tokens,
    /// The certificates of the authority, of the server and of the administrator.
    Certificates,
}

/// Why something is no kind of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of secrets, tokens and certificates")]
pub struct UnknownClusterKeys(String);

impl FromStr for ClusterKeys {
    type Err = UnknownClusterKeys;

    fn from_str(text: &str) -> Result<Self, UnknownClusterKeys> {
        match text {
            "secrets" => Ok(Self::Secrets),
            "tokens" => Ok(Self::Tokens),
            "certificates" => Ok(Self::Certificates),
            other => Err(UnknownClusterKeys(other.to_owned())),
        }
    }
}

impl fmt::Display for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secrets => "secrets",
            Self::Tokens => "tokens",
            Self::Certificates => "certificates",
        })
    }
}

/// Asks for new keys of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    pub keys: ClusterKeys,
    /// Makes none, and takes away the old ones instead: what they alone have sealed or signed is
    /// then void.
    #[serde(default)]
    pub drop_old: bool,
}

/// What has been done to the keys of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RotatedKeys {
    pub keys: ClusterKeys,
    /// Ids of the keys that there are now, the one in use first; of certificates, their ends.
    pub ids: Vec<String>,
    /// Secrets that were sealed anew.
    #[serde(default)]
    pub resealed: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterList {
    pub clusters: Vec<Cluster>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["a", "team-1", &"x".repeat(40)] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", &"x".repeat(41)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }
}
