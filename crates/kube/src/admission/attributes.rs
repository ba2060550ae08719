//! What a request wants, as admission sees it.

use serde_json::Value;

use super::State;
use crate::api::{Api, DryRun};
use crate::resource::Resource;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// A stream into it: exec, attach, port-forward.
    Connect,
}

impl Operation {
    /// As webhooks and policies name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One request on its way to the store.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    /// In the name of who asks.
    pub(crate) api: &'a Api,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: String,
    pub(crate) operation: Operation,
    /// What is stored, except for creations and streams.
    pub(crate) old: Option<&'a Value>,
    /// What is to be stored; null for a deletion, the options of a stream.
    pub(crate) object: Value,
    pub(crate) dry_run: DryRun,
}

impl<'a> Attributes<'a> {
    /// What admission keeps between requests.
    pub(crate) fn state(&self) -> &'a State {
        self.api.admission()
    }

    /// Whether this is the resource itself and not one of its subresources.
    pub(crate) fn is_object(&self, resource: &Resource) -> bool {
        self.subresource.is_none() && self.resource.is(resource)
    }
}
