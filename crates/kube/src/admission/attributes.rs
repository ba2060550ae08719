//! What a request wants, as admission sees it.

use serde_json::{Value, json};

use super::State;
use crate::api::{Api, DryRun};
use crate::resource::{NAMESPACES, Resource};

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

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run == DryRun::All
    }

    /// The namespace that webhooks and policies are told: of a namespace itself, it is its own.
    pub(crate) fn namespace_of_request(&self) -> Option<&str> {
        if self.resource.is(&NAMESPACES) && !self.name.is_empty() {
            return Some(&self.name);
        }
        self.namespace
    }

    /// Who asks, as reviews say it.
    pub(crate) fn user_info(&self) -> Value {
        let user = &self.api.caller().user;
        let mut info = json!({"username": user.name});
        if !user.uid.is_empty() {
            info["uid"] = user.uid.as_str().into();
        }
        if !user.groups.is_empty() {
            info["groups"] = json!(user.groups);
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        info
    }

    /// The options of the request, as reviews say them.
    pub(crate) fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.is_dry_run() {
            options["dryRun"] = json!(["All"]);
        }
        if self.operation != Operation::Delete {
            options["fieldManager"] = self.api.caller().manager.as_str().into();
        }
        options
    }
}
