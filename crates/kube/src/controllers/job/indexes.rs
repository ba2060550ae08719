//! Sets of completion indexes as the API writes them: `0,2-4,7`. Pure.

use std::collections::BTreeSet;

/// Completion indexes.
pub(super) type Indexes = BTreeSet<i64>;

/// Indexes a text may name, upstream's bound: what follows is left out.
const INDEXES_MAX: usize = 100_000;

/// Those of a text below `end`; what is no index is left out.
pub(super) fn parse(text: &str, end: i64) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else {
            continue;
        };
        let last = last.min(end - 1);
        indexes.extend((first.max(0)..=last).take(INDEXES_MAX - indexes.len().min(INDEXES_MAX)));
    }
    indexes
}

/// In ascending order; a run of three or more as its ends.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            Some(_) | None => runs.push((*index, *index)),
        }
    }
    let texts = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_are_written_by_their_ends() {
        let indexes = Indexes::from([0, 2, 3, 4, 7, 8]);
        assert_eq!(format(&indexes), "0,2-4,7,8");
        assert_eq!(parse("0,2-4,x,9-", 4), Indexes::from([0, 2, 3]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            indexes in prop::collection::btree_set(0..60i64, 0..40)
        ) {
            prop_assert_eq!(parse(&format(&indexes), 60), indexes);
        }
    }
}
