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

mod expression;
mod hosts;
mod rank;
mod spread;
mod summary;
mod volumes;

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use types::HostId;
use types::machine::{Placement, PlacementBid};

use crate::worker::{
    Bid, BidRequest, Handle, NoBid, Remote, Reservation, VolumeBid, VolumeBidRequest,
};

pub use expression::{Regions, group};
pub use hosts::{Host, Hosts, bidders, regions};
pub use rank::{Offer, rank};
pub use spread::{COUNT_MAX, Room, Weights, spread};
pub use volumes::{among_volumes, at_volumes, place_volume};

/// Time in which a worker has to bid; one that is late does not take part. Two round trips (a
/// connection, and the question) within one continent.
pub const BID_DEADLINE: Duration = Duration::from_millis(250);
/// Time for all the reservations that are tried.
pub const RESERVE_DEADLINE: Duration = Duration::from_secs(1);
/// One that falls silent after its bid leaves time for the others.
const RESERVE_EACH: Duration = Duration::from_millis(400);

/// Of these many hosts it is told what they said; the winner is always among them.
const BIDS_MAX: usize = 64;

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

    pub fn region(&self) -> &str {
        match self {
            Self::Here(handle) => handle.region(),
            Self::There(remote) => remote.region(),
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

/// A machine's place: the worker that promised it, the promise, and how it came to that.
#[derive(Debug, Clone)]
pub struct Place {
    pub worker: Bidder,
    pub reservation: Reservation,
    pub placement: Placement,
}

/// There is no place.
#[derive(Debug, Clone, PartialEq)]
pub struct NoPlace {
    /// One answer for all: of one bidder, its own refusal; of several, [`NoBid::NoHost`] with what
    /// each kind lacked, or [`NoBid::Late`] if none has answered.
    pub refusal: NoBid,
    /// What each host said.
    pub placement: Placement,
}

/// What each of `bidders` would do, in their order; all are asked at once.
pub async fn ask(bidders: &[Bidder], request: &BidRequest) -> Vec<Result<Bid, NoBid>> {
    let asked = bidders.iter().map(|bidder| async move {
        let bid = timeout(BID_DEADLINE, bidder.bid(request)).await;
        bid.unwrap_or(Err(NoBid::Late))
    });
    futures::future::join_all(asked).await
}

/// Finds a place for a machine: asks all `bidders`, and reserves on the best that will have it.
/// Those in regions that come first in `regions` are preferred.
///
/// # Errors
/// If none will have it.
pub async fn place(
    bidders: &[Bidder],
    request: &BidRequest,
    regions: &Regions,
) -> Result<Place, NoPlace> {
    let begun = Instant::now();
    let mut told = Told::new(bidders);
    let mut offers = Vec::new();
    let mut refusals = Vec::new();
    for (worker, answer) in ask(bidders, request).await.into_iter().enumerate() {
        match answer {
            Ok(bid) => {
                told.offered(worker, &bid);
                offers.push(Offer { worker, bid });
            }
            Err(refusal) => {
                told.refused(worker, &refusal);
                refusals.push(refusal);
            }
        }
    }
    rank(&mut offers);
    // Stable: within a region the order stays.
    offers.sort_by_key(|offer| regions.rank(bidders[offer.worker].region()));
    let order: Vec<usize> = offers.iter().map(|offer| offer.worker).collect();
    let deadline = Instant::now() + RESERVE_DEADLINE;
    for offer in offers {
        let worker = &bidders[offer.worker];
        let until = deadline.min(Instant::now() + RESERVE_EACH);
        let refusal = match timeout_at(until, worker.reserve(request)).await {
            Ok(Ok(reservation)) => {
                told.won(offer.worker);
                return Ok(Place {
                    worker: worker.clone(),
                    reservation,
                    placement: told.placement(&order, begun.elapsed()),
                });
            }
            Ok(Err(refusal)) => refusal,
            // What it may have promised all the same is over in seconds.
            Err(_) => NoBid::Late,
        };
        told.refused(offer.worker, &refusal);
        refusals.push(refusal);
    }
    let refusal = summary::summary(bidders.len(), refusals);
    Err(NoPlace {
        refusal: volumes::refused_there(&request.config, refusal),
        placement: told.placement(&order, begun.elapsed()),
    })
}

/// What each bidder said, for people who ask later.
struct Told(Vec<PlacementBid>);

impl Told {
    fn new(bidders: &[Bidder]) -> Self {
        let bids = bidders.iter().map(|bidder| PlacementBid {
            host: bidder.host().to_string(),
            region: bidder.region().to_owned(),
            ..PlacementBid::default()
        });
        Self(bids.collect())
    }

    fn offered(&mut self, worker: usize, bid: &Bid) {
        let images = match bid.images_present {
            true => "images here",
            false => "images to be pulled",
        };
        self.0[worker].offer = format!(
            "{} MB free, {} % of memory given out, {} replicas, {images}",
            bid.free_memory_mb, bid.load_percent, bid.replicas
        );
    }

    fn refused(&mut self, worker: usize, refusal: &NoBid) {
        self.0[worker].refusal = refusal.to_string();
    }

    fn won(&mut self, worker: usize) {
        self.0[worker].won = true;
    }

    /// Those of `order` first, then the others.
    fn placement(mut self, order: &[usize], took: Duration) -> Placement {
        let mut bids = Vec::new();
        for worker in order {
            bids.push(std::mem::take(&mut self.0[*worker]));
        }
        bids.extend(self.0.into_iter().filter(|bid| !bid.host.is_empty()));
        bids.truncate(BIDS_MAX);
        Placement {
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            bids,
        }
    }
}

#[cfg(test)]
mod tests;
