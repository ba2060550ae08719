//! Tokens of this host: the fleet's key, where this host has it, and the file with the first token.
//!
//! That token may do everything, like root here, who alone can read it. It is made when there is
//! none, when the one that is there is no longer good (or of the kind before tokens had scopes),
//! and long before it expires. A host that has no key asks the one that has.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};
use types::HostId;
use types::token::{CreateToken, CreatedToken, Scope, Token};

use super::blocking;
use super::fleet::Fleet;
use crate::config::Paths;
use crate::directory;
use crate::drain::Drain;
use crate::files::{private_folder, write_whole};
use crate::rpc::{API_PORT, JSON};
use crate::tokens::{PublicKeyText, RootKey, Verified};

const LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// Shells that have it in their environment keep it for at least so long.
const LEFT_MIN: SignedDuration = SignedDuration::from_hours(24 * 180);
const CHECK_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// Until the fleet's first host can be reached.
const RETRY: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Opens the fleet's key, if this host is to have it, and keeps the token file good. On the
/// authority the file is there when this returns.
pub(super) async fn start(
    paths: &Paths,
    fleet: &Fleet,
    drain: &Drain,
) -> anyhow::Result<Option<Arc<RootKey>>> {
    let root = match fleet.identity.is_authority() {
        true => Some(open(paths, &fleet.directory).await?),
        false => None,
    };
    let keeper = Keeper {
        paths: paths.clone(),
        fleet: fleet.clone(),
        root: root.clone(),
    };
    if root.is_some() {
        keeper.ensure().await?;
    }
    let stop = drain.token();
    drain.spawn("token file", async move {
        stop.run_until_cancelled(keeper.run()).await;
    });
    Ok(root)
}

async fn open(paths: &Paths, directory: &directory::Handle) -> anyhow::Result<Arc<RootKey>> {
    let path = paths.token_root();
    if let Some(folder) = path.parent() {
        private_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let root = blocking(move || RootKey::open(&path)).await?;
    let PublicKeyText(public) = root.public();
    directory.put_token_key(root.id(), public).await?;
    Ok(Arc::new(root))
}

struct Keeper {
    paths: Paths,
    fleet: Fleet,
    root: Option<Arc<RootKey>>,
}

impl Keeper {
    async fn run(self) {
        let mut warned = false;
        loop {
            let pause = match self.ensure().await {
                Ok(()) => CHECK_INTERVAL,
                Err(error) => {
                    if !warned {
                        let error = format!("{error:#}");
                        warn!(error, "there is no token for this host yet; trying on");
                    }
                    warned = true;
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ensure(&self) -> anyhow::Result<()> {
        let path = self.paths.token();
        let now = Timestamp::now();
        let present = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if present.as_ref().is_some_and(|text| self.is_good(text, now)) {
            return Ok(());
        }
        anyhow::ensure!(
            self.fleet.directory.has_token_key(),
            "this host has not heard of the fleet's key of tokens"
        );
        let token = self.make(now).await?;
        write_whole(&path, 0o600, token.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        info!(path = %path.display(), replaced = present.is_some(), "token written");
        Ok(())
    }

    fn is_good(&self, text: &str, now: Timestamp) -> bool {
        let directory = &self.fleet.directory;
        let key = |id| directory.token_key(id).map(PublicKeyText);
        let Ok(token) = Verified::of(text, key) else {
            return false;
        };
        let tokens = directory.api_tokens();
        let row = tokens.iter().find(|row| row.id == token.id());
        row.is_some_and(|row| {
            let lasts = |at: Timestamp| at.duration_since(now) > LEFT_MIN;
            row.revoked_at.is_none() && row.scope.expires_at.is_none_or(lasts)
        })
    }

    async fn make(&self, now: Timestamp) -> anyhow::Result<String> {
        let host = self.fleet.host();
        let name = format!("root of host {}", host.number());
        let scope = Scope {
            expires_at: Some(now + LIFE),
            ..Scope::default()
        };
        let (Some(root), None) = (&self.root, self.fleet.directory.authority()) else {
            let authority = self.fleet.directory.authority().unwrap_or(host);
            return self.ask(authority, name, scope).await;
        };
        let id = ulid::Ulid::new().to_string();
        let text = root.mint(&id, &name, &scope)?;
        let row = Token {
            id,
            name,
            scope,
            created_at: now,
            revoked_at: None,
        };
        self.fleet.directory.create_api_token(row).await?;
        Ok(text)
    }

    async fn ask(&self, authority: HostId, name: String, scope: Scope) -> anyhow::Result<String> {
        let wanted = CreateToken {
            name,
            scope,
            ttl_s: None,
        };
        let request = hyper::Request::post("/v1/tokens")
            .header(hyper::header::HOST, "aerostat")
            .header(hyper::header::CONTENT_TYPE, JSON)
            .body(Full::new(Bytes::from(serde_json::to_vec(&wanted)?)))?;
        let asked = self
            .fleet
            .rpc
            .request(authority, API_PORT, request, ASK_TIMEOUT);
        let response = asked.await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        anyhow::ensure!(
            status.is_success(),
            "host {authority} makes no token: {}",
            String::from_utf8_lossy(&body)
        );
        let made: CreatedToken = serde_json::from_slice(&body)?;
        Ok(made.token)
    }
}
