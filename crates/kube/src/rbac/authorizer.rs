//! The authorizer: an index that is fed by the store's events, and the question to it.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use store::Store;

use super::index::{Grant, Index, PREFIX};
use super::request::{Asked, Request};
use super::rule::Rule;
use crate::fresh::{Fresh, View};
use crate::identity::User;

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allowed {
        /// The binding that allows it; empty for `system:masters`.
        reason: String,
    },
    Refused {
        /// What went wrong on the way, such as a binding whose role is missing; usually empty.
        reason: String,
    },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allowed { reason } | Decision::Refused { reason } => reason,
        }
    }
}

/// Answers whether somebody may do something. Clones share the index.
#[derive(Debug, Clone)]
pub struct Authorizer {
    fresh: Arc<Mutex<Fresh<Index>>>,
}

impl View for Index {
    const PREFIX: &'static str = PREFIX;

    fn set(&mut self, key: &str, object: Option<&Value>) {
        Index::set(self, key, object);
    }

    fn settle(&mut self) {
        self.arrange();
    }
}

impl Authorizer {
    pub fn new(store: Store) -> Self {
        let fresh = Fresh::new(store);
        Self {
            fresh: Arc::new(Mutex::new(fresh)),
        }
    }

    /// Whether `user` may. Sees every write that was durable when it was called.
    pub fn allowed(&self, user: &User, request: &Request) -> Decision {
        if user.is_master() {
            let reason = String::new();
            return Decision::Allowed { reason };
        }
        let index = self.index();
        let namespace = match &request.asked {
            Asked::Resource { namespace, .. } => namespace,
            Asked::Path(_) => "",
        };
        let mut missing = Vec::new();
        for grant in index.grants(user, namespace) {
            match grant.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    let reason = grant.reason();
                    return Decision::Allowed { reason };
                }
                Some(_) => {}
                None => missing.push(grant.missing_role()),
            }
        }
        let reason = aggregate(missing);
        Decision::Refused { reason }
    }

    /// Every rule that holds for `user` in `namespace` (empty: in the whole cluster), and what
    /// was in the way of finding them.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Option<String>) {
        let index = self.index();
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for grant in index.grants(user, namespace) {
            match grant.rules {
                Some(found) => rules.extend_from_slice(found),
                None => missing.push(Grant::missing_role(&grant)),
            }
        }
        let error = (!missing.is_empty()).then(|| joined(missing));
        (rules, error)
    }

    /// The rules of a ClusterRole (`namespace` empty) or Role, if it exists.
    pub fn role(&self, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        self.index().role(namespace, name).map(<[Rule]>::to_vec)
    }

    fn index(&self) -> Arc<Index> {
        let mut fresh = self
            .fresh
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        fresh.now()
    }
}

fn aggregate(errors: Vec<String>) -> String {
    if errors.is_empty() {
        return String::new();
    }
    format!("RBAC: {}", joined(errors))
}

fn joined(mut errors: Vec<String>) -> String {
    errors.dedup();
    match errors.len() {
        1 => errors.remove(0),
        _ => format!("[{}]", errors.join(", ")),
    }
}
