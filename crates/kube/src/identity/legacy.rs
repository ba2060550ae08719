//! Secrets of type `kubernetes.io/service-account-token`: filled with a token that has no end, for
//! as long as their service account lives.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Identity, data};
use crate::api::{Api, DeleteOptions, Part, Patch, Selector};
use crate::controllers::informer::{self, Change};
use crate::controllers::queue::{self, Outcome, Queue, Worker};
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
    let tokens = Tokens {
        api,
        identity,
        ca_pem,
        secrets: informer::follow(api, &SECRETS, of_type.clone()),
        accounts: informer::follow(api, &SERVICE_ACCOUNTS, Selector::default()),
        of_type,
    };
    queue::work(tokens).await;
}

struct Tokens<'a> {
    api: &'a Api,
    identity: &'a Identity,
    ca_pem: &'a str,
    secrets: mpsc::Receiver<Change>,
    accounts: mpsc::Receiver<Change>,
    /// Secrets that hold tokens.
    of_type: Selector,
}

enum News {
    Secret(Change),
    Account(Change),
}

impl Worker for Tokens<'_> {
    const NAME: &'static str = "tokens";
    const CONFLICT_RETRY: Duration = LOOK_AGAIN;
    type News = News;

    async fn next(&mut self) -> News {
        tokio::select! {
            Some(change) = self.secrets.recv() => News::Secret(change),
            Some(change) = self.accounts.recv() => News::Account(change),
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, news: News, queue: &mut Queue) {
        match news {
            News::Secret(Change::Listed(all)) => {
                all.iter().for_each(|secret| queue.add(&key(secret)));
            }
            News::Secret(Change::Changed(secret)) => queue.add(&key(&secret)),
            News::Secret(Change::Deleted(_)) | News::Account(Change::Listed(_)) => {}
            News::Account(Change::Changed(account) | Change::Deleted(account)) => {
                let namespace = object::namespace(&account);
                let found = self.api.list(&SECRETS, namespace, &self.of_type).await;
                let found = found.map(|(secrets, _)| secrets).unwrap_or_default();
                let named = |secret: &&Value| annotation(secret, ACCOUNT) == object::name(&account);
                let found = found.iter().filter(named);
                found.for_each(|secret| queue.add(&key(secret)));
            }
        }
    }

    async fn sync(&mut self, key: &str) -> Result<Outcome, Status> {
        let ensured = ensure(self.api, self.identity, self.ca_pem, key).await;
        ensured.map(|()| Outcome::Done)
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
