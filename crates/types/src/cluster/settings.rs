//! What an administrator may choose about the API server of a cluster. Names are those of the flags
//! of upstream's API server, where it has them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of one cluster. Files are on the host that runs it, and named by absolute paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Further names and addresses by which clients reach the API: its certificate has them.
    pub names: Vec<String>,
    /// Whether requests without credentials are let in as `system:anonymous`.
    pub anonymous_auth: bool,
    /// File of fixed tokens: `token,user,uid,"group,group"` in each line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_auth_file: Option<PathBuf>,
    /// URL in the claim `iss` of service accounts' tokens; others find the keys below it. Unset:
    /// `https://kubernetes.default.svc.cluster.local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_issuer: Option<String>,
    /// Where others fetch the keys of these tokens. Unset: below the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_jwks_uri: Option<String>,
    /// What tokens must be meant for to be good here. Empty: the issuer.
    pub api_audiences: Vec<String>,
    /// Further labels of the node.
    pub node_labels: BTreeMap<String, String>,
    /// Taints of the node, as `key=value:Effect` or `key:Effect`. Unset: none, so that ordinary
    /// charts schedule.
    pub node_taints: Vec<String>,
    /// Unset: there is no audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSettings>,
    /// Unset: no issuer but the cluster's own is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcSettings>,
}

/// Who did what, as lines of `audit.k8s.io/v1 Event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// Unset: `audit.log` beside the cluster's other files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// File with an `audit.k8s.io/v1 Policy`. Unset: the metadata of every request, once it is
    /// done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
    /// The file is put aside when it has this size, in MiB.
    pub size_mib_max: u64,
    /// How many files that were put aside are kept.
    pub backups_max: usize,
}

/// An issuer whose tokens are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// `https://…`, exactly as in the claim `iss`.
    pub issuer_url: String,
    /// What its tokens must be meant for.
    pub client_id: String,
    /// The claim with the user's name.
    #[serde(default = "OidcSettings::username_claim")]
    pub username_claim: String,
    /// Goes before names; `-`: nothing. Empty: the issuer and `#`, unless the claim is `email`.
    #[serde(default)]
    pub username_prefix: String,
    /// The claim with a group, or a list of them. Empty: none.
    #[serde(default)]
    pub groups_claim: String,
    #[serde(default)]
    pub groups_prefix: String,
    /// Claims that must have these values.
    #[serde(default)]
    pub required_claims: BTreeMap<String, String>,
    /// PEM file with the authorities that sign the issuer's own certificate. Unset: those that the
    /// host trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            anonymous_auth: true,
            token_auth_file: None,
            service_account_issuer: None,
            service_account_jwks_uri: None,
            api_audiences: Vec::new(),
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            audit: None,
            oidc: None,
        }
    }
}

impl ClusterSettings {
    /// Whether there is nothing to say about them.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The name of a setting whose path is relative, if there is one: it would be looked for where
    /// the daemon happened to be started.
    pub fn relative_path(&self) -> Option<&'static str> {
        let audit = self.audit.as_ref();
        let paths = [
            ("token_auth_file", self.token_auth_file.as_ref()),
            ("audit.path", audit.and_then(|audit| audit.path.as_ref())),
            (
                "audit.policy_file",
                audit.and_then(|audit| audit.policy_file.as_ref()),
            ),
            (
                "oidc.ca_file",
                self.oidc.as_ref().and_then(|oidc| oidc.ca_file.as_ref()),
            ),
        ];
        let mut relative = paths
            .into_iter()
            .filter(|(_, path)| path.is_some_and(|path| path.is_relative()));
        relative.next().map(|(name, _)| name)
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            path: None,
            policy_file: None,
            size_mib_max: 100,
            backups_max: 10,
        }
    }
}

impl OidcSettings {
    /// Upstream's defaults.
    pub fn new(issuer_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer_url: issuer_url.into(),
            client_id: client_id.into(),
            username_claim: Self::username_claim(),
            username_prefix: String::new(),
            groups_claim: String::new(),
            groups_prefix: String::new(),
            required_claims: BTreeMap::new(),
            ca_file: None,
        }
    }

    fn username_claim() -> String {
        "sub".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_upstream_has_it_and_what_is_misspelt_is_an_error() {
        let settings: ClusterSettings = serde_json::from_str("{}").unwrap();
        assert!(settings.is_default() && settings.anonymous_auth);
        let text = r#"{"audit": {}, "oidc": {"issuer_url": "https://a", "client_id": "b"}}"#;
        let settings: ClusterSettings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.audit, Some(AuditSettings::default()));
        assert_eq!(settings.oidc, Some(OidcSettings::new("https://a", "b")));
        assert_eq!(settings.relative_path(), None);
        let text = r#"{"audit": {"policy_file": "here.yaml"}}"#;
        let settings: ClusterSettings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.relative_path(), Some("audit.policy_file"));
        assert!(serde_json::from_str::<ClusterSettings>(r#"{"audit": {"pathh": "/a"}}"#).is_err());
    }
}
