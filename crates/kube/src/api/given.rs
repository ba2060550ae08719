//! What a client sent, with what only its text tells.

use serde_json::Value;

use super::FieldValidation;
use crate::patch::Patch;
use crate::strict::{self, Text};

/// An object as it was sent.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) object: Value,
    /// Of an object that came over the wire in JSON or YAML.
    pub(crate) text: Option<Text>,
}

impl From<Value> for Given {
    fn from(object: Value) -> Self {
        Self { object, text: None }
    }
}

/// What is wrong with the fields of an object, given the paths that its schema does not know.
pub(super) fn complaints(text: Option<&Text>, is_custom: bool, unknown: &[String]) -> Vec<String> {
    match text {
        Some(text) if is_custom => text.untyped(unknown),
        Some(text) => text.typed(unknown),
        None => strict::told(unknown).collect(),
    }
}

/// A patch as it was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GivenPatch<'a> {
    pub(crate) patch: &'a Patch,
    /// Fields that its text has twice, in words.
    pub(crate) repeated: &'a [String],
}

impl<'a> From<&'a Patch> for GivenPatch<'a> {
    fn from(patch: &'a Patch) -> Self {
        let repeated = &[];
        Self { patch, repeated }
    }
}

/// What to do about complaints: the text of an error, or warnings.
pub(super) fn judged(
    complaints: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, String> {
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            Err(format!("strict decoding error: {}", complaints.join(", ")))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(strict::warnings(complaints)),
    }
}
