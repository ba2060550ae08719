//! Placement: asks every worker at once what it could do, and reserves on the best.
//!
//! It never hunts: one question, one deadline, one answer, which is a reservation or a [`NoBid`].
//! Who wants to try again somewhere else (Kubernetes does) decides that for itself.

mod rank;

use std::time::Duration;

use crate::worker::{BidRequest, Handle, NoBid, Reservation};

pub use rank::{Offer, rank};

/// Time in which a worker has to bid; one that is late does not take part.
pub const BID_DEADLINE: Duration = Duration::from_millis(250);

/// A machine's place: the worker that promised it, and the promise.
#[derive(Debug, Clone)]
pub struct Place {
    pub worker: Handle,
    pub reservation: Reservation,
}

/// Finds a place for a machine: asks all `workers`, and reserves on the best that will have it.
///
/// # Errors
/// The refusal that is most worth knowing: of several, one that may pass with time.
pub async fn place(workers: &[Handle], request: &BidRequest) -> Result<Place, NoBid> {
    let asked = workers
        .iter()
        .enumerate()
        .map(|(worker, handle)| async move {
            let bid = tokio::time::timeout(BID_DEADLINE, handle.bid(request)).await;
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
    for offer in offers {
        let worker = &workers[offer.worker];
        match worker.reserve(request).await {
            Ok(reservation) => {
                return Ok(Place {
                    worker: worker.clone(),
                    reservation,
                });
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    refusals.sort_by_key(|refusal| !refusal.retryable());
    Err(refusals.into_iter().next().unwrap_or(NoBid::Late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::World;

    fn request(config: &str) -> BidRequest {
        let config = crate::worker::check(serde_json::from_str(config).unwrap()).unwrap();
        BidRequest {
            app: "web".parse().unwrap(),
            network: types::NetworkId::try_from(7).unwrap(),
            region: String::new(),
            config,
        }
    }

    #[tokio::test]
    async fn room_is_promised_by_one_worker_or_refused_by_all() {
        let world = World::new();
        let worker = world.start().await;
        let workers = [worker.handle(), worker.handle()];
        let large = request(r#"{"image": "x", "guest": {"memory_mb": 3000}}"#);
        assert!(place(&workers, &large).await.is_ok());
        // The promise takes the room, though no machine was made of it yet.
        let refused = place(&workers, &large).await.unwrap_err();
        assert!(matches!(refused, NoBid::InsufficientMemory { .. }));
        let elsewhere = BidRequest {
            region: "mars".into(),
            ..large
        };
        let refused = place(&workers, &elsewhere).await.unwrap_err();
        assert!(matches!(refused, NoBid::RegionUnknown { .. }));
        assert_eq!(place(&[], &elsewhere).await.unwrap_err(), NoBid::Late);
        worker.shutdown().await;
    }
}
