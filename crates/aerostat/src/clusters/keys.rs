//! Keys and certificates of a cluster that runs: made anew when somebody asks, and by themselves
//! before they end.
//!
//! ```text
//!   secrets       a new key seals, all Secrets are written again    the old one opens history
//!   tokens        a new key signs                                   the old ones verify
//!   certificates  authority (same key), server, administrator       the old ones are good until they end
//! ```
//!
//! What is old goes when somebody says so: only they know whether a token or a backup still counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::identity::Identity;
use kube::pki::{Pki, PkiError, Serving};
use kube::secrecy::Secrecy;
use store::Store;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::cluster::{ClusterKeys, RotateKeys, RotatedKeys};

use super::ClusterError;

/// How often ends of certificates are looked at; they are renewed months before.
const LOOK_EVERY: Duration = Duration::from_hours(12);
/// How often the folder of keys is looked at, for those that somebody put there by hand.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// What of a cluster can be made anew while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    pub(super) pki_dir: PathBuf,
    /// The administrator's kubeconfig, and the server that it names.
    pub(super) kubeconfig: PathBuf,
    pub(super) server: String,
    pub(super) pki: Arc<Pki>,
    pub(super) serving: Serving,
    pub(super) identity: Identity,
    pub(super) secrecy: Secrecy,
    pub(super) store: Store,
    pub(super) api: kube::api::Api,
    /// Whether others, with folders of keys of their own, may use the same state.
    pub(super) is_shared: bool,
}

impl Keyring {
    /// Does what is asked; what is sealed or signed from then on is with the new key.
    pub(super) async fn rotate(&self, wanted: &RotateKeys) -> Result<RotatedKeys, ClusterError> {
        let keys = wanted.keys;
        let (ids, resealed) = match (keys, wanted.drop_old) {
            (ClusterKeys::Secrets, drop_old) => self.secrets(drop_old).await?,
            (ClusterKeys::Tokens, drop_old) => self.tokens(drop_old).await?,
            (ClusterKeys::Certificates, false) => (self.certificates()?, 0),
            (ClusterKeys::Certificates, true) => {
                let why = "old certificates are good until they end";
                return Err(ClusterError::KeysStay { why });
            }
        };
        info!(%keys, drop_old = wanted.drop_old, in_use = ?ids.first(), "keys of a cluster changed");
        Ok(RotatedKeys {
            keys,
            ids,
            resealed,
        })
    }

    async fn secrets(&self, drop_old: bool) -> Result<(Vec<String>, usize), ClusterError> {
        if self.is_shared {
            let why = "the state is in an etcd, which other servers may share: put the new key into \
                       the file secrets.keys of each, last, and move it up when all have read it";
            return Err(ClusterError::KeysStay { why });
        }
        let path = self.secrecy.path();
        if !drop_old {
            kube::secrecy::Keys::rotate(path).map_err(failed)?;
            self.secrecy.reload().map_err(failed)?;
        }
        // Those that somebody writes meanwhile are sealed by that.
        let outcome = kube::secrecy::reseal(&self.store, &self.secrecy).await;
        let outcome = outcome.map_err(failed)?;
        if outcome.failed > 0 {
            let why = "some Secrets could not be sealed anew, see the log; the old keys stay";
            return Err(ClusterError::KeysStay { why });
        }
        if drop_old {
            kube::secrecy::Keys::drop_old(path).map_err(failed)?;
            self.secrecy.reload().map_err(failed)?;
        }
        Ok((self.secrecy.key_ids(), outcome.resealed))
    }

    async fn tokens(&self, drop_old: bool) -> Result<(Vec<String>, usize), ClusterError> {
        let mut renewed = 0;
        if drop_old {
            // Tokens in Secrets have no end, and nobody would ask for new ones.
            let outcome = kube::identity::renew_token_secrets(&self.api, &self.identity).await;
            renewed = outcome.map_err(failed)?;
            kube::identity::Keys::drop_old(&self.pki_dir).map_err(failed)?;
        } else {
            kube::identity::Keys::rotate(&self.pki_dir).map_err(failed)?;
        }
        self.identity.reload_keys().map_err(failed)?;
        Ok((self.identity.key_ids(), renewed))
    }

    /// Ends of the new certificates: authority, server, administrator.
    fn certificates(&self) -> Result<Vec<String>, ClusterError> {
        let authority = self.pki.renew_authority().map_err(failed)?;
        self.serving.renew(&self.pki).map_err(failed)?;
        let admin = self.pki.renew_admin().map_err(failed)?;
        self.write_kubeconfig(&authority, &admin).map_err(failed)?;
        let ends = [
            ("authority", kube::pki::ends_at(&authority)),
            ("server", self.serving.ends_at()),
            ("administrator", kube::pki::ends_at(&admin.certificate_pem)),
        ];
        let ends = ends.into_iter().map(|(whose, end)| {
            let end = end.map_or_else(String::new, |end| end.strftime("%Y-%m-%d").to_string());
            format!("{whose} until {end}")
        });
        Ok(ends.collect())
    }

    fn write_kubeconfig(
        &self,
        authority_pem: &str,
        admin: &kube::pki::Credentials,
    ) -> Result<(), PkiError> {
        let text = kube::pki::kubeconfig(&self.server, authority_pem, admin);
        kube::pki::write_private(&self.kubeconfig, &text)
    }

    /// Renews certificates before they end and takes up keys that were put into the folder, until
    /// the token is cancelled.
    pub(super) async fn keep(self, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut reload = tokio::time::interval(RELOAD_EVERY);
        loop {
            tokio::select! {
                _ = look.tick() => self.renew_what_is_due(Timestamp::now()),
                _ = reload.tick() => match self.identity.reload_keys() {
                    Ok(true) => info!("keys of tokens read again"),
                    Ok(false) => {}
                    Err(error) => warn!(error = %types::chain(&error), "keys of tokens not read"),
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn renew_what_is_due(&self, now: Timestamp) {
        if self.serving.is_due(now) {
            match self.serving.renew(&self.pki) {
                Ok(()) => info!("the serving certificate is a new one"),
                Err(error) => {
                    warn!(error = %types::chain(&error), "serving certificate not renewed")
                }
            }
        }
        // The administrator's is renewed by reading it, and the authority's by the next start.
        // What is on the disk may be newer than what this process began with.
        let authority = std::fs::read_to_string(self.pki_dir.join("ca.crt"));
        let authority = authority.unwrap_or_else(|_| self.pki.ca_pem().to_owned());
        let written = self.pki.admin();
        let written = written.and_then(|admin| self.write_kubeconfig(&authority, &admin));
        if let Err(error) = written {
            warn!(error = %types::chain(&error), "the administrator's kubeconfig is not renewed");
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ClusterError {
    ClusterError::Keys(Box::new(error))
}
