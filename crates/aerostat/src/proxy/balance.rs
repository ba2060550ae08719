//! Which backend a connection goes to. Pure.

/// What is known of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// That this host has open with it, also those that are only being opened.
    pub(super) connections: usize,
    /// It could not be reached a short while ago.
    pub(super) failed: bool,
    /// This very connection has tried it.
    pub(super) tried: bool,
}

/// The backend with the fewest connections, of those that have not failed if there are any, that
/// has not been tried; `turn`, any number, chooses among equals. `None` if all have been tried.
///
/// Takes what was known at one moment: other connections come and go meanwhile.
pub(super) fn pick(loads: &[Load], turn: usize) -> Option<usize> {
    let rank = |load: &Load| (load.failed, load.connections);
    let untried = loads.iter().enumerate().filter(|(_, load)| !load.tried);
    let best = untried.clone().map(|(_, load)| rank(load)).min()?;
    // Those that are as good: by their number, so that each of them is as likely as the others,
    // wherever they stand.
    let equals = untried.filter(|(_, load)| rank(load) == best);
    let count = equals.clone().count();
    equals.map(|(index, _)| index).nth(turn % count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load() -> impl Strategy<Value = Load> {
        (0_usize..4, any::<bool>(), any::<bool>()).prop_map(|(connections, failed, tried)| Load {
            connections,
            failed,
            tried,
        })
    }

    proptest! {
        #[test]
        fn nobody_untried_is_better_than_the_one_picked(
            loads in proptest::collection::vec(load(), 0..20), turn: usize,
        ) {
            let untried: Vec<_> = loads.iter().filter(|load| !load.tried).collect();
            match pick(&loads, turn) {
                None => prop_assert!(untried.is_empty()),
                Some(index) => {
                    let picked = loads[index];
                    prop_assert!(!picked.tried);
                    prop_assert!(!picked.failed || untried.iter().all(|load| load.failed));
                    for load in untried.iter().filter(|load| load.failed == picked.failed) {
                        prop_assert!(load.connections >= picked.connections);
                    }
                }
            }
        }

        #[test]
        fn every_backend_is_tried_once_and_then_no_more(
            mut loads in proptest::collection::vec(load(), 0..20), turns: [usize; 21],
        ) {
            let mut left = loads.iter().filter(|load| !load.tried).count();
            for turn in turns {
                let Some(index) = pick(&loads, turn) else { break };
                prop_assert!(!loads[index].tried);
                loads[index].tried = true;
                left -= 1;
            }
            prop_assert_eq!(left, 0);
        }

        #[test]
        fn connections_that_stay_are_spread_evenly(backends in 1_usize..9, turns: [usize; 64]) {
            let mut loads = vec![Load { connections: 0, failed: false, tried: false }; backends];
            for turn in turns {
                let index = pick(&loads, turn).unwrap();
                loads[index].connections += 1;
            }
            let all = || loads.iter().map(|load| load.connections);
            prop_assert!(all().max().unwrap() - all().min().unwrap() <= 1);
        }
    }

    #[test]
    fn turns_go_round_among_equals_only() {
        let load = |connections, failed| Load {
            connections,
            failed,
            tried: false,
        };
        let loads = [
            load(1, false),
            load(0, false),
            load(0, true),
            load(0, false),
        ];
        let picks: Vec<_> = (0..4).map(|t| pick(&loads, t)).collect();
        assert_eq!(picks, [Some(1), Some(3), Some(1), Some(3)]);
    }
}
