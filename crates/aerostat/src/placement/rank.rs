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

/// Puts the best offer first: spread (the least loaded), then a warm image, then most free
/// memory. Equals stay in the order in which they came.
pub fn rank(offers: &mut [Offer]) {
    offers.sort_by_key(|offer| {
        let bid = &offer.bid;
        (
            bid.load_percent / LOAD_STEP_PERCENT,
            !bid.images_present,
            Reverse(bid.free_memory_mb),
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(worker: usize, load_percent: u32, images_present: bool, free_memory_mb: u64) -> Offer {
        Offer {
            worker,
            bid: Bid {
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
