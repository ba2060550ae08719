//! The hosts that this one believes in: those of the directory whose certificates are the fleet's.
//!
//! Records travel through copies of the directory, so each is verified before it becomes a peer of
//! the mesh or its key vouches for a statement. Until the copy here has any, those that were told
//! at joining stand in.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::HostId;
use types::fleet::HostRecord;

use crate::catalog::replication::{KeyOf, Verify};
use crate::fleet::{Identity, VerifyKey, verify_record};

/// Hosts whose records were verified. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    /// By host: the certificate that was verified, and the key in it.
    keys: RwLock<BTreeMap<HostId, (HostRecord, VerifyKey)>>,
    records: watch::Sender<Arc<Vec<HostRecord>>>,
}

impl Peers {
    pub(super) fn new(identity: &Identity, known: &[HostRecord]) -> Self {
        let shared = Shared {
            identity: identity.clone(),
            keys: RwLock::default(),
            records: watch::Sender::default(),
        };
        let peers = Self {
            shared: Arc::new(shared),
        };
        peers.set(known);
        peers
    }

    /// Takes the directory's word, where it is borne out by certificates.
    fn set(&self, known: &[HostRecord]) {
        let known = if known.is_empty() {
            &self.shared.identity.seeds
        } else {
            known
        };
        let mut keys = BTreeMap::new();
        {
            let old = self.shared.keys.read();
            let old = old.unwrap_or_else(PoisonError::into_inner);
            for record in known {
                let verified = match old.get(&record.id) {
                    Some((same, key)) if same == record => Some(*key),
                    Some(_) | None => self.verify(record),
                };
                if let Some(key) = verified {
                    keys.insert(record.id, (record.clone(), key));
                }
            }
        }
        let records = keys.values().map(|(record, _)| record.clone()).collect();
        let lock = self.shared.keys.write();
        *lock.unwrap_or_else(PoisonError::into_inner) = keys;
        self.shared.records.send_replace(Arc::new(records));
    }

    fn verify(&self, record: &HostRecord) -> Option<VerifyKey> {
        let ca = &self.shared.identity.ca_certificate;
        match verify_record(ca, record, Timestamp::now()) {
            Ok(key) => Some(key),
            Err(error) => {
                warn!(
                    host = %record.id,
                    error = %types::chain(&error),
                    "the fleet has not certified this host; it is left out"
                );
                None
            }
        }
    }

    /// The verified hosts as they are now, and whenever they change.
    pub(super) fn changed(&self) -> watch::Receiver<Arc<Vec<HostRecord>>> {
        self.shared.records.subscribe()
    }

    /// How statements of hosts are verified.
    pub(super) fn key_of(&self) -> KeyOf {
        let peers = self.clone();
        Arc::new(move |host| {
            let keys = peers.shared.keys.read();
            let keys = keys.unwrap_or_else(PoisonError::into_inner);
            let key = keys.get(&host).map(|(_, key)| *key)?;
            let verify: Verify = Arc::new(move |message, signature| key.verify(message, signature));
            Some(verify)
        })
    }

    /// Follows the directory until `stop`.
    pub(super) async fn run(
        self,
        mut directory: watch::Receiver<Arc<Vec<HostRecord>>>,
        stop: CancellationToken,
    ) {
        let follow = async {
            directory.mark_changed();
            while directory.changed().await.is_ok() {
                let known = Arc::clone(&directory.borrow_and_update());
                self.set(&known);
            }
        };
        stop.run_until_cancelled(follow).await;
    }
}
