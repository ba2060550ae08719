//! How many machines of one size would go to which region. Pure.

/// A region, and how many of the machines each of its hosts would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub region: String,
    pub hosts: Vec<u64>,
}

/// How much counts for what, in machines: a region is preferred to the next one until it has so
/// many more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// For each step in the order of the regions.
    pub region: i64,
    /// For each machine that a region has been given.
    pub spread: i64,
}

impl Default for Weights {
    /// Fly's.
    fn default() -> Self {
        Self {
            region: 50,
            spread: 1,
        }
    }
}

/// More are not counted one by one.
pub const COUNT_MAX: u64 = 10_000;

/// Machines by region, in the order of `rooms`. A `count` of 0 fills every region. What has no
/// room anywhere is given to none.
pub fn spread(rooms: &[Room], count: u64, weights: Weights) -> Vec<u64> {
    let room: Vec<u64> = rooms.iter().map(|room| room.hosts.iter().sum()).collect();
    if count == 0 {
        return room;
    }
    let mut given = vec![0_u64; rooms.len()];
    for _ in 0..count.min(COUNT_MAX) {
        let cost = |index: usize| {
            let order = i64::try_from(index).unwrap_or(i64::MAX);
            let has = i64::try_from(given[index]).unwrap_or(i64::MAX);
            let order = order.saturating_mul(weights.region);
            order.saturating_add(has.saturating_mul(weights.spread))
        };
        let open = (0..rooms.len()).filter(|index| given[*index] < room[*index]);
        let Some(next) = open.min_by_key(|index| cost(*index)) else {
            break;
        };
        given[next] += 1;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(hosts: &[&[u64]]) -> Vec<Room> {
        let regions = hosts.iter().map(|hosts| Room {
            region: String::new(),
            hosts: hosts.to_vec(),
        });
        regions.collect()
    }

    #[test]
    fn the_first_region_is_preferred_until_it_is_full() {
        let rooms = rooms(&[&[2, 1], &[9]]);
        let by_order = Weights::default();
        assert_eq!(spread(&rooms, 2, by_order), [2, 0]);
        assert_eq!(spread(&rooms, 5, by_order), [3, 2]);
        assert_eq!(spread(&rooms, 99, by_order), [3, 9]);
        assert_eq!(spread(&rooms, 0, by_order), [3, 9]);
    }

    #[test]
    fn evenness_may_count_for_more() {
        let rooms = rooms(&[&[9], &[9]]);
        let even = Weights {
            region: 1,
            spread: 1,
        };
        assert_eq!(spread(&rooms, 5, even), [3, 2]);
        assert_eq!(spread(&[], 5, even), Vec::<u64>::new());
    }
}
