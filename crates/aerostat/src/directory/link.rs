//! The way from a copy to the authority.

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body_util::BodyDataStream;
use types::HostId;

use super::command::Command;
use super::wire::{self, Answer, From, LookUp};
use crate::rpc::{JSON, Rpc, Unreachable};

/// A change waits for the authority's disk, and for changes before it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Somebody waits for an app or a handshake, and may come again.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Until the answer of a watch begins.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What a copy asks the authority.
#[async_trait]
pub trait Link: std::fmt::Debug + Send + Sync {
    /// Does a change.
    async fn call(&self, command: &Command) -> Result<Answer, Unreachable>;

    /// The value of one row, if there is one.
    async fn look_up(&self, key: &str) -> Result<Option<String>, Unreachable>;

    /// What has changed since `from`, and what changes from now on: lines of JSON in pieces.
    async fn watch(
        &self,
        from: From,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Unreachable>;
}

/// The way over the mesh.
#[derive(Debug)]
pub(super) struct RpcLink {
    rpc: Rpc,
    authority: HostId,
}

impl RpcLink {
    pub(super) fn new(rpc: Rpc, authority: HostId) -> Self {
        Self { rpc, authority }
    }
}

#[async_trait]
impl Link for RpcLink {
    async fn call(&self, command: &Command) -> Result<Answer, Unreachable> {
        self.rpc
            .call(self.authority, wire::COMMAND, command, COMMAND_TIMEOUT)
            .await
    }

    async fn look_up(&self, key: &str) -> Result<Option<String>, Unreachable> {
        let question = LookUp { key: key.into() };
        self.rpc
            .call(self.authority, wire::LOOK_UP, &question, LOOK_UP_TIMEOUT)
            .await
    }

    async fn watch(
        &self,
        from: From,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Unreachable> {
        let unreachable = |source| Unreachable {
            host: self.authority,
            source,
        };
        let body = serde_json::to_vec(&from).map_err(|error| unreachable(error.into()))?;
        let (host, body) = (self.authority, body.into());
        let response = self
            .rpc
            .post(host, wire::WATCH, JSON, body, WATCH_TIMEOUT)
            .await?;
        let pieces = BodyDataStream::new(response.into_body());
        Ok(pieces
            .map(|piece| piece.map_err(std::io::Error::other))
            .boxed())
    }
}
