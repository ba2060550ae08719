//! What admission has to know about other objects, parsed once per revision.
//!
//! The store keeps every object in memory, so a look costs no waiting; what would cost is to parse
//! webhooks, policies and namespaces again at every write. An index keeps what was parsed beside
//! its revision and asks the store what is current. So it is never late, and nobody has to feed it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::api::Api;
use crate::resource::Resource;

/// Parsed objects that are kept. Beyond, the index begins anew: it is a cache.
const PARSED_MAX: usize = 4096;

/// By key, with the revision that was parsed.
type Parsed<T> = HashMap<Arc<str>, (u64, Arc<T>)>;

/// Objects of one resource, each parsed by `parse` when it changes.
#[derive(Debug)]
pub(crate) struct Index<T> {
    resource: &'static Resource,
    parse: fn(Value) -> T,
    parsed: Mutex<Parsed<T>>,
}

/// The objects as they are.
pub(crate) type Objects = Index<Value>;

impl Objects {
    pub(crate) fn objects(resource: &'static Resource) -> Self {
        Self::new(resource, |object| object)
    }
}

impl<T> Index<T> {
    pub(crate) fn new(resource: &'static Resource, parse: fn(Value) -> T) -> Self {
        let parsed = Mutex::default();
        Self {
            resource,
            parse,
            parsed,
        }
    }

    /// Everything in the namespace (or of a cluster resource), in the order of names.
    pub(crate) fn all(&self, api: &Api, namespace: Option<&str>) -> Vec<Arc<T>> {
        let entries = api.stored(&self.resource.prefix(namespace));
        if entries.is_empty() {
            return Vec::new();
        }
        let mut parsed = self.lock();
        let look = entries.iter().filter_map(|(key, entry)| {
            self.current(&mut parsed, key, entry.rev, || {
                api.decoded(self.resource, entry)
            })
        });
        look.collect()
    }

    pub(crate) fn get(&self, api: &Api, namespace: Option<&str>, name: &str) -> Option<Arc<T>> {
        let key: Arc<str> = self.resource.key(namespace, name).into();
        let entry = api.stored_at(&key)?;
        let mut parsed = self.lock();
        self.current(&mut parsed, &key, entry.rev, || {
            api.decoded(self.resource, &entry)
        })
    }

    fn current(
        &self,
        parsed: &mut HashMap<Arc<str>, (u64, Arc<T>)>,
        key: &Arc<str>,
        rev: u64,
        decode: impl FnOnce() -> Option<Value>,
    ) -> Option<Arc<T>> {
        if let Some((at, known)) = parsed.get(key)
            && *at == rev
        {
            return Some(known.clone());
        }
        let fresh = Arc::new((self.parse)(decode()?));
        if parsed.len() >= PARSED_MAX {
            parsed.clear();
        }
        parsed.insert(key.clone(), (rev, fresh.clone()));
        Some(fresh)
    }

    fn lock(&self) -> MutexGuard<'_, Parsed<T>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
