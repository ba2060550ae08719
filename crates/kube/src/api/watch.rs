//! Watch: what happens to the selected objects.

use serde_json::Value;
use std::collections::VecDeque;
use store::WatchError;

use super::stored::{convert_one, decode_at};
use super::{Api, Selector, Verbatim};
use crate::resource::Row;
use crate::secrecy;
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

/// An event, decoded only where somebody had to look at it.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    Stored {
        kind: EventKind,
        entry: store::Entry,
        rev: u64,
    },
    Object(Event),
}

/// Events of the selected objects in the order of their revisions. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    resource: Row,
    watch: secrecy::Watch,
    selector: Selector,
    verbatim: Verbatim,
    ready: VecDeque<store::Event>,
}

impl Api {
    /// Everything that happens after revision `from_rev`, of all namespaces if `namespace` is
    /// `None`. 410 if that is longer ago than the kept history: list, and watch from there.
    pub fn watch(
        &self,
        resource: impl Into<Row>,
        namespace: Option<&str>,
        from_rev: u64,
        selector: Selector,
    ) -> Result<Watch, Status> {
        let resource = resource.into();
        let prefix = resource.prefix(namespace);
        let watch = self.store.watch(&prefix, from_rev).map_err(ended)?;
        Ok(Watch {
            verbatim: Verbatim::of(&resource),
            resource,
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
            // An event is taken out when it is converted: this future may be dropped before.
            while let Some(event) = self.ready.front() {
                let selected = self.select(event).await;
                self.ready.pop_front();
                if let Some(event) = selected? {
                    return Ok(event);
                }
            }
            self.ready = self.watch.next().await.map_err(ended)?.into();
        }
    }

    /// [`Self::next`], not decoded where nothing in the object matters.
    pub(crate) async fn next_shown(&mut self) -> Result<Shown, Status> {
        loop {
            while let Some(event) = self.ready.front() {
                if let Some(shown) = self.as_stored(event) {
                    self.ready.pop_front();
                    return Ok(shown);
                }
                let selected = self.select(event).await;
                self.ready.pop_front();
                if let Some(event) = selected? {
                    return Ok(Shown::Object(event));
                }
            }
            self.ready = self.watch.next().await.map_err(ended)?.into();
        }
    }

    fn as_stored(&self, event: &store::Event) -> Option<Shown> {
        let entry = event.after.as_ref().or(event.before.as_ref())?;
        if !self.selector.is_everything() || !self.verbatim.fits(entry) {
            return None;
        }
        let kind = match (&event.before, &event.after) {
            (None, _) => EventKind::Added,
            (Some(_), Some(_)) => EventKind::Modified,
            (Some(_), None) => EventKind::Deleted,
        };
        let (entry, rev) = (entry.clone(), event.rev);
        Some(Shown::Stored { kind, entry, rev })
    }

    /// Everything up to this revision has been returned: what a bookmark tells.
    pub fn rev(&self) -> u64 {
        match self.ready.front() {
            Some(event) => event.rev - 1,
            None => self.watch.position(),
        }
    }

    /// The entry as it is shown, with the revision `rev`.
    async fn show(&self, entry: &store::Entry, rev: u64) -> Result<Value, Status> {
        let object = decode_at(&self.resource, entry, rev)?;
        convert_one(&self.resource, object).await
    }

    /// The entry as it is shown, if it is selected.
    async fn seen(&self, entry: Option<&store::Entry>) -> Result<Option<Value>, Status> {
        let Some(entry) = entry else {
            return Ok(None);
        };
        let object = self.show(entry, entry.rev).await?;
        Ok(Some(object).filter(|object| self.selector.matches(object)))
    }

    async fn select(&self, event: &store::Event) -> Result<Option<Event>, Status> {
        // Whoever waits for one object does not parse all the others.
        let name = event.key.rsplit('/').next();
        if self
            .selector
            .only_name()
            .is_some_and(|only| Some(only) != name)
        {
            return Ok(None);
        }
        let after = self.seen(event.after.as_ref()).await?;
        // Decoding the former state is only needed to know whether a selector matched it.
        let was = match (&event.before, self.selector.is_everything()) {
            (None, _) => false,
            (Some(_), true) => true,
            (Some(before), false) => self.seen(Some(before)).await?.is_some(),
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
                let Some(last) = last else {
                    return Ok(None);
                };
                Some(Event {
                    kind: EventKind::Deleted,
                    object: self.show(last, rev).await?,
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
