//! What a fuzzer calls of custom resources: paths, and objects against schemas of strangers.

use serde_json::Value;

use super::jsonpath::{self, Path};
use super::schema::Schema;
use super::{prune, rules, structural, validate};

/// Follows `data` as a path through an object that has some of everything.
///
/// # Panics
/// Whatever a fuzzer is to find.
#[doc(hidden)]
pub fn json_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let object = serde_json::json!({
        "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let keys = jsonpath::simple(&text);
    if let Ok(path) = Path::parse(&text) {
        let found = path.find(&object);
        if let Some(keys) = keys {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            assert_eq!(found.first().copied(), crate::object::at(&object, &keys));
        }
    }
}

/// Reads the first line of `data` as a schema and the second as an object of it.
///
/// # Panics
/// If an object that was pruned and defaulted changes when that is done again, or whatever a
/// fuzzer is to find.
#[doc(hidden)]
pub fn custom(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((schema, object)) = text.split_once('\n') else {
        return;
    };
    let (Ok(source), Ok(mut object)) = (
        serde_json::from_str::<Value>(schema),
        serde_json::from_str::<Value>(object),
    ) else {
        return;
    };
    let is_structural = structural::check(&source, "schema").is_empty();
    if is_structural {
        rules::check(&source, "schema");
    }
    let schema = Schema::parse(&source);
    if prune::prune_root(&schema, &mut object).is_err() {
        return;
    }
    if is_structural {
        prune::default(&schema, &mut object);
        let mut again = object.clone();
        assert_eq!(prune::prune_root(&schema, &mut again), Ok(Vec::new()));
        prune::default(&schema, &mut again);
        assert_eq!(again, object);
    }
    let causes = validate::validate(&schema, &object, None);
    assert_eq!(validate::validate(&schema, &object, Some(&object)), []);
    if is_structural && !validate::blocks_rules(&causes) {
        rules::evaluate(&schema, &object, None);
    }
}
