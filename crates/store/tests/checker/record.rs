//! What was asked, what was answered, and when.

use serde::{Deserialize, Serialize};

/// A key as a read or an event shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) rev: u64,
    pub(crate) create_rev: u64,
    pub(crate) value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    Create {
        key: String,
        value: String,
    },
    Update {
        key: String,
        expect: u64,
        value: String,
    },
    Delete {
        key: String,
        expect: u64,
    },
    /// Both keys get the value, whatever they held.
    Pair {
        value: String,
    },
    Get {
        key: String,
    },
    List {
        prefix: String,
    },
    Compact {
        keep: u64,
    },
    /// The rest of the connection is a stream of [`Told`].
    Watch {
        prefix: String,
        from: u64,
    },
}

pub(crate) const PAIR: [&str; 2] = ["/pair/a", "/pair/b"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done {
        rev: u64,
    },
    Exists,
    NotFound,
    Conflict {
        actual: u64,
    },
    /// Not done, unless the process dies before the next write.
    Refused {
        why: String,
    },
    /// The connection ended, or the store does not know either.
    Unknown {
        why: String,
    },
    Got(Option<Seen>),
    Listed {
        rev: u64,
        all: Vec<Seen>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) rev: u64,
    pub(crate) key: String,
    pub(crate) before: Option<Seen>,
    pub(crate) after: Option<Seen>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    Events {
        events: Vec<Happened>,
        position: u64,
    },
    Compacted {
        floor: u64,
    },
    Ended,
}

/// One question and its answer. Times are of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) ask: Ask,
    pub(crate) answer: Answer,
    pub(crate) called_ns: u64,
    pub(crate) returned_ns: u64,
}

/// One watch from its start to its end.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) prefix: String,
    pub(crate) from: u64,
    pub(crate) batches: Vec<(Vec<Happened>, u64)>,
    pub(crate) refused_below: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) operations: Vec<Operation>,
    pub(crate) streams: Vec<Stream>,
    /// The highest revision that history may have been forgotten up to.
    pub(crate) compacted: u64,
    /// Watchers that were not told of the last write.
    pub(crate) starved: Vec<String>,
}
