//! Placement: asks every worker at once what it could do, and reserves on the best.
//!
//! ```text
//!  bidders: this host and the others of the region ──bid──► all at once, one deadline
//!      rank (pure): fewest replicas, least load, warm images
//!  the best ──reserve──► it declines? the next, within a second deadline ──► Place or NoBid
//! ```
//!
//! It never hunts: a host that cannot be reached or is late does not take part, and the answer is
//! a reservation or a [`NoBid`], within the two deadlines. Who wants to try again somewhere else
//! (Kubernetes does) decides that for itself.

mod hosts;
mod rank;
mod summary;
mod volumes;

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use types::HostId;

use crate::worker::{
    Bid, BidRequest, Handle, NoBid, Remote, Reservation, VolumeBid, VolumeBidRequest,
};

pub use hosts::{Host, Hosts, bidders};
pub use rank::{Offer, rank};
pub use volumes::{among_volumes, at_volumes, place_volume};

/// Time in which a worker has to bid; one that is late does not take part. Two round trips (a
/// connection, and the question) within one continent.
pub const BID_DEADLINE: Duration = Duration::from_millis(250);
/// Time for all the reservations that are tried.
pub const RESERVE_DEADLINE: Duration = Duration::from_secs(1);
/// One that falls silent after its bid leaves time for the others.
const RESERVE_EACH: Duration = Duration::from_millis(400);

/// A worker that takes part.
#[derive(Debug, Clone)]
pub enum Bidder {
    Here(Handle),
    There(Remote),
}

impl Bidder {
    pub fn host(&self) -> HostId {
        match self {
            Self::Here(handle) => handle.host(),
            Self::There(remote) => remote.host(),
        }
    }

    async fn bid(&self, request: &BidRequest) -> Result<Bid, NoBid> {
        match self {
            Self::Here(handle) => handle.bid(request).await,
            Self::There(remote) => remote.bid(request).await,
        }
    }

    async fn bid_volume(&self, request: &VolumeBidRequest) -> Result<VolumeBid, NoBid> {
        match self {
            Self::Here(handle) => handle.volumes().bid(request).await,
            Self::There(remote) => remote.bid_volume(request).await,
        }
    }

    async fn reserve(&self, request: &BidRequest) -> Result<Reservation, NoBid> {
        match self {
            Self::Here(handle) => handle.reserve(request).await,
            Self::There(remote) => remote.reserve(request).await,
        }
    }
}

/// A machine's place: the worker that promised it, and the promise.
#[derive(Debug, Clone)]
pub struct Place {
    pub worker: Bidder,
    pub reservation: Reservation,
}

/// Finds a place for a machine: asks all `bidders`, and reserves on the best that will have it.
///
/// # Errors
/// Of one bidder, its own refusal. Of several, [`NoBid::NoHost`] with what each kind lacked, or
/// [`NoBid::Late`] if none has answered.
pub async fn place(bidders: &[Bidder], request: &BidRequest) -> Result<Place, NoBid> {
    let asked = bidders
        .iter()
        .enumerate()
        .map(|(worker, bidder)| async move {
            let bid = timeout(BID_DEADLINE, bidder.bid(request)).await;
            let bid = bid.unwrap_or(Err(NoBid::Late));
            bid.map(|bid| Offer { worker, bid })
        });
    let mut offers = Vec::new();
    let mut refusals = Vec::new();
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(offer) => offers.push(offer),
            Err(refusal) => refusals.push(refusal),
        }
    }
    rank(&mut offers);
    let deadline = Instant::now() + RESERVE_DEADLINE;
    for offer in offers {
        let worker = &bidders[offer.worker];
        let until = deadline.min(Instant::now() + RESERVE_EACH);
        match timeout_at(until, worker.reserve(request)).await {
            Ok(Ok(reservation)) => {
                return Ok(Place {
                    worker: worker.clone(),
                    reservation,
                });
            }
            Ok(Err(refusal)) => refusals.push(refusal),
            // What it may have promised all the same is over in seconds.
            Err(_) => refusals.push(NoBid::Late),
        }
    }
    let refusal = summary::summary(bidders.len(), refusals);
    Err(volumes::refused_there(&request.config, refusal))
}

#[cfg(test)]
mod tests;
