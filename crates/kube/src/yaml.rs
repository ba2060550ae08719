//! YAML bodies. JSON is YAML, and most bodies that say they are YAML are JSON.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::strict::{self, Read};

/// Levels of an object: what fits the stack of a thread that answers requests, in a debug build too.
/// Bodies that are JSON may have twice as many.
const LEVELS_MAX: usize = 64;
/// What aliases may bring in. People use them for a few labels.
const REPEATED_NODES_MAX: usize = 20_000;

/// The body is not YAML, or so much comes out of its aliases that it is an attack.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct YamlError(String);

/// Reads one document, with the words of YAML 1.1 (`yes`, `off`), as Go does; of keys that are
/// given twice the last counts.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, YamlError> {
    read::<false>(bytes).map(|read| read.value)
}

/// [`parse`] that notices keys given twice.
pub(crate) fn read<const MERGE: bool>(bytes: &[u8]) -> Result<Read<MERGE>, YamlError> {
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(read) = strict::from_json(bytes)
    {
        return Ok(read);
    }
    from_yaml(bytes)
}

/// The keys that were there before, with the lines of their values, inner ones first.
pub(crate) fn repeated(bytes: &[u8]) -> Vec<(u64, String)> {
    // The text was read once, so nothing is wrong with it.
    from_yaml::<Repeated>(bytes).map_or_else(|_| Vec::new(), |repeated| repeated.0)
}

fn from_yaml<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, YamlError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: LEVELS_MAX },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPEATED_NODES_MAX,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    serde_saphyr::from_slice_with_options(bytes, options)
        .map_err(|error| YamlError(error.to_string().lines().next().unwrap_or("").to_owned()))
}

/// Upstream tells no more of one body.
const REPEATED_MAX: usize = 100;

#[derive(Default)]
struct Repeated(Vec<(u64, String)>);

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Search)
    }
}

struct Search;

impl<'de> Visitor<'de> for Search {
    type Value = Repeated;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any YAML node")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_unit<E>(self) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_none<E>(self) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Repeated, D::Error> {
        Deserialize::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Repeated, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element::<Repeated>()? {
            all.extend(item.0);
            if all.len() >= REPEATED_MAX {
                while items.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(Repeated(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Repeated, A::Error> {
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            let value = fields.next_value::<Spanned<Repeated>>()?;
            all.extend(value.value.0);
            if !seen.contains(&key) {
                seen.insert(key);
            } else if all.len() < REPEATED_MAX {
                all.push((value.referenced.line(), key));
            }
        }
        Ok(Repeated(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, YamlError> {
        parse(text.as_bytes())
    }

    #[test]
    fn documents_are_read_as_go_reads_them() {
        let text = "# a comment\napiVersion: v1\nmetadata: {name: a, labels: {on: 'off'}}\n\
                    spec:\n  suspend: no\n  port: 80\n  half: 0.5\n  mode: \"0644\"\n  none: ~\n\
                    text: |\n  one\n  two\n";
        let expected = json!({
            "apiVersion": "v1", "metadata": {"name": "a", "labels": {"on": "off"}},
            "spec": {"suspend": false, "port": 80, "half": 0.5, "mode": "0644", "none": null},
            "text": "one\ntwo\n",
        });
        assert_eq!(read(text).expect("reads"), expected);
        assert_eq!(read(" {\"a\": [1]}").expect("reads"), json!({"a": [1]}));
        assert_eq!(read("a: 1\na: 2").expect("reads"), json!({"a": 2}));
    }

    #[test]
    fn what_is_no_document_or_too_much_is_refused() {
        assert!(read("a: [").is_err());
        let deep = "[".repeat(1000);
        assert!(read(&deep).is_err());
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = level - 1;
            let ten = vec![format!("*a{before}"); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{ten}]\n");
        }
        assert!(read(&laughs).is_err());
    }
}
