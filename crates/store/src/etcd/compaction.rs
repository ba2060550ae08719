//! Forgetting history that is older than an interval, by one process at a time.
//!
//! All processes try to write the same key at the same version; who succeeds compacts to the
//! revision that the interval began with. The others learn where the next interval begins. No
//! clocks are compared.
//!
//! etcd forgets for everybody, whatever the prefix. So the key is one for all prefixes, and it is the
//! one by which upstream's API servers agree: stores of any number of clusters, theirs and ours, that
//! share an etcd compact it once in an interval, and each finds what is younger than that.

use std::time::Duration;

use super::proto::{self, Compare, Request};
use super::rpc::{Client, revision};
use crate::error::EtcdError;

/// Outside of every prefix.
const KEY: &[u8] = b"compact_rev_key";

#[derive(Default)]
struct Turn {
    version: i64,
    /// etcd's revision when the interval began.
    since: i64,
}

pub(super) async fn run(client: Client, every: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(every).await;
        match step(&client, &turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(%error, "cannot compact the history in etcd"),
        }
    }
}

async fn step(client: &Client, turn: &Turn) -> Result<Turn, EtcdError> {
    let put = proto::PutRequest {
        key: KEY.to_vec(),
        value: turn.since.to_string().into_bytes(),
        lease: 0,
    };
    let get = proto::RangeRequest {
        key: KEY.to_vec(),
        ..proto::RangeRequest::default()
    };
    let request = proto::TxnRequest {
        compare: vec![Compare::version(KEY.to_vec(), turn.version)],
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
