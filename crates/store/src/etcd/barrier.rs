//! Knowing that the mirror shows everything.
//!
//! A read of etcd's revision goes through its consensus; once the mirror is at that revision, a
//! local read is as good as one from etcd. If etcd has moved on without writing one of our keys,
//! the watch has nothing to show for it; then a key is written for the watch to see. (A progress
//! request would do the same without a write, but etcd before 3.4.25 and 3.5.8 may answer it ahead
//! of events that it owes.) Whoever asks while an answer is under way shares the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::rpc::{Client, revision};
use super::{Layout, proto};
use crate::error::SyncError;
use crate::shared::Shared;

/// How long an event may be under way before the reason can be that there is none.
const EVENT_MAX: Duration = Duration::from_millis(20);
const ARRIVAL_MAX: Duration = Duration::from_secs(5);

pub(super) struct Barrier {
    client: Client,
    layout: Arc<Layout>,
    shared: Arc<Shared>,
}

impl Barrier {
    pub(super) fn new(client: Client, layout: Arc<Layout>, shared: Arc<Shared>) -> Self {
        Self {
            client,
            layout,
            shared,
        }
    }

    pub(super) async fn run(
        self,
        mut requests: mpsc::Receiver<oneshot::Sender<Result<u64, SyncError>>>,
    ) {
        while let Some(first) = requests.recv().await {
            let mut waiting = vec![first];
            while let Ok(more) = requests.try_recv() {
                waiting.push(more);
            }
            let result = self.pass().await;
            for reply in waiting {
                drop(reply.send(result.clone()));
            }
        }
    }

    async fn pass(&self) -> Result<u64, SyncError> {
        let request = proto::RangeRequest {
            key: self.layout.own("barrier"),
            count_only: true,
            ..proto::RangeRequest::default()
        };
        let answer = self.client.range(request).await;
        let answer = answer.map_err(|source| SyncError::Etcd { source })?;
        let rev = self.layout.rev(revision(answer.header.as_ref()));
        if self.reached(rev, EVENT_MAX).await.is_ok() {
            return Ok(rev);
        }
        let written = self
            .client
            .put(proto::PutRequest {
                key: self.layout.own("barrier"),
                ..proto::PutRequest::default()
            })
            .await
            .map_err(|source| SyncError::Etcd { source })?;
        let rev = self.layout.rev(written);
        self.reached(rev, ARRIVAL_MAX).await.map(|()| rev)
    }

    async fn reached(&self, rev: u64, max: Duration) -> Result<(), SyncError> {
        let mut revision = self.shared.revision.clone();
        match tokio::time::timeout(max, revision.wait_for(|now| *now >= rev)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(SyncError::Closed),
            Err(_) => Err(SyncError::Late {
                rev,
                current: *self.shared.revision.borrow(),
                after_ms: max.as_millis(),
            }),
        }
    }
}
