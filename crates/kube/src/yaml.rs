//! YAML bodies. JSON is YAML, and most bodies that say they are YAML are JSON.

use serde_json::Value;

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
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: LEVELS_MAX },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPEATED_NODES_MAX,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    serde_saphyr::from_slice_with_options(bytes, options)
        .map_err(|error| YamlError(error.to_string().lines().next().unwrap_or("").to_owned()))
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
