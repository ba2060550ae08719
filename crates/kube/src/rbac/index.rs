//! Roles and bindings, arranged by the subjects that they are about. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::rule::Rule;
use crate::identity::{User, service_account_name};
use crate::object;

/// Keys of the store that hold RBAC objects begin so.
pub(super) const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// What the store holds, parsed.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// By namespace (empty for ClusterRoles) and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
    /// By key of the store.
    bindings: HashMap<String, Arc<Binding>>,
    /// Keys of `bindings` by their subjects, in the order of the keys.
    by_subject: HashMap<Subject, Vec<Arc<Binding>>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
pub(super) struct Binding {
    /// Where it holds; empty for ClusterRoleBindings: everywhere.
    pub(super) namespace: String,
    name: String,
    role_kind: String,
    role: String,
    subjects: Vec<(Subject, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A binding that applies to a user, and the rules that it gives.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    pub(super) binding: &'a Binding,
    /// None: its role does not exist.
    pub(super) rules: Option<&'a [Rule]>,
    /// The subject that the user is, in words.
    subject: &'a str,
}

impl Index {
    /// Takes in what a key holds now.
    pub(super) fn set(&mut self, key: &str, object: Option<&Value>) {
        let Some(rest) = key.strip_prefix(PREFIX) else {
            return;
        };
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("clusterroles"), Some(name), None) => self.set_role("", name, object),
            (Some("roles"), Some(namespace), Some(name)) => {
                self.set_role(namespace, name, object);
            }
            (Some("clusterrolebindings"), Some(_), None)
            | (Some("rolebindings"), Some(_), Some(_)) => match object {
                Some(object) => {
                    let binding = Arc::new(Binding::parse(object));
                    self.bindings.insert(key.to_owned(), binding);
                }
                None => drop(self.bindings.remove(key)),
            },
            _ => {}
        }
    }

    fn set_role(&mut self, namespace: &str, name: &str, object: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        match object {
            Some(role) => drop(self.roles.insert(key, Rule::all_of(role).into())),
            None => drop(self.roles.remove(&key)),
        }
    }

    /// Arranges the bindings by subject; after the last [`Index::set`] of a batch.
    pub(super) fn arrange(&mut self) {
        let mut keys: Vec<_> = self.bindings.keys().collect();
        keys.sort_unstable();
        let mut by_subject = HashMap::<Subject, Vec<Arc<Binding>>>::new();
        for key in keys {
            let binding = &self.bindings[key];
            for (subject, _) in &binding.subjects {
                let bindings = by_subject.entry(subject.clone()).or_default();
                bindings.push(binding.clone());
            }
        }
        self.by_subject = by_subject;
    }

    /// The rules of a role that a binding in `namespace` may name.
    pub(super) fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        let key = (namespace.to_owned(), name.to_owned());
        self.roles.get(&key).map(|rules| &**rules)
    }

    /// What applies to `user` in `namespace` (empty: only what holds everywhere), bindings of the
    /// whole cluster first.
    pub(super) fn grants(&self, user: &User, namespace: &str) -> Vec<Grant<'_>> {
        let name = std::iter::once(Subject::User(user.name.clone()));
        let groups = user.groups.iter().cloned().map(Subject::Group);
        let subjects: Vec<_> = name.chain(groups).collect();
        let mut grants = Vec::new();
        for subject in &subjects {
            for binding in self.by_subject.get(subject).into_iter().flatten() {
                if !binding.namespace.is_empty() && binding.namespace != namespace {
                    continue;
                }
                let role_namespace = match binding.role_kind.as_str() {
                    "Role" => binding.namespace.as_str(),
                    _ => "",
                };
                let found = binding.subjects.iter().find(|(one, _)| one == subject);
                grants.push(Grant {
                    binding,
                    rules: self.role(role_namespace, &binding.role),
                    subject: found.map_or("", |(_, words)| words),
                });
            }
        }
        grants.sort_by_key(|grant| !grant.binding.namespace.is_empty());
        grants
    }
}

impl Binding {
    fn parse(object: &Value) -> Self {
        let text = |path: &[&str]| object::text(object, path).to_owned();
        let namespace = object::namespace(object).unwrap_or_default();
        let subjects = object::items(object, &["subjects"]).iter();
        Self {
            namespace: namespace.to_owned(),
            name: object::name(object).to_owned(),
            role_kind: text(&["roleRef", "kind"]),
            role: text(&["roleRef", "name"]),
            subjects: subjects
                .filter_map(|subject| parse_subject(subject, namespace))
                .collect(),
        }
    }
}

/// A subject, and how upstream describes it. The namespace of a service account may be left out in
/// a RoleBinding.
fn parse_subject(subject: &Value, namespace: &str) -> Option<(Subject, String)> {
    let name = object::text(subject, &["name"]);
    let kind = object::text(subject, &["kind"]);
    let plain = || format!("{kind} {name:?}");
    match kind {
        "User" => Some((Subject::User(name.to_owned()), plain())),
        "Group" => Some((Subject::Group(name.to_owned()), plain())),
        "ServiceAccount" => {
            let namespace = match object::text(subject, &["namespace"]) {
                "" => namespace,
                given => given,
            };
            let words = format!("{kind} {:?}", format!("{name}/{namespace}"));
            let user = service_account_name(namespace, name);
            (!namespace.is_empty()).then_some((Subject::User(user), words))
        }
        _ => None,
    }
}

impl Grant<'_> {
    /// Upstream's reason for a yes.
    pub(super) fn reason(&self) -> String {
        let Binding {
            namespace,
            name,
            role_kind,
            role,
            ..
        } = self.binding;
        let binding = match namespace.as_str() {
            "" => format!("ClusterRoleBinding {name:?}"),
            namespace => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
        };
        format!(
            "RBAC: allowed by {binding} of {role_kind} {role:?} to {}",
            self.subject
        )
    }

    /// The binding names a role that is not there.
    pub(super) fn missing_role(&self) -> String {
        let kind = self.binding.role_kind.to_lowercase();
        format!(
            "{kind}.rbac.authorization.k8s.io {:?} not found",
            self.binding.role
        )
    }
}
