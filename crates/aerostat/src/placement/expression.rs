//! Region expressions: codes and names of groups, those that are preferred first. Pure.
//!
//! A fleet may call its regions as it likes. The groups are those of Fly.io, and so are the codes
//! in them; `any` is every region that there is.

use std::collections::BTreeSet;

use crate::worker::NoBid;

const ANY: &str = "any";
/// Codes by group. `us` is a part of `na`.
const GROUPS: [(&str, &[&str]); 5] = [
    ("apac", &["bom", "hkg", "nrt", "sin", "syd"]),
    (
        "eu",
        &["ams", "arn", "cdg", "fra", "lhr", "mad", "otp", "waw"],
    ),
    (
        "na",
        &[
            "atl", "bos", "den", "dfw", "ewr", "gdl", "iad", "lax", "mia", "ord", "phx", "qro",
            "sea", "sjc", "yul", "yyz",
        ],
    ),
    ("sa", &["bog", "eze", "gig", "gru", "scl"]),
    (
        "us",
        &[
            "atl", "bos", "den", "dfw", "ewr", "iad", "lax", "mia", "ord", "phx", "sea", "sjc",
        ],
    ),
];

/// Regions that somebody would have, in their order; each is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions(Vec<String>);

impl Regions {
    /// Reads `expression` in a fleet with the regions `known`. The empty one is every region, with
    /// none preferred. Codes that no host is in are passed over when others are left.
    ///
    /// # Errors
    /// [`NoBid::RegionUnknown`] if none is left.
    pub fn read(expression: &str, known: &BTreeSet<String>) -> Result<Self, NoBid> {
        let words = expression.split(',').map(str::trim);
        let mut regions: Vec<String> = Vec::new();
        for word in words.filter(|word| !word.is_empty()) {
            for region in known.iter().filter(|region| is_in(region, word)) {
                if !regions.contains(region) {
                    regions.push(region.clone());
                }
            }
        }
        if regions.is_empty() && !expression.trim().is_empty() {
            let region = expression.chars().take(80).collect();
            let known: Vec<String> = known.iter().map(|region| format!("`{region}`")).collect();
            let known = known.join(", ");
            return Err(NoBid::RegionUnknown { region, known });
        }
        Ok(Self(regions))
    }

    /// The regions in their order; none: every region.
    pub fn in_order(&self) -> &[String] {
        &self.0
    }

    /// How many regions are preferred to this one; `None` if it is not wanted.
    pub fn rank(&self, region: &str) -> Option<usize> {
        if self.0.is_empty() {
            return Some(0);
        }
        self.0.iter().position(|wanted| wanted == region)
    }

    /// The only region, if there is only one.
    pub fn only(&self) -> Option<&str> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

fn is_in(region: &str, word: &str) -> bool {
    let group = GROUPS.iter().find(|(group, _)| *group == word);
    region == word || word == ANY || group.is_some_and(|(_, codes)| codes.contains(&region))
}

/// The group of a region's code; empty for codes of one's own.
pub fn group(region: &str) -> &'static str {
    let group = GROUPS.iter().find(|(_, codes)| codes.contains(&region));
    group.map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(expression: &str) -> Result<Vec<String>, NoBid> {
        let known = ["ams", "fra", "local", "ord"].map(str::to_owned);
        Ok(Regions::read(expression, &known.into())?.0)
    }

    #[test]
    fn codes_and_groups_are_read_in_their_order() {
        assert_eq!(read("fra").unwrap(), ["fra"]);
        assert_eq!(read(" ord , eu").unwrap(), ["ord", "ams", "fra"]);
        assert_eq!(read("fra,any").unwrap(), ["fra", "ams", "local", "ord"]);
        assert_eq!(read("us").unwrap(), ["ord"]);
        assert_eq!(read("lhr,local").unwrap(), ["local"]);
        assert_eq!(read("").unwrap(), Vec::<String>::new());
        for wrong in ["mars", "apac", "lhr"] {
            let unknown = read(wrong).unwrap_err();
            assert!(unknown.to_string().contains("`fra`"), "{unknown}");
        }
        assert_eq!(
            [group("fra"), group("ord"), group("local")],
            ["eu", "na", ""]
        );
    }

    #[test]
    fn what_is_not_wanted_has_no_rank() {
        let known = ["ams", "fra"].map(str::to_owned).into();
        let regions = Regions::read("fra", &known).unwrap();
        assert_eq!((regions.rank("fra"), regions.rank("ams")), (Some(0), None));
        assert_eq!(regions.only(), Some("fra"));
        let any = Regions::read("", &known).unwrap();
        assert_eq!((any.rank("ams"), any.only()), (Some(0), None));
    }
}
