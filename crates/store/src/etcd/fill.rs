//! Bringing a whole state to an etcd that has nothing under the prefix.
//!
//! The mark `store/incomplete` stands while it goes on, so that a state that was copied halfway is
//! never taken for a whole one, and a second attempt may begin by removing it.

use std::sync::Arc;

use super::lease::Leases;
use super::proto::{self, Compare, Request};
use super::rpc::{Client, revision};
use super::{Layout, TXN_WRITES_MAX, own_key};
use crate::config::EtcdConfig;
use crate::copy::{Copied, Snapshot};
use crate::error::{CopyError, EtcdError};
use crate::memory::Entry;

/// etcd takes requests of 1.5 MiB unless it is told otherwise.
const TXN_BYTES_MAX: usize = 1024 * 1024;

pub(crate) async fn fill(config: &EtcdConfig, state: Snapshot) -> Result<Copied, CopyError> {
    let client = Client::new(config)?;
    let prefix = &config.prefix;
    if is_incomplete(&client, prefix).await? {
        let layout = Layout {
            prefix: prefix.clone(),
            offset: 0,
        };
        let (key, range_end) = layout.range();
        client.delete_range(key, range_end).await?;
    }
    begin(&client, prefix, state.rev).await?;
    let layout = Layout {
        prefix: prefix.clone(),
        offset: state.rev,
    };
    let keys = state.entries.len();
    write(&client, &layout, state.entries).await?;
    let last = client
        .txn(proto::TxnRequest {
            success: vec![
                Request::Delete(proto::DeleteRangeRequest {
                    key: layout.own("incomplete"),
                    range_end: Vec::new(),
                })
                .into(),
            ],
            ..proto::TxnRequest::default()
        })
        .await?;
    let rev = layout.rev(revision(last.header.as_ref()));
    Ok(Copied { rev, keys })
}

pub(super) async fn is_incomplete(client: &Client, prefix: &str) -> Result<bool, EtcdError> {
    let request = proto::RangeRequest {
        key: own_key(prefix, "incomplete"),
        count_only: true,
        ..proto::RangeRequest::default()
    };
    Ok(client.range(request).await?.count > 0)
}

/// Marks the prefix as ours, if nothing is under it.
async fn begin(client: &Client, prefix: &str, offset: u64) -> Result<(), CopyError> {
    let not_empty = || CopyError::NotEmpty {
        prefix: prefix.to_owned(),
    };
    let put = |name: &str, value: String| {
        Request::Put(proto::PutRequest {
            key: own_key(prefix, name),
            value: value.into_bytes(),
            lease: 0,
        })
        .into()
    };
    let layout = Layout {
        prefix: prefix.to_owned(),
        offset,
    };
    let (key, range_end) = layout.range();
    let present = proto::RangeRequest {
        key,
        range_end,
        count_only: true,
        ..proto::RangeRequest::default()
    };
    if client.range(present).await?.count > 0 {
        return Err(not_empty());
    }
    let request = proto::TxnRequest {
        compare: vec![Compare::version(own_key(prefix, "offset"), 0)],
        success: vec![
            put("incomplete", String::new()),
            put("offset", offset.to_string()),
        ],
        failure: Vec::new(),
    };
    match client.txn(request).await?.succeeded {
        true => Ok(()),
        false => Err(not_empty()),
    }
}

/// In the order in which they were written, as many as fit at a time.
async fn write(
    client: &Client,
    layout: &Layout,
    mut entries: Vec<(Arc<str>, Entry)>,
) -> Result<(), EtcdError> {
    entries.sort_by_key(|(_, entry)| entry.rev);
    let leases = Leases::default();
    let (mut success, mut bytes) = (Vec::new(), 0);
    for (key, entry) in entries {
        let lease = match entry.expires_unix_s {
            Some(at) => leases.get(client, at, false).await?,
            None => 0,
        };
        let weight = key.len() + entry.value.len();
        if success.len() == TXN_WRITES_MAX || bytes + weight > TXN_BYTES_MAX {
            send(client, std::mem::take(&mut success)).await?;
            bytes = 0;
        }
        bytes += weight;
        let put = proto::PutRequest {
            key: layout.data(&key),
            value: entry.value.to_vec(),
            lease,
        };
        success.push(Request::Put(put).into());
    }
    send(client, success).await
}

async fn send(client: &Client, success: Vec<proto::RequestOp>) -> Result<(), EtcdError> {
    if success.is_empty() {
        return Ok(());
    }
    let request = proto::TxnRequest {
        success,
        ..proto::TxnRequest::default()
    };
    client.txn(request).await.map(drop)
}
