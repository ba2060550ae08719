//! A worker on another host: what the market asks of it, and the answering side.
//!
//! ```text
//!  Remote::bid, reserve, destroy ──Rpc──► router ── Handle of that host
//! ```
//!
//! Only what hosts ask of each other goes this way. Everything that somebody asks of one machine
//! goes to its host as the request of the Machines API that it is (`api::forward`): one protocol,
//! with one promise about its versions, and streams that need no second form.

mod volumes;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::machine::MachineConfig;
use types::{AppName, HostId, MachineId, NetworkId};

use super::capacity::{Bid, BidRequest, Reservation};
use super::check::check;
use super::handle::Handle;
use super::machine::Permit;
use super::refused::{NoBid, Refused};
use crate::rpc::{Answer, Caller, Rpc, Unreachable};
pub use volumes::{VolumeBid, VolumeBidRequest};

const BID: &str = "/worker/v1/bid";
const RESERVE: &str = "/worker/v1/reserve";
const DESTROY: &str = "/worker/v1/destroy";

/// The largest configuration that `check` lets through, and a little more.
const QUESTION_BYTES_MAX: usize = 4 << 20;
/// For one question of the market. Placement has shorter deadlines.
const MARKET_TIMEOUT: Duration = Duration::from_secs(2);
/// A destruction is recorded, and nothing more is waited for.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker of another host. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct Remote {
    host: HostId,
    /// Empty where nobody cares.
    region: String,
    rpc: Rpc,
}

/// A machine that is to be placed, on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    app: AppName,
    network: NetworkId,
    region: String,
    config: MachineConfig,
}

#[derive(Debug, Serialize, Deserialize)]
struct Destroy {
    id: MachineId,
}

/// How a destruction went that another host was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destroyed {
    /// It is recorded, or there was no such machine.
    Recorded,
    Refused {
        reason: String,
    },
}

impl Remote {
    /// The worker of `host`.
    pub fn new(host: HostId, rpc: Rpc) -> Self {
        let region = String::new();
        Self { host, region, rpc }
    }

    /// The same worker, of whose host it is known which region it is in.
    pub fn in_region(self, region: String) -> Self {
        Self { region, ..self }
    }

    /// The region that the host is in, if that was known.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The host that the worker's machines are on.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// As [`Handle::bid`].
    ///
    /// # Errors
    /// Also [`NoBid::Unreachable`].
    pub async fn bid(&self, request: &BidRequest) -> Result<Bid, NoBid> {
        self.ask(BID, request).await
    }

    /// As [`Handle::reserve`].
    ///
    /// # Errors
    /// Also [`NoBid::Unreachable`]; then room may have been promised all the same, for the few
    /// seconds that a promise lasts.
    pub async fn reserve(&self, request: &BidRequest) -> Result<Reservation, NoBid> {
        self.ask(RESERVE, request).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &BidRequest,
    ) -> Result<A, NoBid> {
        let question = Question::of(request);
        let answer: Result<Result<A, NoBid>, Unreachable> = self
            .rpc
            .call(self.host, path, &question, MARKET_TIMEOUT)
            .await;
        answer.unwrap_or_else(|error| {
            tracing::debug!(error = %types::chain(&error), path, "a host took no part");
            Err(NoBid::Unreachable { host: self.host })
        })
    }

    /// Destroys a machine there, whoever has its lease and whatever state it is in: its app is
    /// being deleted.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn destroy(&self, id: &MachineId) -> Result<Destroyed, Unreachable> {
        let question = Destroy { id: id.clone() };
        self.rpc
            .call(self.host, DESTROY, &question, DESTROY_TIMEOUT)
            .await
    }
}

impl Question {
    /// Files and environments have no price, are large and may be secret: they go only to the
    /// host that wins.
    fn of(request: &BidRequest) -> Self {
        let config = request.config.as_given().without_contents();
        Self {
            app: request.app.clone(),
            network: request.network,
            region: request.region.clone(),
            config,
        }
    }

    /// The other host may have another version than this one, so its word does not count.
    fn checked(self) -> Result<BidRequest, NoBid> {
        let config = check(self.config).map_err(|invalid| NoBid::ConfigRefused {
            reason: invalid.to_string(),
        })?;
        Ok(BidRequest {
            app: self.app,
            network: self.network,
            region: self.region,
            config,
        })
    }
}

/// Answers the [`Remote`]s of other hosts. For [`crate::rpc::serve`].
pub fn router(worker: Handle) -> Router {
    Router::new()
        .route(BID, post(bid))
        .route(RESERVE, post(reserve))
        .route(DESTROY, post(destroy))
        .merge(volumes::routes())
        .layer(DefaultBodyLimit::max(QUESTION_BYTES_MAX))
        .with_state(worker)
}

async fn bid(
    State(worker): State<Handle>,
    _: Caller,
    Json(question): Json<Question>,
) -> Answer<Result<Bid, NoBid>> {
    Answer(match question.checked() {
        Ok(request) => worker.bid(&request).await,
        Err(refusal) => Err(refusal),
    })
}

async fn reserve(
    State(worker): State<Handle>,
    _: Caller,
    Json(question): Json<Question>,
) -> Answer<Result<Reservation, NoBid>> {
    Answer(match question.checked() {
        Ok(request) => worker.reserve(&request).await,
        Err(refusal) => Err(refusal),
    })
}

async fn destroy(
    State(worker): State<Handle>,
    Caller(caller): Caller,
    Json(question): Json<Destroy>,
) -> Answer<Destroyed> {
    tracing::info!(machine = %question.id, by = %caller, "another host deletes the machine's app");
    let worker = worker.permitted(Permit::Override);
    Answer(match worker.destroy(&question.id, true).await {
        Ok(_) | Err(Refused::NotFound { .. }) => Destroyed::Recorded,
        Err(refused) => Destroyed::Refused {
            reason: types::chain(&refused),
        },
    })
}

#[cfg(test)]
mod tests;
