//! Does a store keep its promises? Clients and watchers record what they see while processes are
//! killed, paused and starved of disk; then the record is judged.
//!
//! ```text
//!  driver: clients, watchers, faults ──socket──> child process: Store (and a planted bug)
//!     │ record                                      ▲ kill -9, SIGSTOP, full disk, compaction
//!     v
//!  judge: linearizability, nine guarantees of watches, nothing starves
//! ```

pub(crate) mod bugs;
pub(crate) mod child;
pub(crate) mod driver;
pub(crate) mod judge;
pub(crate) mod record;
