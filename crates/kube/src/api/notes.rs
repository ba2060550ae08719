//! What a request hears beside its answer: warnings for the client, annotations for the audit log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Collects the notes of one request; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    /// A warning is told once, however often it is given (a write may be tried again).
    pub(crate) fn warn(&self, text: String) {
        let mut taken = self.lock();
        if !taken.warnings.contains(&text) {
            taken.warnings.push(text);
        }
    }

    /// The first annotation of a key stays, as upstream has it.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        let mut taken = self.lock();
        let annotation = taken.annotations.entry(key.to_owned());
        annotation.or_insert_with(|| value.to_owned());
    }

    /// For `Warning` headers, in the order they were given.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// For the audit event.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.lock().annotations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
