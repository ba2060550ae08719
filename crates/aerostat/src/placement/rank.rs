//! The order of bids. Pure.

use std::cmp::Reverse;

use crate::worker::Bid;

/// A bid and whose it is: an index into the workers that were asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub worker: usize,
    pub bid: Bid,
}

/// Load is compared in steps of this many percent, so that a warm image counts among workers that
/// are about equally busy.
const LOAD_STEP_PERCENT: u32 = 10;

/// Puts the best offer first: spread (fewest replicas, then the least loaded), then a warm image,
/// then most free memory. Equals stay in the order in which they came.
pub fn rank(offers: &mut [Offer]) {
    offers.sort_by_key(|offer| {
        let bid = &offer.bid;
        (
            bid.replicas,
            bid.load_percent / LOAD_STEP_PERCENT,
            !bid.images_present,
            Reverse(bid.free_memory_mb),
        )
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(worker: usize, load_percent: u32, images_present: bool, free_memory_mb: u64) -> Offer {
        Offer {
            worker,
            bid: Bid {
                replicas: 0,
                load_percent,
                images_present,
                free_memory_mb,
            },
        }
    }

    fn order(mut offers: Vec<Offer>) -> Vec<usize> {
        rank(&mut offers);
        offers.iter().map(|offer| offer.worker).collect()
    }

    proptest! {
        #[test]
        fn machines_placed_one_by_one_are_as_even_as_can_be(
            loads in proptest::collection::vec((0_u32..100, any::<bool>(), 0_u64..9999), 1..9),
            machines in 0_u32..40,
        ) {
            let offers = loads.iter().enumerate();
            let mut offers: Vec<Offer> = offers
                .map(|(worker, (load, images, free))| offer(worker, *load, *images, *free))
                .collect();
            for _ in 0..machines {
                rank(&mut offers);
                offers[0].bid.replicas += 1;
            }
            let replicas = || offers.iter().map(|offer| offer.bid.replicas);
            prop_assert!(replicas().max().unwrap() - replicas().min().unwrap() <= 1);
        }

        #[test]
        fn the_best_does_not_depend_on_the_order_of_answers(
            bids in proptest::collection::vec((0_u32..3, 0_u32..30, any::<bool>(), 0_u64..3), 1..9),
            by in 0_usize..9,
        ) {
            let offers = bids.iter().enumerate();
            let mut offers: Vec<Offer> = offers
                .map(|(worker, (replicas, load, images, free))| {
                    let mut offer = offer(worker, *load, *images, *free);
                    offer.bid.replicas = *replicas;
                    offer
                })
                .collect();
            let mut turned = offers.clone();
            turned.rotate_left(by % bids.len());
            rank(&mut offers);
            rank(&mut turned);
            let key = |offer: &Offer| {
                let bid = offer.bid;
                (bid.replicas, bid.load_percent / LOAD_STEP_PERCENT, bid.images_present)
            };
            prop_assert_eq!(key(&offers[0]), key(&turned[0]));
            let fewest = offers.iter().map(|offer| offer.bid.replicas).min();
            prop_assert_eq!(Some(offers[0].bid.replicas), fewest);
        }
    }

    #[test]
    fn a_host_with_fewer_replicas_comes_before_an_idle_one() {
        let mut crowded = offer(0, 0, true, 9);
        crowded.bid.replicas = 1;
        assert_eq!(order(vec![crowded, offer(1, 90, false, 1)]), [1, 0]);
    }

    #[test]
    fn the_least_loaded_worker_comes_first() {
        assert_eq!(
            order(vec![offer(0, 90, true, 9), offer(1, 20, false, 1)]),
            [1, 0]
        );
    }

    #[test]
    fn a_warm_image_decides_between_equally_loaded_workers() {
        assert_eq!(
            order(vec![offer(0, 21, false, 9), offer(1, 28, true, 1)]),
            [1, 0]
        );
    }

    #[test]
    fn memory_decides_last_and_equals_keep_their_order() {
        assert_eq!(
            order(vec![offer(0, 5, true, 1), offer(1, 5, true, 2)]),
            [1, 0]
        );
        assert_eq!(
            order(vec![offer(0, 5, true, 1), offer(1, 5, true, 1)]),
            [0, 1]
        );
    }
}
