//! From what an administrator chose to what the parts of a control plane are told.

use std::path::Path;

use kube::identity::OidcConfig;
use kube::provider::Taint;
use kube::server::{Audit, AuditConfig, AuditError};
use types::cluster::{ClusterSettings, OidcSettings};

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {reason}")]
pub(crate) struct BadSetting {
    pub(crate) key: &'static str,
    pub(crate) reason: String,
}

/// Whether settings can be used, as far as that can be told without looking at the host.
pub(crate) fn check(settings: &ClusterSettings) -> Result<(), BadSetting> {
    let bad = |key, reason: &str| {
        let reason = reason.to_owned();
        Err(BadSetting { key, reason })
    };
    if let Some(key) = settings.relative_path() {
        return bad(key, "must be an absolute path");
    }
    taints(settings)?;
    let is_url = |url: &String| url.starts_with("https://");
    let issuer = settings.service_account_issuer.as_ref();
    if issuer.is_some_and(|issuer| !is_url(issuer)) {
        return bad("service_account_issuer", "must begin with https://");
    }
    let jwks = settings.service_account_jwks_uri.as_ref();
    if jwks.is_some_and(|uri| !is_url(uri)) {
        return bad("service_account_jwks_uri", "must begin with https://");
    }
    if let Some(oidc) = &settings.oidc {
        if !is_url(&oidc.issuer_url) {
            return bad("oidc.issuer_url", "must begin with https://");
        }
        let own = issuer.map_or(kube::identity::ISSUER, String::as_str);
        if oidc.issuer_url == own {
            let why = "is the issuer of this cluster's own tokens, which are trusted anyhow";
            return bad("oidc.issuer_url", why);
        }
        if oidc.client_id.is_empty() {
            return bad("oidc.client_id", "must not be empty");
        }
        if oidc.username_claim.is_empty() {
            return bad("oidc.username_claim", "must not be empty");
        }
    }
    if settings
        .audit
        .as_ref()
        .is_some_and(|one| one.size_mib_max == 0)
    {
        return bad("audit.size_mib_max", "must be 1 or more");
    }
    Ok(())
}

/// How callers are known, with keys in `pki_dir`.
pub(super) fn identity(settings: &ClusterSettings, pki_dir: &Path) -> kube::identity::Config {
    let own = kube::identity::Config::new(pki_dir);
    kube::identity::Config {
        issuer: settings
            .service_account_issuer
            .clone()
            .unwrap_or(own.issuer),
        audiences: settings.api_audiences.clone(),
        jwks_uri: settings
            .service_account_jwks_uri
            .clone()
            .unwrap_or_default(),
        token_file: settings.token_auth_file.clone(),
        oidc: settings.oidc.as_ref().map(oidc),
        anonymous: settings.anonymous_auth,
        keys_dir: own.keys_dir,
    }
}

fn oidc(settings: &OidcSettings) -> OidcConfig {
    let OidcSettings {
        issuer_url,
        client_id,
        username_claim,
        username_prefix,
        groups_claim,
        groups_prefix,
        required_claims,
        ca_file,
    } = settings.clone();
    OidcConfig {
        issuer_url,
        client_id,
        username_claim,
        username_prefix,
        groups_claim,
        groups_prefix,
        required_claims: required_claims.into_iter().collect(),
        ca_file,
    }
}

/// The audit log, if there is to be one, for a cluster with its files in `dir`.
pub(super) fn audit(settings: &ClusterSettings, dir: &Path) -> Result<Option<Audit>, AuditError> {
    let Some(wanted) = &settings.audit else {
        return Ok(None);
    };
    let path = wanted.path.clone();
    let config = AuditConfig {
        policy_file: wanted.policy_file.clone(),
        size_mib_max: wanted.size_mib_max,
        backups_max: wanted.backups_max,
        ..AuditConfig::new(path.unwrap_or_else(|| dir.join("audit.log")))
    };
    Audit::open(&config).map(Some)
}

/// The taints of the node.
pub(super) fn taints(settings: &ClusterSettings) -> Result<Vec<Taint>, BadSetting> {
    let parsed = settings.node_taints.iter().map(|text| text.parse());
    let parsed: Result<_, kube::provider::InvalidTaint> = parsed.collect();
    parsed.map_err(|error| BadSetting {
        key: "node_taints",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_meant_are_refused_by_name() {
        let fails = |text: &str| {
            let settings: ClusterSettings = toml::from_str(text).unwrap();
            check(&settings).unwrap_err().key
        };
        assert_eq!(check(&ClusterSettings::default()), Ok(()));
        assert_eq!(fails("token_auth_file = \"tokens\""), "token_auth_file");
        assert_eq!(fails("node_taints = [\"a:Never\"]"), "node_taints");
        assert_eq!(
            fails("service_account_issuer = \"http://a\""),
            "service_account_issuer"
        );
        let own = "[oidc]\nissuer_url = \"https://kubernetes.default.svc.cluster.local\"\nclient_id = \"a\"";
        assert_eq!(fails(own), "oidc.issuer_url");
        assert_eq!(
            fails("[oidc]\nissuer_url = \"https://a\"\nclient_id = \"\""),
            "oidc.client_id"
        );
        assert_eq!(fails("[audit]\nsize_mib_max = 0"), "audit.size_mib_max");
    }

    #[test]
    fn an_audit_log_is_beside_the_other_files_unless_it_is_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let none = ClusterSettings::default();
        assert!(audit(&none, dir.path()).unwrap().is_none());
        let settings: ClusterSettings = toml::from_str("[audit]").unwrap();
        assert!(audit(&settings, dir.path()).unwrap().is_some());
        assert!(dir.path().join("audit.log").exists());
    }
}
