//! The worker's durable memory.

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {doing} the ledger")]
    Sqlite {
        doing: &'static str,
        source: rusqlite::Error,
    },
}
