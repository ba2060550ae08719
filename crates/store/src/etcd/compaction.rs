//! Forgetting history that is older than an interval, by one process at a time.
//!
//! All processes try to write the same key at the same version; who succeeds compacts to the
//! revision that the interval began with. The others learn where the next interval begins. No
//! clocks are compared.

use std::sync::Arc;
use std::time::Duration;

use super::Layout;
use super::proto::{self, Compare, Request};
use super::rpc::{Client, revision};
use crate::error::EtcdError;

#[derive(Default)]
struct Turn {
    version: i64,
    /// etcd's revision when the interval began.
    since: i64,
}

pub(super) async fn run(client: Client, layout: Arc<Layout>, every: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(every).await;
        match step(&client, &layout, &turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(%error, "cannot compact the history in etcd"),
        }
    }
}

async fn step(client: &Client, layout: &Layout, turn: &Turn) -> Result<Turn, EtcdError> {
    let key = layout.own("compaction");
    let put = proto::PutRequest {
        key: key.clone(),
        value: turn.since.to_string().into_bytes(),
        lease: 0,
    };
    let get = proto::RangeRequest {
        key: key.clone(),
        ..proto::RangeRequest::default()
    };
    let request = proto::TxnRequest {
        compare: vec![Compare::version(key, turn.version)],
        success: vec![Request::Put(put).into()],
        failure: vec![Request::Range(get).into()],
    };
    let answer = client.txn(request).await?;
    let since = revision(answer.header.as_ref());
    if !answer.succeeded {
        let version = answer.responses.iter().find_map(|op| match &op.response {
            Some(proto::Response::Range(range)) => range.kvs.first().map(|kv| kv.version),
            Some(proto::Response::Put(_) | proto::Response::Delete(_)) | None => None,
        });
        return Ok(Turn {
            version: version.unwrap_or(0),
            since,
        });
    }
    if turn.since > 0 {
        client.compact(turn.since).await?;
    }
    Ok(Turn {
        version: turn.version + 1,
        since,
    })
}
