//! What a token of a service account says, and whether what it speaks of is still there.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bearer::TokenError;
use super::user::User;
use crate::api::Api;
use crate::object;
use crate::resource::{NODES, PODS, Resource, SECRETS, SERVICE_ACCOUNTS};

/// The issuer of the tokens that Secrets hold, as upstream names it.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// An object that is being deleted still vouches for its tokens this long after its time.
const DELETED_LEEWAY_S: i64 = 60;
const EXTRA_PREFIX: &str = "authentication.kubernetes.io/";

/// The claims of a token that [`super::token_request`] issues.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub(super) aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<i64>,
    pub(super) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) jti: String,
    #[serde(
        rename = "kubernetes.io",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) bound: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<i64>,
    pub(super) sub: String,
    #[serde(flatten)]
    pub(super) legacy: Legacy,
}

/// The objects that a token lives with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Bound {
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    pub(super) serviceaccount: Reference,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
}

/// The claims of a token that a Secret holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Legacy {
    #[serde(
        rename = "kubernetes.io/serviceaccount/namespace",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) namespace: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/secret.name",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) secret: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) account: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) account_uid: String,
}

/// `aud` is a text or a list of texts.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(all: &[String], to: S) -> Result<S::Ok, S::Error> {
        all.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

impl Claims {
    /// The user, if everything that the token is bound to is there, the same as when it was
    /// issued. `token` is its text, which a Secret must still hold if it came from one.
    pub(super) fn user(&self, api: &Api, token: &str, now: Timestamp) -> Result<User, TokenError> {
        match &self.bound {
            Some(bound) => self.bound_user(bound, api, now),
            None if self.iss == LEGACY_ISSUER => self.legacy_user(api, token, now),
            None => Err(TokenError::Claims),
        }
    }

    fn bound_user(&self, bound: &Bound, api: &Api, now: Timestamp) -> Result<User, TokenError> {
        let Bound {
            namespace,
            node,
            pod,
            secret,
            serviceaccount: account,
        } = bound;
        let within = Some(namespace.as_str());
        let mut user = User::service_account(namespace, &account.name);
        if self.sub != user.name {
            return Err(TokenError::Claims);
        }
        alive(api, &SERVICE_ACCOUNTS, within, account, now)?;
        let mut extra = |key: &str, value: &str| {
            let key = format!("{EXTRA_PREFIX}{key}");
            user.extra.insert(key, vec![value.to_owned()]);
        };
        if !self.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", self.jti));
        }
        if let Some(secret) = secret {
            alive(api, &SECRETS, within, secret, now)?;
        }
        if let Some(pod) = pod {
            alive(api, &PODS, within, pod, now)?;
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = node {
            // The node of a pod is told; a token for a node itself lives with it.
            if pod.is_none() {
                alive(api, &NODES, None, node, now)?;
            }
            extra("node-name", &node.name);
            if !node.uid.is_empty() {
                extra("node-uid", &node.uid);
            }
        }
        user.uid.clone_from(&account.uid);
        Ok(user)
    }

    fn legacy_user(&self, api: &Api, token: &str, now: Timestamp) -> Result<User, TokenError> {
        let Legacy {
            namespace,
            secret,
            account,
            account_uid,
        } = &self.legacy;
        let mut user = User::service_account(namespace, account);
        if self.sub != user.name {
            return Err(TokenError::Claims);
        }
        let reference = Reference {
            name: account.clone(),
            uid: account_uid.clone(),
        };
        alive(api, &SERVICE_ACCOUNTS, Some(namespace), &reference, now)?;
        let gone = || TokenError::Gone {
            what: SECRETS.singular,
        };
        let found = api.read(&SECRETS, Some(namespace), secret);
        let found = found.map_err(|_| gone())?;
        let held = super::data(&found, "token").ok_or_else(gone)?;
        if held != token.as_bytes() {
            return Err(gone());
        }
        user.uid.clone_from(account_uid);
        Ok(user)
    }
}

/// The object is there, is the same, and is not long past its deletion.
fn alive(
    api: &Api,
    resource: &'static Resource,
    namespace: Option<&str>,
    reference: &Reference,
    now: Timestamp,
) -> Result<(), TokenError> {
    let gone = || TokenError::Gone {
        what: resource.singular,
    };
    let found = api.read(resource, namespace, &reference.name);
    let found: Value = found.map_err(|_| gone())?;
    if object::uid(&found) != reference.uid {
        return Err(gone());
    }
    let deleted = object::meta(&found, "deletionTimestamp");
    let deleted = deleted.and_then(|at| at.parse::<Timestamp>().ok());
    match deleted {
        Some(at) if at.as_second() + DELETED_LEEWAY_S < now.as_second() => Err(gone()),
        Some(_) | None => Ok(()),
    }
}
