//! A copy of one resource that never forgets what its owner wrote itself.
//!
//! A watch is late. Whoever decides by its copy alone makes the pod that it has just made once
//! more. So each write goes into the copy at once, and what the watch tells later is older news:
//!
//! ```text
//!   wrote(rev 7) ──> copy at 7 <── ignored ── watch: changed(rev 5)
//!   removed(uid) ──> gone      <── ignored ── watch: changed(rev 5)
//!                    forgotten <───────────── watch: deleted(rev 8)
//! ```

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::informer::Change;
use crate::object;

/// Objects by `namespace/name`.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    objects: BTreeMap<String, Value>,
    /// Keys of own writes that the watch has not told yet.
    own: HashSet<String>,
    /// Uids of own deletions that the watch has not told yet.
    gone: HashSet<String>,
}

pub(crate) fn key(object: &Value) -> String {
    let namespace = object::namespace(object).unwrap_or_default();
    format!("{namespace}/{}", object::name(object))
}

impl Cache {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// Everything in a namespace.
    pub(crate) fn within<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Value> + 'a {
        let prefix = format!("{namespace}/");
        let from = self.objects.range(prefix.clone()..);
        from.take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object)
    }

    /// The state that an own write left.
    pub(crate) fn wrote(&mut self, object: Value) {
        let key = key(&object);
        self.own.insert(key.clone());
        self.objects.insert(key, object);
    }

    /// An own write removed it.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "who has a copy now deletes nothing itself; the model does"
        )
    )]
    pub(crate) fn removed(&mut self, object: &Value) {
        self.gone.insert(object::uid(object).to_owned());
        let key = key(object);
        if self.objects.get(&key).map(object::uid) == Some(object::uid(object)) {
            self.objects.remove(&key);
            self.own.remove(&key);
        }
    }

    /// Takes in what the watch tells and returns every state that went or came. `now` tells what
    /// the store holds at a key: after a list it is unknown whether own writes are in it.
    pub(crate) fn apply(
        &mut self,
        change: Change,
        now: impl Fn(&str) -> Option<Value>,
    ) -> Vec<Value> {
        match change {
            Change::Listed(all) => self.replace(all, now),
            Change::Changed(object) => {
                let key = key(&object);
                if self.gone.contains(object::uid(&object)) || self.is_newer(&key, &object) {
                    return Vec::new();
                }
                self.own.remove(&key);
                let mut touched = vec![object.clone()];
                touched.extend(self.objects.insert(key, object));
                touched
            }
            Change::Deleted(object) => {
                let key = key(&object);
                self.gone.remove(object::uid(&object));
                if !self.is_newer(&key, &object) {
                    self.own.remove(&key);
                    self.objects.remove(&key);
                }
                vec![object]
            }
        }
    }

    fn is_newer(&self, key: &str, object: &Value) -> bool {
        self.objects
            .get(key)
            .is_some_and(|known| object::resource_version(known) > object::resource_version(object))
    }

    fn replace(&mut self, all: Vec<Value>, now: impl Fn(&str) -> Option<Value>) -> Vec<Value> {
        let mut touched: Vec<_> = std::mem::take(&mut self.objects).into_values().collect();
        let own = std::mem::take(&mut self.own);
        let listed: HashSet<_> = all.iter().map(|one| object::uid(one).to_owned()).collect();
        // A list without it is later than the deletion, so no more will be told of it.
        self.gone.retain(|uid| listed.contains(uid));
        for object in all {
            if !self.gone.contains(object::uid(&object)) {
                touched.push(object.clone());
                self.objects.insert(key(&object), object);
            }
        }
        for key in own {
            match now(&key) {
                Some(object) if !self.is_newer(&key, &object) => self.wrote(object),
                Some(_) => {}
                None => {
                    if let Some(object) = self.objects.remove(&key) {
                        self.gone.insert(object::uid(&object).to_owned());
                    }
                }
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(name: &str, rev: u64) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "uid": format!("u{name}"),
            "resourceVersion": rev.to_string()}})
    }

    fn names(cache: &Cache) -> Vec<&str> {
        cache.within("n").map(object::name).collect()
    }

    #[test]
    fn own_writes_outlast_older_news_and_end_with_newer() {
        let mut cache = Cache::default();
        let nothing = |_: &str| None;
        cache.wrote(pod("a", 5));
        assert!(
            cache
                .apply(Change::Changed(pod("a", 4)), nothing)
                .is_empty()
        );
        cache.removed(&pod("a", 6));
        cache.apply(Change::Changed(pod("a", 5)), nothing);
        assert_eq!(names(&cache), [""; 0]);
        cache.apply(Change::Deleted(pod("a", 7)), nothing);
        assert!(cache.gone.is_empty());
        cache.wrote(pod("b", 9));
        cache.apply(Change::Listed(vec![]), |_| Some(pod("b", 9)));
        assert_eq!(names(&cache), ["b"]);
        cache.apply(Change::Listed(vec![]), nothing);
        assert_eq!(names(&cache), [""; 0]);
    }

    proptest! {
        /// The store is a list of writes; the watch tells them in order, whenever it likes, and
        /// starts anew with a list now and then. The writer's copy is the store at every moment.
        #[test]
        fn the_writer_sees_its_writes_however_late_the_watch_is(
            steps in prop::collection::vec((0..4u8, 0..3u8), 1..60)
        ) {
            let mut cache = Cache::default();
            let mut store: BTreeMap<String, Value> = BTreeMap::new();
            let (mut log, mut told, mut rev) = (Vec::new(), 0, 0);
            for (step, which) in steps {
                let name = format!("p{which}");
                let at = format!("n/{name}");
                rev += 1;
                match step {
                    0 => {
                        let mut object = pod(&name, rev);
                        // A new life is a new uid.
                        let uid = store.get(&at).map_or(format!("u{rev}"), |old| {
                            object::uid(old).to_owned()
                        });
                        object["metadata"]["uid"] = uid.into();
                        store.insert(at, object.clone());
                        cache.wrote(object.clone());
                        log.push(Change::Changed(object));
                    }
                    1 => if let Some(mut object) = store.remove(&at) {
                        cache.removed(&object);
                        object::set_resource_version(&mut object, rev);
                        log.push(Change::Deleted(object));
                    },
                    2 => if let Some(change) = log.get(told) {
                        told += 1;
                        cache.apply(change.clone(), |key| store.get(key).cloned());
                    },
                    _ => {
                        told = log.len();
                        let all = store.values().cloned().collect();
                        cache.apply(Change::Listed(all), |key| store.get(key).cloned());
                    }
                }
                let held: Vec<_> = cache.within("n").cloned().collect();
                let stored: Vec<_> = store.values().cloned().collect();
                prop_assert_eq!(held, stored);
            }
        }
    }
}
