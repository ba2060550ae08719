//! The state that a watch may begin with, as if all of it had just been added.
//!
//! Informers begin like this, many at once after a restart, so it is written while it is sent: what
//! waits is references to what the store holds anyway.

use std::sync::Arc;

use bytes::Bytes;

use super::{Encoder, Query};
use crate::api::{Api, EventKind, List, ListOptions, StoredList};
use crate::resource::Row;
use crate::server::codec::Representation;
use crate::status::Status;

/// Of lines, gathered before they are sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// What there is, decoded only where somebody has to look at it.
pub(super) enum Listed {
    Stored(StoredList),
    Decoded(List),
}

impl Listed {
    pub(super) async fn of(
        api: &Api,
        resource: &Row,
        namespace: Option<&str>,
        options: &ListOptions,
        representation: Representation,
    ) -> Result<Self, Status> {
        if representation == Representation::Object
            && let Some(list) = api.list_stored(resource, namespace, options).await?
        {
            return Ok(Self::Stored(list));
        }
        let list = api.list_with(resource, namespace, options).await?;
        Ok(Self::Decoded(list))
    }

    pub(super) fn rev(&self) -> u64 {
        match self {
            Self::Stored(list) => list.rev,
            Self::Decoded(list) => list.rev,
        }
    }
}

/// What of it is still to be sent.
pub(super) struct Initial {
    stored: std::vec::IntoIter<(Arc<str>, store::Entry)>,
    lines: std::vec::IntoIter<Bytes>,
    /// The revision of the mark that ends it.
    end: Option<u64>,
}

impl Initial {
    /// The client does not ask for it.
    pub(super) fn none() -> Self {
        Self {
            stored: Vec::new().into_iter(),
            lines: Vec::new().into_iter(),
            end: None,
        }
    }

    pub(super) fn of(listed: Listed, query: &Query, encoder: &mut Encoder) -> Self {
        let mut initial = Self::none();
        if query.get("sendInitialEvents") == "false" {
            return initial;
        }
        let is_marked = query.flag("sendInitialEvents") && query.flag("allowWatchBookmarks");
        initial.end = is_marked.then(|| listed.rev());
        match listed {
            Listed::Stored(list) => initial.stored = list.entries.into_iter(),
            // A decoded object weighs ten times its line.
            Listed::Decoded(list) => {
                let added = EventKind::Added.as_str();
                let items = list.items.into_iter();
                let lines: Vec<_> = items.map(|object| encoder.event(added, object)).collect();
                initial.lines = lines.into_iter();
            }
        }
        initial
    }

    /// The next lines; `None` when all have been sent.
    pub(super) fn next(&mut self, encoder: &mut Encoder) -> Option<Bytes> {
        let mut lines = Vec::new();
        while lines.len() < CHUNK_BYTES {
            if let Some((_, entry)) = self.stored.next() {
                encoder.stored(EventKind::Added, &entry, entry.rev, &mut lines);
            } else if let Some(line) = self.lines.next() {
                lines.extend_from_slice(&line);
            } else if let Some(rev) = self.end.take() {
                lines.extend_from_slice(&encoder.bookmark(rev, true));
            } else {
                break;
            }
        }
        (!lines.is_empty()).then(|| lines.into())
    }
}
