//! What can be asked of a backend.

use std::sync::Arc;

use bytes::Bytes;

/// What a key is to hold after a transaction, whatever it held before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub key: Arc<str>,
    /// `None`: the key is removed, if it is there.
    pub value: Option<Bytes>,
}

impl Set {
    /// The key with this value.
    pub fn put(key: impl Into<Arc<str>>, value: Bytes) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
        }
    }

    /// The key without a value.
    pub fn remove(key: impl Into<Arc<str>>) -> Self {
        Self {
            key: key.into(),
            value: None,
        }
    }
}

pub(crate) enum Op {
    Create {
        value: Bytes,
        expires_unix_s: Option<u64>,
    },
    Update {
        expect_rev: u64,
        value: Bytes,
        expires_unix_s: Option<u64>,
    },
    Delete {
        expect_rev: u64,
    },
}

impl Op {
    /// Values are kept for long. One that was serialised a moment ago often owns twice the memory
    /// that it fills, or a part of something larger.
    pub(crate) fn compact(self) -> Self {
        match self {
            Self::Create {
                value,
                expires_unix_s,
            } => Self::Create {
                value: Bytes::copy_from_slice(&value),
                expires_unix_s,
            },
            Self::Update {
                expect_rev,
                value,
                expires_unix_s,
            } => Self::Update {
                expect_rev,
                value: Bytes::copy_from_slice(&value),
                expires_unix_s,
            },
            delete @ Self::Delete { .. } => delete,
        }
    }
}
