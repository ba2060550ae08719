//! What the authority and the copies send each other.
//!
//! A watch is an answer of JSON lines. After `start`, `row` lines say what became of keys, and
//! `reached` that everything up to a revision has been told; only then does the copy show it. The
//! same line says, every few seconds, that the authority is still there.

use serde::{Deserialize, Serialize};

use super::command::Reply;
use super::error::Refused;

pub(super) const COMMAND: &str = "/directory/v1/command";
pub(super) const LOOK_UP: &str = "/directory/v1/look-up";
pub(super) const WATCH: &str = "/directory/v1/watch";

/// Where a copy is; the question of a watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Made up by the authority at each start, because a store that was put back from a backup
    /// counts the same revisions again for other writes. 0: none.
    pub epoch: u64,
    /// Everything up to this revision of that epoch is known.
    pub revision: u64,
}

/// A change that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Who has come so far has seen it.
    pub at: From,
    pub reply: Reply,
}

/// The authority's answer to a command.
pub type Answer = Result<Outcome, Failure>;

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Failure {
    Refused(Refused),
    /// The authority does not work.
    Failed(String),
}

/// A question for one row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LookUp {
    pub(super) key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Start {
        epoch: u64,
        /// The rows up to the first `reached` are all there are; otherwise they are changes.
        everything: bool,
    },
    Row {
        key: String,
        /// `None`: removed.
        value: Option<String>,
    },
    Reached {
        revision: u64,
    },
}
