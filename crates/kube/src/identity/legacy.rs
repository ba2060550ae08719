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

/// Signs the tokens in such Secrets anew that an old key has signed, so that it can go. Returns how
/// many there were.
///
/// # Errors
/// A Secret cannot be read or written: the old keys have to stay.
pub async fn renew(api: &Api, identity: &Identity) -> Result<usize, Status> {
    let api = api.as_controller("tokens-controller");
    let of_type = Selector::fields(&SECRETS, &format!("type={TYPE}")).unwrap_or_default();
    let (secrets, _) = api.list(&SECRETS, None, &of_type).await?;
    let signs = identity.key_ids().into_iter().next();
    let mut renewed = 0;
    for secret in secrets {
        let held = data(&secret, "token").unwrap_or_default();
        if held.is_empty() || key_of(&held) == signs {
            continue;
        }
        let namespace = object::namespace(&secret);
        let account = annotation(&secret, ACCOUNT);
        let account = match api.get(&SERVICE_ACCOUNTS, namespace, account).await {
            Ok(account) => account,
            // The Secret is about to go too.
            Err(status) if status.is_not_found() => continue,
            Err(status) => return Err(status),
        };
        let name = object::name(&secret);
        let token = identity.legacy_token(namespace.unwrap_or_default(), name, &account);
        let token = token.map_err(|error| Status::internal(error.to_string()))?;
        let patch = Patch::merge(json!({"data": {"token": BASE64_STANDARD.encode(token)}}));
        api.patch(&SECRETS, Part::Object, namespace, name, &patch)
            .await?;
        renewed += 1;
    }
    Ok(renewed)
}

/// The id of the key that signed a token.
fn key_of(token: &[u8]) -> Option<String> {
    let token = std::str::from_utf8(token).ok()?;
    jsonwebtoken::decode_header(token).ok()?.kid
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Config, Keys};
    use crate::pki::Pki;

    #[tokio::test]
    async fn a_token_without_end_outlives_the_key_that_signed_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = store::Config::new(dir.path().join("kube.db"));
        let api = Api::new(store::Store::open(&config).expect("a store"));
        api.bootstrap().await.expect("begun");
        let pki = Pki::open(dir.path()).expect("keys");
        let identity = Identity::open(Config::new(dir.path()), &pki).expect("keys");
        let within = Some("default");
        let account = json!({"metadata": {"name": "robot"}});
        api.create(&SERVICE_ACCOUNTS, within, account)
            .await
            .expect("made");
        let secret = json!({"type": TYPE,
            "metadata": {"name": "token", "annotations": {ACCOUNT: "robot"}}});
        api.create(&SECRETS, within, secret).await.expect("made");
        ensure(&api, &identity, "ca", "default/token")
            .await
            .expect("filled");
        assert_eq!(renew(&api, &identity).await, Ok(0));

        Keys::rotate(&identity.0.keys_dir).expect("a key");
        assert!(identity.reload_keys().expect("read"));
        assert_eq!(renew(&api, &identity).await, Ok(1));
        Keys::drop_old(&identity.0.keys_dir).expect("removed");
        assert!(identity.reload_keys().expect("read"));
        let secret = api.get(&SECRETS, within, "token").await.expect("there");
        let token = data(&secret, "token").expect("filled");
        let signs = identity.key_ids().into_iter().next();
        assert_eq!(key_of(&token), signs);
        let token = String::from_utf8(token).expect("text");
        let known = identity.token(&api, &token, &[]).await;
        assert!(known.is_ok(), "{known:?}");
    }
}
