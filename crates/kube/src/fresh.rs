//! What a few objects amount to, kept in memory and never behind the store.
//!
//! No task follows the store: who asks first takes in what has happened since the last question.
//! So an answer sees every write that was durable before it was asked for, and while nobody asks
//! nothing is done.

use std::sync::Arc;

use futures::FutureExt;
use serde_json::Value;
use store::{Store, Watch};
use tracing::warn;

/// A digest of the objects whose keys begin with [`View::PREFIX`]. These objects are stored as
/// plain JSON.
pub(crate) trait View: Default + Clone {
    const PREFIX: &'static str;

    /// Takes in what a key holds now.
    fn set(&mut self, key: &str, object: Option<&Value>);

    /// Called after the last `set` of a batch.
    fn settle(&mut self) {}
}

/// A [`View`] and how far it has read. After a failure it reads everything again.
#[derive(Debug)]
pub(crate) struct Fresh<V> {
    store: Store,
    view: Arc<V>,
    /// Where to go on, and the revision of the store at the last look.
    follows: Option<(Watch, u64)>,
}

impl<V: View> Fresh<V> {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            view: Arc::default(),
            follows: None,
        }
    }

    /// The view as of now.
    pub(crate) fn now(&mut self) -> Arc<V> {
        let current = self.store.current_rev();
        match &mut self.follows {
            Some((_, seen)) if *seen == current => {}
            Some((watch, seen)) => {
                if take_in(&mut self.view, watch) {
                    *seen = current;
                } else {
                    self.read();
                }
            }
            None => self.read(),
        }
        self.view.clone()
    }

    /// Reads everything. What cannot be read is left out, and tried again with the next question.
    fn read(&mut self) {
        self.follows = None;
        let range = match self.store.range(V::PREFIX, None, usize::MAX, None) {
            Ok(range) => range,
            Err(error) => return warn!(prefix = V::PREFIX, %error, "cannot read the store"),
        };
        let mut view = V::default();
        for (key, entry) in &range.entries {
            view.set(key, parse(entry).as_ref());
        }
        view.settle();
        self.view = Arc::new(view);
        match self.store.watch(V::PREFIX, range.rev) {
            Ok(watch) => self.follows = Some((watch, range.rev)),
            Err(error) => warn!(prefix = V::PREFIX, %error, "cannot follow the store"),
        }
    }
}

/// Takes in the events that are there, without waiting for more. False if some are lost.
fn take_in<V: View>(view: &mut Arc<V>, watch: &mut Watch) -> bool {
    let mut changed = false;
    while let Some(events) = watch.next().now_or_never() {
        let Ok(events) = events else { return false };
        let view = Arc::make_mut(view);
        for event in &events {
            view.set(&event.key, event.after.as_ref().and_then(parse).as_ref());
        }
        changed = true;
    }
    if changed {
        Arc::make_mut(view).settle();
    }
    true
}

fn parse(entry: &store::Entry) -> Option<Value> {
    serde_json::from_slice(&entry.value).ok()
}
