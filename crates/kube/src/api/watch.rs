//! Watch: what happens to the selected objects.

use serde_json::Value;
use std::collections::VecDeque;
use store::WatchError;

use super::{Api, Selector, decode, decode_at};
use crate::resource::Resource;
use crate::status::Status;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It exists, or has begun to match the selector.
    Added,
    Modified,
    /// It is gone, or has ceased to match; the object is its last state.
    Deleted,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub object: Value,
    pub rev: u64,
}

/// Events of the selected objects in the order of their revisions. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    watch: store::Watch,
    selector: Selector,
    ready: VecDeque<store::Event>,
}

impl Api {
    /// Everything that happens after revision `from_rev`, of all namespaces if `namespace` is
    /// `None`. 410 if that is longer ago than the kept history: list, and watch from there.
    pub fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        from_rev: u64,
        selector: Selector,
    ) -> Result<Watch, Status> {
        let prefix = resource.prefix(namespace);
        let watch = self.store.watch(&prefix, from_rev).map_err(ended)?;
        Ok(Watch {
            watch,
            selector,
            ready: VecDeque::new(),
        })
    }
}

impl Watch {
    /// The next event. May be dropped at any point without losing one.
    pub async fn next(&mut self) -> Result<Event, Status> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(event) = self.select(&event)? {
                    return Ok(event);
                }
            }
            self.ready = self.watch.next().await.map_err(ended)?.into();
        }
    }

    /// Everything up to this revision has been returned: what a bookmark tells.
    pub fn rev(&self) -> u64 {
        match self.ready.front() {
            Some(event) => event.rev - 1,
            None => self.watch.position(),
        }
    }

    fn select(&self, event: &store::Event) -> Result<Option<Event>, Status> {
        let seen = |entry: &Option<store::Entry>| -> Result<Option<Value>, Status> {
            let object = entry.as_ref().map(decode).transpose()?;
            Ok(object.filter(|object| self.selector.matches(object)))
        };
        let after = seen(&event.after)?;
        // Decoding the former state is only needed to know whether a selector matched it.
        let was = match (&event.before, self.selector.is_everything()) {
            (None, _) => false,
            (Some(_), true) => true,
            (before @ Some(_), false) => seen(before)?.is_some(),
        };
        let rev = event.rev;
        Ok(match (was, after) {
            (false, None) => None,
            (false, Some(object)) => Some(Event {
                kind: EventKind::Added,
                object,
                rev,
            }),
            (true, Some(object)) => Some(Event {
                kind: EventKind::Modified,
                object,
                rev,
            }),
            (true, None) => {
                // Of an object that is gone the last state, of one that no longer matches the
                // present one; both with the revision of the change.
                let last = event.after.as_ref().or(event.before.as_ref());
                let object = last.map(|entry| decode_at(entry, rev)).transpose()?;
                object.map(|object| Event {
                    kind: EventKind::Deleted,
                    object,
                    rev,
                })
            }
        })
    }
}

fn ended(error: WatchError) -> Status {
    match error {
        WatchError::Compacted { rev, floor } => Status::too_old(rev, floor),
        WatchError::Future { rev, current } => Status::too_large(rev, current),
        WatchError::Closed => Status::unavailable("the API server is shutting down"),
    }
}
