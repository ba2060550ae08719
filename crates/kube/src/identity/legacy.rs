//! Secrets of type `kubernetes.io/service-account-token`: filled with a token that has no end, for
//! as long as their service account lives.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Identity, data};
use crate::api::{Api, DeleteOptions, Part, Patch, Selector};
use crate::controllers::informer::{self, Change};
use crate::controllers::queue::{Outcome, Queue};
use crate::object;
use crate::resource::{SECRETS, SERVICE_ACCOUNTS};
use crate::status::Status;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Fills such Secrets, and deletes those of accounts that are gone, until the token is cancelled.
pub async fn run(api: Api, identity: Identity, ca_pem: String, shutdown: CancellationToken) {
    let api = api.as_controller("tokens-controller");
    tokio::select! {
        () = work(&api, &identity, &ca_pem) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn work(api: &Api, identity: &Identity, ca_pem: &str) {
    let of_type = Selector::fields(&SECRETS, &format!("type={TYPE}")).unwrap_or_default();
    let mut secrets = informer::follow(api, &SECRETS, of_type.clone());
    let mut accounts = informer::follow(api, &SERVICE_ACCOUNTS, Selector::default());
    let mut queue = Queue::default();
    loop {
        while let Some(key) = queue.take() {
            let outcome = match ensure(api, identity, ca_pem, &key).await {
                Ok(()) => Outcome::Done,
                Err(status) if status.is_conflict() => Outcome::After(LOOK_AGAIN),
                Err(error) => {
                    warn!(secret = key, %error, "token of a service account not stored");
                    Outcome::Failed
                }
            };
            queue.finish(Instant::now(), &key, outcome);
        }
        let due = queue.advance(Instant::now());
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(change) = secrets.recv() => match change {
                Change::Listed(all) => all.iter().for_each(|secret| queue.add(&key(secret))),
                Change::Changed(secret) => queue.add(&key(&secret)),
                Change::Deleted(_) => {}
            },
            Some(change) = accounts.recv() => {
                let (Change::Changed(account) | Change::Deleted(account)) = change else {
                    continue;
                };
                let namespace = object::namespace(&account);
                let found = api.list(&SECRETS, namespace, &of_type).await;
                let found = found.map(|(secrets, _)| secrets).unwrap_or_default();
                let named = |secret: &&Value| annotation(secret, ACCOUNT) == object::name(&account);
                found.iter().filter(named).for_each(|secret| queue.add(&key(secret)));
            }
            () = timer => {}
        }
    }
}

fn key(secret: &Value) -> String {
    let namespace = object::namespace(secret).unwrap_or_default();
    format!("{namespace}/{}", object::name(secret))
}

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object::text(object, &["metadata", "annotations", key])
}

async fn ensure(api: &Api, identity: &Identity, ca_pem: &str, key: &str) -> Result<(), Status> {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    let within = Some(namespace);
    let secret = match api.get(&SECRETS, within, name).await {
        Ok(secret) if object::is_terminating(&secret) => return Ok(()),
        Ok(secret) => secret,
        Err(status) if status.is_not_found() => return Ok(()),
        Err(status) => return Err(status),
    };
    let uid = annotation(&secret, ACCOUNT_UID);
    let account = match annotation(&secret, ACCOUNT) {
        "" => return Ok(()),
        account => api.get(&SERVICE_ACCOUNTS, within, account).await,
    };
    let account = account
        .ok()
        .filter(|account| uid.is_empty() || uid == object::uid(account));
    let Some(account) = account else {
        let options = DeleteOptions::now().with_uid(object::uid(&secret));
        return match api.delete(&SECRETS, within, name, &options).await {
            Err(status) if !status.is_not_found() => Err(status),
            Ok(_) | Err(_) => Ok(()),
        };
    };
    let held = |key: &str| data(&secret, key).unwrap_or_default();
    let is_whole = held("ca.crt") == ca_pem.as_bytes()
        && held("namespace") == namespace.as_bytes()
        && !held("token").is_empty()
        && !uid.is_empty();
    if is_whole {
        return Ok(());
    }
    let token = match held("token") {
        none if none.is_empty() => {
            let token = identity.legacy_token(namespace, name, &account);
            let token = token.map_err(|error| Status::internal(error.to_string()))?;
            token.into_bytes()
        }
        token => token,
    };
    let patch = Patch::merge(json!({
        "metadata": {
            "annotations": {ACCOUNT_UID: object::uid(&account)},
            "resourceVersion": secret["metadata"]["resourceVersion"],
        },
        "data": {
            "ca.crt": BASE64_STANDARD.encode(ca_pem),
            "namespace": BASE64_STANDARD.encode(namespace),
            "token": BASE64_STANDARD.encode(token),
        },
    }));
    let patched = api
        .patch(&SECRETS, Part::Object, within, name, &patch)
        .await;
    patched.map(drop)
}
