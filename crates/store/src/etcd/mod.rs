//! The state in a real etcd, shared by any number of processes.
//!
//! ```text
//!  create/update/delete ──> transaction: compare the revision, put ──> etcd
//!                                                                       │ one watch
//!                              wait until the write has come back       v
//!  answer <──────────────────────────────────────────────────────── mirror ──> Memory
//!  sync: read the revision, wait until the mirror is there                      │
//!  get/range/watch <── local, as with the other backend ────────────────────────┘
//! ```
//!
//! Under the prefix stand `data/…` (the keys) and `store/…` (what the store keeps for itself):
//!
//! * `store/offset`: what is added to etcd's revisions, so that a state that was brought here goes
//!   on above the revisions that its clients have seen.
//! * `store/incomplete`: the state is being copied here, and is not whole.
//! * `store/barrier`: written when etcd has moved on for reasons that our watch does not show.
//!
//! Outside of it is one key, by which all who share the etcd agree on who compacts it.

mod barrier;
mod compaction;
mod fill;
mod lease;
mod mirror;
mod proto;
mod rpc;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;

pub(crate) use self::fill::fill;
use self::lease::Leases;
use self::proto::{Compare, Request};
use self::rpc::{Client, revision};
use crate::config::EtcdConfig;
use crate::error::{Cause, EtcdError, OpenError, SyncError, WriteError};
use crate::memory::{Entry, Memory};
use crate::shared::Shared;
use crate::write::{Op, Set};

/// What etcd takes in one transaction unless it is told otherwise (`--max-txn-ops`).
pub(crate) const TXN_WRITES_MAX: usize = 128;
/// Callers of `sync` that wait for the same answer.
const SYNCS_MAX: usize = 1024;
/// A write that etcd has taken is acknowledged after this time even if the watch is behind.
const ECHO_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Etcd {
    client: Client,
    layout: Arc<Layout>,
    shared: Arc<Shared>,
    leases: Arc<Leases>,
    syncs: mpsc::Sender<oneshot::Sender<Result<u64, SyncError>>>,
    tasks: Arc<Tasks>,
}

/// Ends the background work when the last handle is gone.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Tasks {
    fn stop(&self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// How keys and revisions are called in etcd.
struct Layout {
    prefix: String,
    /// Added to etcd's revisions.
    offset: u64,
}

impl Layout {
    fn data(&self, key: &str) -> Vec<u8> {
        format!("{}/data{key}", self.prefix).into_bytes()
    }

    fn own(&self, name: &str) -> Vec<u8> {
        own_key(&self.prefix, name)
    }

    /// The range of everything that is ours.
    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        // '0' follows '/'.
        let bound = |last: char| format!("{}{last}", self.prefix).into_bytes();
        (bound('/'), bound('0'))
    }

    /// The store's name of a key of etcd; `None` if it is not data.
    fn key(&self, key: &[u8]) -> Option<Arc<str>> {
        let text = std::str::from_utf8(key).ok()?;
        let inside = text.strip_prefix(&self.prefix)?.strip_prefix("/data")?;
        Some(inside.into())
    }

    fn rev(&self, revision: i64) -> u64 {
        u64::try_from(revision).unwrap_or(0) + self.offset
    }

    /// A revision that no key has had, if it is not one of this etcd.
    fn revision(&self, rev: u64) -> i64 {
        let revision = rev.checked_sub(self.offset).filter(|rev| *rev > 0);
        revision
            .and_then(|rev| i64::try_from(rev).ok())
            .unwrap_or(-1)
    }

    fn entry(&self, kv: &proto::KeyValue) -> Entry {
        Entry {
            rev: self.rev(kv.mod_revision),
            create_rev: self.rev(kv.create_revision),
            value: Bytes::copy_from_slice(&kv.value),
            expires_unix_s: lease::expiry(kv.lease),
        }
    }
}

fn own_key(prefix: &str, name: &str) -> Vec<u8> {
    format!("{prefix}/store/{name}").into_bytes()
}

impl Etcd {
    /// Reads the state, follows it from there on, and returns when it is the present one. Needs a
    /// tokio runtime that lives as long as the store.
    pub(crate) async fn open(config: &EtcdConfig) -> Result<(Self, Arc<Shared>), OpenError> {
        let failed = |source| OpenError::Etcd {
            endpoints: config.endpoints.join(", "),
            source,
        };
        let client = Client::new(config)?;
        if fill::is_incomplete(&client, &config.prefix)
            .await
            .map_err(failed)?
        {
            return Err(OpenError::Incomplete {
                prefix: config.prefix.clone(),
            });
        }
        let offset = read_offset(&client, &config.prefix).await.map_err(failed)?;
        let layout = Arc::new(Layout {
            prefix: config.prefix.clone(),
            offset,
        });
        let memory = mirror::load(&client, &layout, &config.history)
            .await
            .map_err(failed)?;
        let (shared, published) = Shared::new(memory);
        let (syncs, requests) = mpsc::channel(SYNCS_MAX);
        let mirror = mirror::Mirror::new(client.clone(), layout.clone(), shared.clone(), published);
        let barrier = barrier::Barrier::new(client.clone(), layout.clone(), shared.clone());
        let mut tasks = vec![
            tokio::spawn(mirror.run()),
            tokio::spawn(barrier.run(requests)),
        ];
        if let Some(every) = config.compact_every {
            let compaction = compaction::run(client.clone(), every);
            tasks.push(tokio::spawn(compaction));
        }
        let etcd = Self {
            client,
            layout,
            shared: shared.clone(),
            leases: Arc::default(),
            syncs,
            tasks: Arc::new(Tasks(tasks)),
        };
        match etcd.sync().await {
            Ok(_) => Ok((etcd, shared)),
            Err(SyncError::Etcd { source }) => Err(failed(source)),
            Err(late @ (SyncError::Late { .. } | SyncError::Closed)) => {
                Err(failed(EtcdError::Unreachable {
                    message: late.to_string(),
                }))
            }
        }
    }

    pub(crate) async fn write(&self, key: &str, op: Op) -> Result<u64, WriteError> {
        if self.is_closed() {
            return Err(WriteError::Closed);
        }
        let name = self.layout.data(key);
        let (expect, value, expires) = match op {
            Op::Create {
                value,
                expires_unix_s,
            } => (None, Some(value), expires_unix_s),
            Op::Update {
                expect_rev,
                value,
                expires_unix_s,
            } => (Some(expect_rev), Some(value), expires_unix_s),
            Op::Delete { expect_rev } => (Some(expect_rev), None, None),
        };
        let compare = expect.map_or(0, |rev| self.layout.revision(rev));
        let change = |lease| match &value {
            Some(value) => Request::Put(proto::PutRequest {
                key: name.clone(),
                value: value.to_vec(),
                lease,
            }),
            None => Request::Delete(proto::DeleteRangeRequest {
                key: name.clone(),
                range_end: Vec::new(),
            }),
        };
        let request = |lease| proto::TxnRequest {
            compare: vec![Compare::mod_revision(name.clone(), compare)],
            success: vec![change(lease).into()],
            failure: vec![
                Request::Range(proto::RangeRequest {
                    key: name.clone(),
                    keys_only: true,
                    ..proto::RangeRequest::default()
                })
                .into(),
            ],
        };
        let answer = self.commit(expires, request).await?;
        let rev = self.layout.rev(revision(answer.header.as_ref()));
        if answer.succeeded {
            self.echo(|memory| memory.rev() >= rev).await;
            return Ok(rev);
        }
        Err(self.refused(key, expect, rev, &answer).await)
    }

    /// One transaction, with a lease if what it writes is to expire.
    async fn commit(
        &self,
        expires_unix_s: Option<u64>,
        request: impl Fn(i64) -> proto::TxnRequest,
    ) -> Result<proto::TxnResponse, WriteError> {
        let mut fresh = false;
        loop {
            let lease = match expires_unix_s {
                // Nothing is written yet, so whatever fails here is certain.
                Some(at) => self
                    .leases
                    .get(&self.client, at, fresh)
                    .await
                    .map_err(|error| self.failed(error, true))?,
                None => 0,
            };
            match self.client.txn(request(lease)).await {
                Ok(answer) => {
                    self.shared.set_trouble(None);
                    return Ok(answer);
                }
                Err(EtcdError::Answer { message, .. })
                    if lease != 0 && !fresh && message.contains("lease not found") =>
                {
                    fresh = true;
                }
                Err(error) => {
                    let definite = error.is_definite();
                    return Err(self.failed(error, definite));
                }
            }
        }
    }

    fn failed(&self, error: EtcdError, definite: bool) -> WriteError {
        self.shared.set_trouble(Some(error.to_string().into()));
        let source = Arc::new(Cause::Etcd(error));
        if definite {
            WriteError::Disk { source }
        } else {
            WriteError::Unknown { source }
        }
    }

    /// What stands in the way of a write. Returns when a local read shows it too, so that whoever
    /// reads and tries again makes progress.
    async fn refused(
        &self,
        key: &str,
        expect: Option<u64>,
        now_rev: u64,
        answer: &proto::TxnResponse,
    ) -> WriteError {
        let name: Arc<str> = key.into();
        let found = answer.responses.iter().find_map(|op| match &op.response {
            Some(proto::Response::Range(range)) => range.kvs.first(),
            Some(proto::Response::Put(_) | proto::Response::Delete(_)) | None => None,
        });
        let Some(found) = found else {
            self.echo(|memory| memory.rev_of(key).is_none_or(|rev| rev > now_rev))
                .await;
            return WriteError::NotFound { key: name };
        };
        let actual_rev = self.layout.rev(found.mod_revision);
        self.echo(|memory| memory.rev() >= actual_rev).await;
        match expect {
            None => WriteError::Exists { key: name },
            Some(expect_rev) => WriteError::Conflict {
                key: name,
                expect_rev,
                actual_rev,
            },
        }
    }

    /// Waits until the mirror shows what etcd has told.
    async fn echo(&self, shows: impl Fn(&Memory) -> bool) {
        let mut revision = self.shared.revision.clone();
        let wait = async {
            loop {
                revision.mark_unchanged();
                if shows(&self.shared.memory()) || revision.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(ECHO_MAX, wait).await.is_err() {
            tracing::warn!("the watch of etcd is behind its writes");
        }
    }

    pub(crate) async fn transact(&self, writes: Vec<Set>) -> Result<u64, WriteError> {
        if self.is_closed() {
            return Err(WriteError::Closed);
        }
        // etcd refuses a transaction that writes a key twice; the last one is what stays.
        let mut last = std::collections::BTreeMap::new();
        for Set { key, value } in writes {
            last.insert(key, value);
        }
        if last.len() > TXN_WRITES_MAX {
            return Err(WriteError::TooMany {
                writes: last.len(),
                max: TXN_WRITES_MAX,
            });
        }
        if last.is_empty() {
            return Ok(self.shared.memory().rev());
        }
        let success = last.into_iter().map(|(key, value)| {
            let key = self.layout.data(&key);
            match value {
                Some(value) => Request::Put(proto::PutRequest {
                    key,
                    value: value.to_vec(),
                    lease: 0,
                }),
                None => Request::Delete(proto::DeleteRangeRequest {
                    key,
                    range_end: Vec::new(),
                }),
            }
            .into()
        });
        let success: Vec<proto::RequestOp> = success.collect();
        let answer = self
            .commit(None, |_| proto::TxnRequest {
                compare: Vec::new(),
                success: success.clone(),
                failure: Vec::new(),
            })
            .await?;
        let wrote = answer.responses.iter().any(|op| match &op.response {
            Some(proto::Response::Put(_)) => true,
            Some(proto::Response::Delete(delete)) => delete.deleted > 0,
            Some(proto::Response::Range(_)) | None => false,
        });
        if !wrote {
            return Ok(self.shared.memory().rev());
        }
        let rev = self.layout.rev(revision(answer.header.as_ref()));
        self.echo(|memory| memory.rev() >= rev).await;
        Ok(rev)
    }

    /// Waits until local reads show every write, by whomever, that was acknowledged before the
    /// call. Returns the revision they show at least.
    pub(crate) async fn sync(&self) -> Result<u64, SyncError> {
        let (reply, answer) = oneshot::channel();
        self.syncs
            .send(reply)
            .await
            .map_err(|_| SyncError::Closed)?;
        answer.await.map_err(|_| SyncError::Closed)?
    }

    pub(crate) async fn compact(&self, rev: u64) -> Result<(), WriteError> {
        let revision = self.layout.revision(rev);
        self.shared
            .memory_mut()
            .evict(rev, std::time::Instant::now());
        if revision <= 0 {
            return Ok(());
        }
        match self.client.compact(revision).await {
            Ok(()) => Ok(()),
            // Somebody was faster.
            Err(EtcdError::Answer {
                code: Code::OutOfRange,
                ..
            }) => Ok(()),
            Err(error) => Err(self.failed(error, false)),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.syncs.is_closed()
    }

    pub(crate) async fn close(self) {
        self.tasks.stop();
        self.syncs.closed().await;
    }
}

async fn read_offset(client: &Client, prefix: &str) -> Result<u64, EtcdError> {
    let request = proto::RangeRequest {
        key: own_key(prefix, "offset"),
        ..proto::RangeRequest::default()
    };
    let answer = client.range(request).await?;
    let text = answer
        .kvs
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}
