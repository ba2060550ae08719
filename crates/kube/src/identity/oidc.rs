//! OIDC: tokens that the configured issuer has signed.
//!
//! The issuer's keys are found by its discovery document, fetched with the first token, and again
//! when a token names a key that is not known, at most every ten seconds. Many requests wait for
//! one fetch.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use hyper::{Request, StatusCode, Uri};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::info;

use super::User;
use super::bearer::{LEEWAY_S, TokenError};
use crate::egress::{self, Address, Endpoint, Trust};
use crate::object;

/// An issuer whose tokens are trusted. Fields as upstream's `--oidc-*` flags.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// `https://…`, exactly as in the claim `iss`.
    pub issuer_url: String,
    /// What tokens must be meant for.
    pub client_id: String,
    /// The claim with the user's name.
    pub username_claim: String,
    /// Goes before names; `-`: nothing; empty: the issuer and `#`, unless the claim is `email`.
    pub username_prefix: String,
    /// The claim with a group, or a list of them; empty: none.
    pub groups_claim: String,
    pub groups_prefix: String,
    /// Claims that must have these values.
    pub required_claims: Vec<(String, String)>,
    /// PEM file with the authorities that sign the issuer's own certificate, if they are not those
    /// that this host trusts.
    pub ca_file: Option<PathBuf>,
}

/// Why the issuer's tokens cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("{url} is not a URL that begins with https://")]
    Url { url: String },
    #[error("cannot read the authorities of the OIDC issuer in {path}")]
    Authorities { path: PathBuf, source: io::Error },
    #[error("cannot fetch {url}: {why}")]
    Fetch { url: String, why: String },
    #[error("{url} does not hold what an OIDC issuer publishes")]
    Document { url: String },
}

/// Algorithms with a key pair; a shared secret is not for us.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const FETCH_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Oidc {
    config: OidcConfig,
    egress: egress::Client,
    trust: Trust,
    keys: RwLock<Arc<JwkSet>>,
    /// When the keys were last asked for; held while they are.
    fetched: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Oidc {
    pub(super) fn new(config: OidcConfig) -> Result<Self, OidcError> {
        parts(&config.issuer_url)?;
        let trust = match &config.ca_file {
            None => Trust::System,
            Some(path) => {
                let authorities = std::fs::read(path);
                let authorities = authorities.map_err(|source| OidcError::Authorities {
                    path: path.clone(),
                    source,
                })?;
                Trust::Bundle(authorities.into())
            }
        };
        Ok(Self {
            config,
            egress: egress::Client::default(),
            trust,
            keys: RwLock::new(Arc::new(JwkSet { keys: Vec::new() })),
            fetched: Mutex::new(None),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.config.issuer_url
    }

    /// The keys that may have signed a token with this key id, fetched if there are none.
    async fn candidates(&self, id: Option<&str>) -> Result<Vec<Jwk>, OidcError> {
        let known = self.known(id);
        if !known.is_empty() {
            return Ok(known);
        }
        let mut fetched = self.fetched.lock().await;
        // Somebody may have fetched them while this one waited.
        let known = self.known(id);
        if !known.is_empty() || fetched.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
            return Ok(known);
        }
        *fetched = Some(Instant::now());
        let keys = self.fetch_keys().await?;
        info!(
            issuer = self.config.issuer_url,
            keys = keys.keys.len(),
            "keys of the OIDC issuer"
        );
        *self
            .keys
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(keys);
        Ok(self.known(id))
    }

    fn known(&self, id: Option<&str>) -> Vec<Jwk> {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let is_named = |key: &&Jwk| id.is_none() || key.common.key_id.as_deref() == id;
        keys.keys.iter().filter(is_named).cloned().collect()
    }

    async fn fetch_keys(&self) -> Result<JwkSet, OidcError> {
        let issuer = self.config.issuer_url.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let document = self.fetch(&url).await?;
        if object::text(&document, &["issuer"]) != self.config.issuer_url {
            return Err(OidcError::Document { url });
        }
        let url = object::text(&document, &["jwks_uri"]).to_owned();
        let mut keys = self.fetch(&url).await?;
        // Keys of kinds that we do not know are not for us.
        let keys = keys["keys"].take();
        let keys = keys.as_array().ok_or(OidcError::Document { url })?.iter();
        let keys = keys.filter_map(|key| serde_json::from_value(key.clone()).ok());
        Ok(JwkSet {
            keys: keys.collect(),
        })
    }

    async fn fetch(&self, url: &str) -> Result<Value, OidcError> {
        let failed = |why: String| OidcError::Fetch {
            url: url.to_owned(),
            why,
        };
        let (uri, host, port) = parts(url)?;
        let endpoint = Endpoint {
            address: Address::Host { host, port },
            trust: self.trust.clone(),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).header("accept", "application/json");
        let answer = self.egress.get(&endpoint, request, FETCH_TIMEOUT).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        if answer.code != StatusCode::OK.as_u16() {
            return Err(failed(format!("it answers {}", answer.code)));
        }
        serde_json::from_slice(&answer.body).map_err(|_| OidcError::Document {
            url: url.to_owned(),
        })
    }
}

/// A URL, its host and port.
fn parts(url: &str) -> Result<(Uri, String, u16), OidcError> {
    let wrong = || OidcError::Url {
        url: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong());
    }
    let host = uri.host().ok_or_else(wrong)?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    Ok((uri, host, port))
}

/// The user that a token of this issuer names.
pub(super) async fn user(oidc: &Oidc, token: &str) -> Result<User, TokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(TokenError::Signature)?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(TokenError::Unknown);
    }
    let config = &oidc.config;
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    validation.set_issuer(&[&config.issuer_url]);
    validation.set_audience(&[&config.client_id]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let mut result = Err(TokenError::Unknown);
    for jwk in oidc.candidates(header.kid.as_deref()).await? {
        let Ok(key) = DecodingKey::from_jwk(&jwk) else {
            continue;
        };
        match jsonwebtoken::decode::<Value>(token, &key, &validation) {
            Ok(decoded) => return mapped(config, &decoded.claims),
            Err(error) => result = Err(TokenError::Signature(error)),
        }
    }
    result
}

/// The user that verified claims name. Pure.
fn mapped(config: &OidcConfig, claims: &Value) -> Result<User, TokenError> {
    let claim = |name: &str| claims.get(name);
    let name = claim(&config.username_claim).and_then(Value::as_str);
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or(TokenError::Claims)?;
    let is_email = config.username_claim == "email";
    if is_email && claim("email_verified").is_some_and(|verified| *verified != true) {
        return Err(TokenError::Claims);
    }
    let is = |(name, value): &(String, String)| {
        claim(name).and_then(Value::as_str) == Some(value.as_str())
    };
    if !config.required_claims.iter().all(is) {
        return Err(TokenError::Claims);
    }
    let prefix = match config.username_prefix.as_str() {
        "-" => String::new(),
        "" if is_email => String::new(),
        "" => format!("{}#", config.issuer_url),
        given => given.to_owned(),
    };
    let groups = match claim(&config.groups_claim) {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    };
    let groups = groups
        .iter()
        .map(|group| format!("{}{group}", config.groups_prefix));
    Ok(User::authenticated(
        format!("{prefix}{name}"),
        groups.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> OidcConfig {
        OidcConfig {
            issuer_url: "https://id.example.com".into(),
            client_id: "cluster".into(),
            username_claim: "sub".into(),
            username_prefix: String::new(),
            groups_claim: "groups".into(),
            groups_prefix: "id:".into(),
            required_claims: vec![("team".into(), "a".into())],
            ca_file: None,
        }
    }

    #[test]
    fn claims_become_a_user() {
        let claims = json!({"sub": "7", "groups": ["dev"], "team": "a"});
        let user = mapped(&config(), &claims).expect("a user");
        assert_eq!(user.name, "https://id.example.com#7");
        assert_eq!(user.groups, ["id:dev", "system:authenticated"]);
        assert!(mapped(&config(), &json!({"sub": "7", "team": "b"})).is_err());
        assert!(mapped(&config(), &json!({"team": "a"})).is_err());
        let by_mail = OidcConfig {
            username_claim: "email".into(),
            ..config()
        };
        let mail = |verified: bool| {
            let claims = json!({"email": "a@b.c", "email_verified": verified, "team": "a"});
            mapped(&by_mail, &claims).map(|user| user.name).ok()
        };
        assert_eq!(mail(true).as_deref(), Some("a@b.c"));
        assert_eq!(mail(false), None);
    }
}
