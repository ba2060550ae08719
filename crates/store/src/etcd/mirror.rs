//! The copy of etcd's state that local reads use: read once, then followed by one watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use super::rpc::{self, Client, revision};
use super::{Layout, proto};
use crate::error::EtcdError;
use crate::memory::{Entry, History, Memory};
use crate::shared::{Publisher, Shared};

const PAGE_KEYS: i64 = 512;
/// A start reads the state as it was this many revisions ago and replays the rest, so that clients
/// of another process, or of the one before, can go on watching here.
const REPLAY_REVISIONS: i64 = 1000;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const DELETE: i32 = 1;

pub(super) struct Mirror {
    client: Client,
    layout: Arc<Layout>,
    shared: Arc<Shared>,
    published: Publisher,
}

/// Why a watch ended.
enum Ended {
    Failed(EtcdError),
    /// etcd has forgotten what we have not seen yet.
    Compacted,
}

impl From<EtcdError> for Ended {
    fn from(error: EtcdError) -> Self {
        Self::Failed(error)
    }
}

impl Mirror {
    pub(super) fn new(
        client: Client,
        layout: Arc<Layout>,
        shared: Arc<Shared>,
        published: Publisher,
    ) -> Self {
        Self {
            client,
            layout,
            shared,
            published,
        }
    }

    pub(super) async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.shared.memory().rev();
            let result = match self.follow().await {
                Ended::Failed(error) => Err(error),
                Ended::Compacted => self.reload().await,
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the watch of etcd ended; it is begun again");
                self.shared.set_trouble(Some(error.to_string().into()));
            }
            if self.shared.memory().rev() > before {
                pause = PAUSE_MIN;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn follow(&self) -> Ended {
        match self.try_follow().await {
            Ok(()) => Ended::Failed(EtcdError::Unreachable {
                message: "the watch was closed".into(),
            }),
            Err(ended) => ended,
        }
    }

    async fn try_follow(&self) -> Result<(), Ended> {
        let (key, range_end) = self.layout.range();
        let position = self.shared.memory().rev();
        let mut answers = self
            .client
            .watch(proto::WatchCreateRequest {
                key,
                range_end,
                start_revision: self.layout.revision(position + 1),
                progress_notify: true,
            })
            .await?;
        loop {
            let answer = answers.message().await;
            let Some(answer) = answer.map_err(|status| rpc::refusal(&status))? else {
                return Ok(());
            };
            if answer.canceled && answer.compact_revision > 0 {
                return Err(Ended::Compacted);
            }
            if answer.canceled {
                return Err(Ended::Failed(EtcdError::Unreachable {
                    message: answer.cancel_reason,
                }));
            }
            if answer.created {
                self.shared.set_trouble(None);
                continue;
            }
            self.apply(answer);
        }
    }

    /// An answer has whole revisions only, and is seen whole or not at all. One without events
    /// tells that all of them have been sent.
    fn apply(&self, answer: proto::WatchResponse) {
        self.published.publish(|memory| {
            let now = Instant::now();
            let seen = memory.rev();
            if answer.events.is_empty() {
                memory.advance(self.layout.rev(revision(answer.header.as_ref())));
            }
            for event in answer.events {
                let Some(kv) = event.kv else { continue };
                let rev = self.layout.rev(kv.mod_revision);
                // A watch that was begun again may repeat itself.
                if rev <= seen {
                    continue;
                }
                let Some(key) = self.layout.key(&kv.key) else {
                    memory.advance(rev);
                    continue;
                };
                let after = (event.kind != DELETE).then(|| self.layout.entry(&kv));
                memory.apply(rev, key, after, now);
            }
            memory.evict(0, now);
        });
    }

    async fn reload(&self) -> Result<(), EtcdError> {
        let (at, entries) = read(&self.client, &self.layout, 0).await?;
        let rev = self.layout.rev(at);
        self.published
            .publish(|memory| memory.replace(rev, entries));
        Ok(())
    }
}

/// The state of a little while ago, or of now if etcd has forgotten that.
pub(super) async fn load(
    client: &Client,
    layout: &Layout,
    history: &History,
) -> Result<Memory, EtcdError> {
    let latest = client
        .range(proto::RangeRequest {
            key: layout.own("offset"),
            count_only: true,
            ..proto::RangeRequest::default()
        })
        .await?;
    // Revision 1 is the empty etcd.
    let mut past = (revision(latest.header.as_ref()) - REPLAY_REVISIONS).max(1);
    let (at, entries) = loop {
        match read(client, layout, past).await {
            // Compacted meanwhile, or before.
            Err(EtcdError::Answer {
                code: Code::OutOfRange,
                ..
            }) => {
                let oldest = oldest(client, layout);
                past = client.in_time(oldest).await?.max(past + 1);
            }
            result => break result?,
        }
    };
    let mut memory = Memory::new(layout.rev(at), history.clone());
    memory.replace(layout.rev(at), entries);
    Ok(memory)
}

/// The oldest revision that etcd remembers. Only a watch that comes too late is told.
async fn oldest(client: &Client, layout: &Layout) -> Result<i64, EtcdError> {
    let mut answers = client
        .watch(proto::WatchCreateRequest {
            key: layout.own("offset"),
            range_end: Vec::new(),
            start_revision: 1,
            progress_notify: false,
        })
        .await?;
    while let Some(answer) = answers
        .message()
        .await
        .map_err(|status| rpc::refusal(&status))?
    {
        if answer.canceled {
            return Ok(answer.compact_revision);
        }
    }
    Err(EtcdError::Unreachable {
        message: "the watch was closed".into(),
    })
}

/// All keys at one revision (0: now), and that revision.
async fn read(
    client: &Client,
    layout: &Layout,
    at: i64,
) -> Result<(i64, Vec<(Arc<str>, Entry)>), EtcdError> {
    let (mut key, range_end) = layout.range();
    let (mut at, mut entries) = (at, Vec::new());
    loop {
        let request = proto::RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit: PAGE_KEYS,
            revision: at,
            ..proto::RangeRequest::default()
        };
        let page = client.range(request).await?;
        if at == 0 {
            at = revision(page.header.as_ref());
        }
        if let Some(last) = page.kvs.last() {
            key = last.key.clone();
            key.push(0);
        }
        for kv in &page.kvs {
            if let Some(name) = layout.key(&kv.key) {
                entries.push((name, layout.entry(kv)));
            }
        }
        if !page.more || page.kvs.is_empty() {
            return Ok((at, entries));
        }
    }
}
