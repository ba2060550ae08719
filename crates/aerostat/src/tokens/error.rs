//! Why a token is none, and why it is not enough.

use jiff::Timestamp;

/// A token that cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
    #[error("the token has more than {blocks_max} blocks")]
    TooManyBlocks { blocks_max: usize },
    #[error("the token is malformed: {reason}")]
    Malformed { reason: String },
    #[error("the token is signed with a key that this fleet does not have")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is sealed: it cannot be restricted further")]
    Sealed,
    #[error("the restriction cannot be written: {reason}")]
    Restriction { reason: String },
}

/// A good token that does not allow what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the token expired at {at}")]
    Expired { at: Timestamp },
    #[error("the token does not allow {wanted}")]
    Missing {
        wanted: String,
        /// The check that failed, in Datalog.
        check: String,
    },
    /// Its checks take longer than they may.
    #[error("the token's checks cannot be computed: {reason}")]
    Unusable { reason: String },
}
