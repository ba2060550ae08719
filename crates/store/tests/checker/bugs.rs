//! Bugs that the judge must find, planted between the store and its clients.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bug {
    None,
    /// The last write before a crash is not there after it.
    LostOnCrash,
    /// A removed key is back after a crash.
    ResurrectedOnCrash,
    /// An update does not look at the revision it expects.
    BlindUpdate,
    /// A conflict is told where there is none.
    FalseConflict,
    /// A write is done and its writer is told that it was not.
    DoneButRefused,
    /// A read is of a moment ago.
    StaleGet,
    /// A list bears a later revision than what it shows.
    ListOfAnotherRevision,
    /// With several servers: reads do not ask for the latest revision, as after a long pause.
    ReadWithoutSync,
    /// A transaction is done in two steps.
    HalfTransaction,
    /// A watch loses an event.
    WatchDropsEvent,
    /// A watch loses a removal when history is compacted.
    WatchDropsRemovalAtCompaction,
    /// A watch tells an event twice.
    WatchRepeats,
    /// Two events come in the wrong order.
    WatchOutOfOrder,
    /// A watch that goes on from a revision leaves out the first event after it.
    ResumeSkips,
    /// A watch claims to have told everything up to a revision before it has.
    BookmarkTooEarly,
    /// A watch tells of keys that nobody asked for.
    WatchIgnoresPrefix,
    /// An event has another former value than the key had.
    WrongFormerValue,
    /// An update looks like a creation.
    UpdateLooksCreated,
    /// A watch stops telling, and does not end.
    StarvedWatch,
    /// A watch is told to list again though nothing was forgotten.
    NeedlessCompaction,
}

impl Bug {
    /// Those that one server with its own database can have.
    pub(crate) const OF_ONE_SERVER: [Self; 19] = [
        Self::LostOnCrash,
        Self::ResurrectedOnCrash,
        Self::BlindUpdate,
        Self::FalseConflict,
        Self::DoneButRefused,
        Self::StaleGet,
        Self::ListOfAnotherRevision,
        Self::HalfTransaction,
        Self::WatchDropsEvent,
        Self::WatchDropsRemovalAtCompaction,
        Self::WatchRepeats,
        Self::WatchOutOfOrder,
        Self::ResumeSkips,
        Self::BookmarkTooEarly,
        Self::WatchIgnoresPrefix,
        Self::WrongFormerValue,
        Self::UpdateLooksCreated,
        Self::StarvedWatch,
        Self::NeedlessCompaction,
    ];
}
