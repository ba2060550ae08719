//! Events: what `kubectl describe` shows at the end.
//!
//! The same news about the same object is one Event whose count rises; [`correlator`] decides what
//! is the same.

mod correlator;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use self::correlator::{Correlator, make_room};
use crate::api::Api;
use crate::object;
use crate::resource::EVENTS;
use crate::time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct News {
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The part of the object that it is about: `spec.containers{web}`.
    pub(crate) field: String,
}

impl News {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            message: message.into(),
            field: String::new(),
        }
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::normal(reason, message)
        }
    }

    pub(crate) fn about(mut self, field: String) -> Self {
        self.field = field;
        self
    }
}

/// Writes Events. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    api: Api,
    component: &'static str,
    host: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    correlator: Correlator,
    /// The Event of each piece of news, by uid of its object.
    remembered: HashMap<(String, News), Value>,
}

impl Recorder {
    pub(crate) fn new(api: Api, component: &'static str, host: &str) -> Self {
        Self {
            api,
            component,
            host: host.to_owned(),
            state: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `news` about `object`. An Event that cannot be written is logged and given up: it
    /// only tells what happened.
    pub(crate) async fn tell(&self, object: &Value, news: News) {
        let namespace = object::namespace(object).unwrap_or("default").to_owned();
        let now = Timestamp::now();
        let (key, message, known) = {
            let mut state = self.lock();
            let uid = object::uid(object);
            let told = state.correlator.correlate(uid, news, Instant::now());
            let Some((news, message)) = told else {
                return;
            };
            let key = (uid.to_owned(), news);
            let known = state.remembered.get(&key).cloned();
            (key, message, known)
        };
        if let Some(mut event) = known {
            event["count"] = (event["count"].as_u64().unwrap_or(1) + 1).into();
            event["lastTimestamp"] = time::seconds(now).into();
            event["message"] = message.as_str().into();
            object::meta_mut(&mut event).remove("resourceVersion");
            if let Ok(event) = self.api.update(&EVENTS, Some(&namespace), event).await {
                self.remember(key, event);
                return;
            }
            // It has expired: a new one begins to count.
        }
        let mut event = self.event(object, &key.1, now);
        event["message"] = message.into();
        match self.api.create(&EVENTS, Some(&namespace), event).await {
            Ok(event) => self.remember(key, event),
            Err(error) => warn!(%error, reason = key.1.reason, "event not written"),
        }
    }

    fn remember(&self, key: (String, News), event: Value) {
        let mut state = self.lock();
        make_room(&mut state.remembered);
        state.remembered.insert(key, event);
    }

    fn event(&self, object: &Value, news: &News, now: Timestamp) -> Value {
        let name = object::name(object);
        let namespace = object::namespace(object).unwrap_or("default");
        let mut involved = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"], "name": name,
            "uid": object::uid(object),
        });
        if let Some(namespace) = object::namespace(object) {
            involved["namespace"] = namespace.into();
        }
        if let Some(version) = object::meta(object, "resourceVersion") {
            involved["resourceVersion"] = version.into();
        }
        if !news.field.is_empty() {
            involved["fieldPath"] = news.field.as_str().into();
        }
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        json!({
            "apiVersion": "v1", "kind": "Event",
            // The form of Kubernetes' own clients: the object's name and the time.
            "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()),
                "namespace": namespace},
            "involvedObject": involved,
            "type": match news.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            },
            "reason": news.reason,
            "message": news.message,
            "source": source,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
            "count": 1,
            "firstTimestamp": time::seconds(now),
            "lastTimestamp": time::seconds(now),
        })
    }
}
