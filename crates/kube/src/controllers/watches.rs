//! One watch per resource for all controllers, and an index that says which object is whose.
//!
//! ```text
//!   watch of pods ──> index (brief: whose, which labels) ──┬──> news ──> controller A
//!                       ^                                  └──> news ──> controller B
//!                       └── own writes, at once
//! ```
//!
//! No object is kept here: a pod costs a few hundred bytes of index, and who decides about it reads
//! it from the API's memory, where it is never older than its own writes. What the index has not
//! heard of yet is only what somebody else made a moment ago, and news of that is on its way.

mod index;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::index::{Brief, Index};
use super::cache::key;
use super::informer::{self, Change};
use super::owner;
use crate::api::{Api, Selector};
use crate::label_selector;
use crate::object;
use crate::resource::Resource;

/// News on their way to one controller. It takes them in while it works, so this is only room for
/// a burst.
const NEWS_MAX: usize = 256;

/// What a controller is told.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// Everything that there was of this resource has been told.
    Listed(&'static Resource),
    Changed(Arc<Changed>),
}

/// An object as it is now, or was last.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) resource: &'static Resource,
    pub(crate) object: Value,
    /// Its labels before, if it was known.
    labels_before: Option<Value>,
}

impl Changed {
    /// `namespace/name`, as the queues have it.
    pub(crate) fn key(&self) -> String {
        key(&self.object)
    }

    pub(crate) fn namespace(&self) -> &str {
        object::namespace(&self.object).unwrap_or_default()
    }

    pub(crate) fn is(&self, resource: &Resource) -> bool {
        self.resource.is(resource)
    }

    /// The selector selects it now, or did before.
    pub(crate) fn is_or_was_selected(&self, selector: &Value) -> bool {
        let now = &self.object["metadata"]["labels"];
        let before = self.labels_before.as_ref();
        label_selector::matches(selector, now)
            || before.is_some_and(|labels| label_selector::matches(selector, labels))
    }

    /// The key of its controller, if that is of this kind.
    pub(crate) fn controller_key(&self, kind: &str) -> Option<String> {
        let reference = owner::controller(&self.object)?;
        let name = object::text(reference, &["name"]);
        (reference["kind"] == kind).then(|| format!("{}/{name}", self.namespace()))
    }

    pub(crate) fn has_controller(&self) -> bool {
        owner::controller(&self.object).is_some()
    }
}

type Indexes = Arc<Mutex<HashMap<String, Index>>>;

/// What is known of the watched objects. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    api: Api,
    indexes: Indexes,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Index>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object at `namespace/name` as it is now.
    pub(crate) fn get(&self, resource: &Resource, key: &str) -> Option<Value> {
        let (namespace, name) = key.split_once('/')?;
        let namespace = Some(namespace).filter(|one| !one.is_empty());
        self.api.read(resource, namespace, name).ok()
    }

    /// Those that are there; an object that was gone before its writer told is forgotten.
    fn read(&self, resource: &Resource, keys: Vec<(String, u64)>) -> Vec<Value> {
        let mut found = Vec::with_capacity(keys.len());
        for (key, rev) in keys {
            match self.get(resource, &key) {
                Some(object) => found.push(object),
                None => self.forget(resource, &key, rev),
            }
        }
        found
    }

    /// Forgets what was gone when it was read. Its name may have been taken since, and news of that
    /// have come already: that one stays.
    fn forget(&self, resource: &Resource, key: &str, rev: u64) {
        let mut indexes = self.lock();
        if let Some(index) = indexes.get_mut(&resource.qualified()) {
            index.remove_at(key, rev);
        }
    }

    /// What the object with this uid controls.
    pub(crate) fn owned(&self, resource: &Resource, uid: &str) -> Vec<Value> {
        let keys = self
            .lock()
            .get(&resource.qualified())
            .map(|index| index.owned(uid))
            .unwrap_or_default();
        let mut found = self.read(resource, keys);
        found.retain(|object| {
            owner::controller(object).is_some_and(|one| object::text(one, &["uid"]) == uid)
        });
        found
    }

    /// What the selector selects in a namespace.
    pub(crate) fn selected(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &Value,
    ) -> Vec<Value> {
        self.filter(resource, namespace, |brief| {
            label_selector::matches(selector, &brief.labels)
        })
    }

    /// What nobody controls and the selector selects.
    pub(crate) fn unowned(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &Value,
    ) -> Vec<Value> {
        self.filter(resource, namespace, |brief| {
            !brief.is_controlled() && label_selector::matches(selector, &brief.labels)
        })
    }

    fn filter(
        &self,
        resource: &Resource,
        namespace: &str,
        is_meant: impl Fn(&Brief) -> bool,
    ) -> Vec<Value> {
        let keys = self
            .lock()
            .get(&resource.qualified())
            .map(|index| index.within(Some(namespace), is_meant))
            .unwrap_or_default();
        self.read(resource, keys)
    }

    /// Everything of a resource, or of a namespace.
    pub(crate) fn all(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Value> {
        let keys = self
            .lock()
            .get(&resource.qualified())
            .map(|index| index.within(namespace, |_| true))
            .unwrap_or_default();
        self.read(resource, keys)
    }

    /// Keys of the objects for which `is_meant` holds.
    pub(crate) fn keys(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Vec<String> {
        let all = self.all(resource, namespace).into_iter();
        all.filter(is_meant).map(|object| key(&object)).collect()
    }

    /// The state that an own write left.
    pub(crate) fn wrote(&self, resource: &Resource, object: &Value) {
        let mut indexes = self.lock();
        let index = indexes.entry(resource.qualified()).or_default();
        index.put(&key(object), Brief::of(object));
    }

    /// An own write removed it.
    pub(crate) fn removed(&self, resource: &Resource, object: &Value) {
        let mut indexes = self.lock();
        if let Some(index) = indexes.get_mut(&resource.qualified()) {
            index.remove_life(&key(object), object::uid(object));
        }
    }

    /// Takes in what a watch told, and returns it as news.
    fn take(&self, resource: &'static Resource, change: Change) -> Vec<News> {
        let mut indexes = self.lock();
        let index = indexes.entry(resource.qualified()).or_default();
        let put = |index: &mut Index, object: Value| {
            let labels_before = index.put(&key(&object), Brief::of(&object));
            News::Changed(Arc::new(Changed {
                resource,
                object,
                labels_before,
            }))
        };
        match change {
            Change::Changed(object) => vec![put(index, object)],
            Change::Deleted(object) => {
                let brief = index.remove_life(&key(&object), object::uid(&object));
                vec![News::Changed(Arc::new(Changed {
                    resource,
                    object,
                    labels_before: brief.map(|brief| brief.labels),
                }))]
            }
            Change::Listed(all) => {
                let gone = index.not_in(&all);
                let gone = gone.into_iter().map(|(key, brief)| {
                    let object = brief.object(resource, &key);
                    News::Changed(Arc::new(Changed {
                        resource,
                        object,
                        labels_before: Some(brief.labels),
                    }))
                });
                let mut news: Vec<_> = gone.collect();
                news.extend(all.into_iter().map(|object| put(index, object)));
                news.push(News::Listed(resource));
                news
            }
        }
    }
}

/// Who wants news of what, until the watches start.
#[derive(Debug)]
pub(crate) struct Watches {
    known: Known,
    resources: Vec<&'static Resource>,
    followers: Vec<(&'static [&'static Resource], mpsc::Sender<News>)>,
}

impl Watches {
    pub(crate) fn new(api: &Api) -> Self {
        let known = Known {
            api: api.clone(),
            indexes: Indexes::default(),
        };
        Self {
            known,
            resources: Vec::new(),
            followers: Vec::new(),
        }
    }

    pub(crate) fn known(&self) -> Known {
        self.known.clone()
    }

    /// What counts for the queue of a controller.
    pub(crate) fn meter(&self, controller: &str) -> crate::metrics::QueueMeter {
        self.known.api.metrics().queue(controller)
    }

    /// News of these resources.
    pub(crate) fn follow(
        &mut self,
        resources: &'static [&'static Resource],
    ) -> mpsc::Receiver<News> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        for resource in resources {
            if !self.resources.iter().any(|one| one.is(resource)) {
                self.resources.push(resource);
            }
        }
        self.followers.push((resources, sender));
        receiver
    }

    /// Starts the watches, as tasks of `tasks`.
    pub(crate) fn start(self, tasks: &mut JoinSet<()>) {
        for resource in self.resources {
            let followers = self.followers.iter();
            let senders: Vec<_> = followers
                .filter(|(resources, _)| resources.iter().any(|one| one.is(resource)))
                .map(|(_, sender)| sender.clone())
                .collect();
            tasks.spawn(forward(self.known.clone(), resource, senders));
        }
    }
}

async fn forward(known: Known, resource: &'static Resource, followers: Vec<mpsc::Sender<News>>) {
    let mut changes = informer::follow(&known.api, resource, Selector::default());
    while let Some(change) = changes.recv().await {
        for news in known.take(resource, change) {
            for follower in &followers {
                // A controller that has ended wants no more.
                let _ = follower.send(news.clone()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
