//! `serviceaccounts/<name>/token`: tokens for a time, bound to objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::claims::{Bound, Claims, Legacy, Reference};
use super::keys::KeyError;
use super::{Identity, service_account_name};
use crate::api::Api;
use crate::object;
use crate::resource::{NODES, PODS, Resource, SECRETS, SERVICE_ACCOUNTS, TOKEN_REQUESTS};
use crate::status::{Cause, Status};
use crate::time;

const DEFAULT_S: i64 = 3600;
const MIN_S: i64 = 600;
const MAX_S: i64 = 1 << 32;
/// What the volume of every pod asks for. Such a token is good for a year, or for as long as its
/// pod: clients that read its file once go on, and so does a container that begins again with the
/// file it was made with.
const OF_PODS_S: i64 = 3607;
const EXTENDED_S: i64 = 365 * 24 * 3600;

impl Identity {
    /// Answers a TokenRequest for the service account `name`.
    pub(crate) fn request_token(
        &self,
        api: &Api,
        namespace: &str,
        name: &str,
        request: &Value,
        now: Timestamp,
    ) -> Result<Value, Status> {
        let within = Some(namespace);
        let account = api.read(&SERVICE_ACCOUNTS, within, name)?;
        check_names(namespace, name, request)?;
        let spec = request.get("spec").cloned().unwrap_or_else(|| json!({}));
        let lifetime_s = lifetime(&spec)?;
        let audiences: Vec<_> = object::items(&spec, &["audiences"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let audiences = match audiences {
            none if none.is_empty() => self.0.audiences.clone(),
            some => some,
        };
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: reference(&account),
            ..Bound::default()
        };
        if let Some(to) = spec.get("boundObjectRef").filter(|to| !to.is_null()) {
            bind(api, namespace, name, to, &mut bound)?;
        }
        let now_s = now.as_second();
        let is_ours = audiences.iter().all(|one| self.0.audiences.contains(one));
        let good_s = match &bound.pod {
            Some(_) if lifetime_s == OF_PODS_S && is_ours => EXTENDED_S,
            Some(_) | None => lifetime_s,
        };
        let claims = Claims {
            aud: audiences.clone(),
            exp: Some(now_s + good_s),
            iat: Some(now_s),
            iss: self.0.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            bound: Some(bound),
            nbf: Some(now_s),
            sub: service_account_name(namespace, name),
            legacy: Legacy::default(),
        };
        let token = self.keys().sign(&claims).map_err(unsigned)?;
        let end = Timestamp::from_second(now_s + lifetime_s).unwrap_or(Timestamp::MAX);
        let mut answer = json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name, "namespace": namespace, "creationTimestamp": time::seconds(now),
            },
            "spec": {"audiences": audiences, "expirationSeconds": lifetime_s},
            "status": {"token": token, "expirationTimestamp": time::seconds(end)},
        });
        answer["spec"]["boundObjectRef"] = spec.get("boundObjectRef").cloned().unwrap_or_default();
        Ok(answer)
    }

    /// A token without end for a Secret of type `kubernetes.io/service-account-token`.
    pub(super) fn legacy_token(
        &self,
        namespace: &str,
        secret: &str,
        account: &Value,
    ) -> Result<String, KeyError> {
        let name = object::name(account);
        let claims = Claims {
            aud: Vec::new(),
            exp: None,
            iat: None,
            iss: super::claims::LEGACY_ISSUER.to_owned(),
            jti: String::new(),
            bound: None,
            nbf: None,
            sub: service_account_name(namespace, name),
            legacy: Legacy {
                namespace: namespace.to_owned(),
                secret: secret.to_owned(),
                account: name.to_owned(),
                account_uid: object::uid(account).to_owned(),
            },
        };
        self.keys().sign(&claims)
    }
}

/// What a request says of itself has to fit its address.
fn check_names(namespace: &str, name: &str, request: &Value) -> Result<(), Status> {
    let kind = object::text(request, &["kind"]);
    if !matches!(kind, "" | "TokenRequest") {
        let version = object::text(request, &["apiVersion"]);
        let version = version
            .rsplit_once('/')
            .map_or(version, |(_, version)| version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a TokenRequest: converting \
             ({version}.{kind}) to (authentication.TokenRequest): unknown conversion"
        )));
    }
    let given = object::text(request, &["metadata", "namespace"]);
    if !given.is_empty() && given != namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the \
                   request";
        return Err(Status::bad_request(why));
    }
    let given = object::text(request, &["metadata", "name"]);
    if !given.is_empty() && given != name {
        let why = "must match the service account name if specified";
        let cause = Cause::invalid("metadata.name", &given.into(), why);
        return Err(Status::invalid(&TOKEN_REQUESTS, name, vec![cause]));
    }
    Ok(())
}

fn unsigned(error: KeyError) -> Status {
    tracing::error!(%error, "a token was not signed");
    Status::internal("the token was not signed")
}

fn lifetime(spec: &Value) -> Result<i64, Status> {
    let given = spec
        .get("expirationSeconds")
        .filter(|given| !given.is_null());
    let seconds = given.map_or(Some(DEFAULT_S), Value::as_i64).unwrap_or(0);
    let why = match seconds {
        ..MIN_S => "may not specify a duration less than 10 minutes",
        MIN_S..=MAX_S => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
    Err(Status::invalid(&TOKEN_REQUESTS, "", vec![cause]))
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: object::name(object).to_owned(),
        uid: object::uid(object).to_owned(),
    }
}

/// Binds a token to the object that the request names.
fn bind(
    api: &Api,
    namespace: &str,
    account: &str,
    to: &Value,
    bound: &mut Bound,
) -> Result<(), Status> {
    let field = |name: &str| object::text(to, &[name]);
    let (kind, version, name) = (field("kind"), field("apiVersion"), field("name"));
    let within = Some(namespace);
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let find = |resource: &'static Resource, namespace: Option<&str>| {
        let found = api.read(resource, namespace, name)?;
        let (wanted, uid) = (field("uid"), object::uid(&found));
        if !wanted.is_empty() && wanted != uid {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in \
                 record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(resource, name, &why));
        }
        Ok(found)
    };
    match (version, kind) {
        ("v1", "Pod") => {
            let pod = find(&PODS, within)?;
            if object::text(&pod, &["spec", "serviceAccountName"]) != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with \
                     different serviceaccount name."
                )));
            }
            let node = object::text(&pod, &["spec", "nodeName"]);
            if !node.is_empty() {
                let found = api.read(&NODES, None, node).unwrap_or_default();
                bound.node = Some(Reference {
                    name: node.to_owned(),
                    uid: object::uid(&found).to_owned(),
                });
            }
            bound.pod = Some(reference(&pod));
        }
        ("v1", "Secret") => bound.secret = Some(reference(&find(&SECRETS, within)?)),
        ("v1", "Node") => bound.node = Some(reference(&find(&NODES, None)?)),
        (version, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {}, Kind={kind}",
                match version.contains('/') {
                    true => version.to_owned(),
                    false => format!("/{version}"),
                }
            )));
        }
    }
    Ok(())
}
