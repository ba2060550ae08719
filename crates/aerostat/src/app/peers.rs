//! The hosts that this one believes in: those of the directory whose certificates are the fleet's.
//!
//! Records travel through copies of the directory, so each is verified before it becomes a peer of
//! the mesh or its key vouches for a statement. Until the copy here has any, those that were told
//! at joining stand in.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::HostId;
use types::fleet::HostRecord;

use crate::catalog::replication::{KeyOf, Verify};
use crate::fleet::{Identity, VerifyKey, verify_record};

/// Time before records that did not pass are verified again. A host that starts with a wrong clock
/// finds nobody certified, and without peers no news of the directory would ever come to it.
const VERIFY_RETRY: Duration = Duration::from_secs(10);

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
    clock: fn() -> Timestamp,
    verify_retry: Duration,
}

impl Peers {
    pub(super) fn new(identity: &Identity, known: &[HostRecord]) -> Self {
        Self::at(identity, known, Timestamp::now, VERIFY_RETRY)
    }

    fn at(
        identity: &Identity,
        known: &[HostRecord],
        clock: fn() -> Timestamp,
        verify_retry: Duration,
    ) -> Self {
        let shared = Shared {
            identity: identity.clone(),
            keys: RwLock::default(),
            records: watch::Sender::default(),
            clock,
            verify_retry,
        };
        let peers = Self {
            shared: Arc::new(shared),
        };
        peers.set(known, true);
        peers
    }

    /// Takes the directory's word, where it is borne out by certificates. Whether all of it was.
    fn set(&self, known: &[HostRecord], is_news: bool) -> bool {
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
                    Some(_) | None => self.verify(record, is_news),
                };
                if let Some(key) = verified {
                    keys.insert(record.id, (record.clone(), key));
                }
            }
        }
        let is_whole = keys.len() == known.len();
        let records: Vec<_> = keys.values().map(|(record, _)| record.clone()).collect();
        let lock = self.shared.keys.write();
        *lock.unwrap_or_else(PoisonError::into_inner) = keys;
        self.shared.records.send_if_modified(|before| {
            let changed = is_news || **before != records;
            *before = Arc::new(records);
            changed
        });
        is_whole
    }

    fn verify(&self, record: &HostRecord, is_news: bool) -> Option<VerifyKey> {
        let ca = &self.shared.identity.ca_certificate;
        match verify_record(ca, record, (self.shared.clock)()) {
            Ok(key) => Some(key),
            Err(_) if !is_news => None,
            Err(error) => {
                warn!(
                    host = %record.id,
                    error = %types::chain(&error),
                    "this host's certificate does not hold; it is left out for now"
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
            let mut is_news = true;
            loop {
                let known = Arc::clone(&directory.borrow_and_update());
                let is_whole = self.set(&known, is_news);
                is_news = tokio::select! {
                    changed = directory.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(self.shared.verify_retry), if !is_whole => false,
                };
            }
        };
        stop.run_until_cancelled(follow).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::fleet::Found;

    static NOW_S: AtomicI64 = AtomicI64::new(0);

    fn clock() -> Timestamp {
        Timestamp::from_second(NOW_S.load(Ordering::SeqCst)).unwrap()
    }

    #[tokio::test]
    async fn a_host_whose_clock_was_wrong_finds_the_others_when_it_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let found = Found {
            number: None,
            name: "a".into(),
            region: "local".into(),
        };
        let identity = Identity::open(&folder.path().join("fleet"), &found).unwrap();
        let known = vec![identity.record("[::1]:1".parse().unwrap(), None)];
        let peers = Peers::at(&identity, &known, clock, Duration::from_millis(20));
        let mut changed = peers.changed();
        assert_eq!(changed.borrow_and_update().len(), 0);
        let (_directory, hosts) = watch::channel(Arc::new(known.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(peers.run(hosts, stop.clone()));
        NOW_S.store(Timestamp::now().as_second(), Ordering::SeqCst);
        let right = changed.wait_for(|records| **records == known);
        tokio::time::timeout(Duration::from_secs(10), right)
            .await
            .expect("found in time")
            .unwrap();
        stop.cancel();
    }
}
