//! Who owns whom, and what follows from it. Pure.
//!
//! ```text
//!   is kept by a finalizer  orphan              ──> free the dependents, then let it go
//!                           foregroundDeletion  ──> delete the dependents, when none blocks let go
//!   has owners   some stay, others are gone     ──> drop the references to those
//!                all gone, or waiting for it    ──> delete it
//! ```

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::api::{FOREGROUND, ORPHAN, Propagation};
use crate::object;
use crate::resource::Row;

/// What is known of an object.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) resource: Row,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) owners: Vec<Owner>,
    is_terminating: bool,
    finalizers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    blocks: bool,
}

/// How it stands with one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Stays,
    /// It is being deleted and waits for its dependents.
    Waits,
    Gone,
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Take the references to this owner from these, then its finalizer from the owner.
    Free(Vec<String>),
    /// Delete these dependents; look again when one is gone.
    DeleteDependents(Vec<String>),
    /// Take this finalizer away.
    LetGo(&'static str),
    /// Take the references to these owners away.
    Drop(Vec<String>),
    /// Its owner waits for it and it would wait for its owner: let it block nobody, then delete it
    /// in the foreground.
    BreakCycle,
    Delete(Propagation),
}

/// Every object that owns, is owned, or may be, by uid.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Node {
    pub(super) fn of(resource: &Row, object: &Value) -> Self {
        let text = |value: &Value, field: &str| object::text(value, &[field]).to_owned();
        let references = object::items(object, &["metadata", "ownerReferences"]).iter();
        let finalizers = object::items(object, &["metadata", "finalizers"]).iter();
        Self {
            resource: resource.clone(),
            namespace: object::namespace(object).map(str::to_owned),
            name: object::name(object).to_owned(),
            owners: references
                .map(|one| Owner {
                    api_version: text(one, "apiVersion"),
                    kind: text(one, "kind"),
                    name: text(one, "name"),
                    uid: text(one, "uid"),
                    blocks: one["blockOwnerDeletion"] == true,
                })
                .collect(),
            is_terminating: object::is_terminating(object),
            finalizers: finalizers
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }

    pub(super) fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|one| one == finalizer)
    }

    /// It is being deleted and takes its dependents along first.
    pub(super) fn waits(&self) -> bool {
        self.is_terminating && self.has(FOREGROUND)
    }

    fn is_kept_by_us(&self) -> bool {
        self.is_terminating && (self.has(FOREGROUND) || self.has(ORPHAN))
    }
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Takes in an object as it is now, and returns whom to look at.
    pub(super) fn put(&mut self, uid: &str, node: Node) -> Vec<String> {
        let mut look = self.waiting_owners(uid);
        self.unlink(uid);
        let is_alone = node.owners.iter().any(|owner| !self.stays(&owner.uid));
        if node.is_kept_by_us() || is_alone || self.misplaced(&node).is_some() {
            look.push(uid.to_owned());
        }
        for owner in &node.owners {
            let all = self.dependents.entry(owner.uid.clone()).or_default();
            all.insert(uid.to_owned());
        }
        self.nodes.insert(uid.to_owned(), node);
        look.extend(self.waiting_owners(uid));
        look
    }

    /// Owners that an object may block no longer.
    fn waiting_owners(&self, uid: &str) -> Vec<String> {
        let owners = self
            .nodes
            .get(uid)
            .into_iter()
            .flat_map(|node| &node.owners);
        let waits = |uid: &&String| self.nodes.get(*uid).is_some_and(Node::waits);
        owners
            .map(|owner| &owner.uid)
            .filter(waits)
            .cloned()
            .collect()
    }

    /// Forgets an object that is gone, and returns whom to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look: Vec<_> = self.dependents(uid).cloned().collect();
        if let Some(node) = self.nodes.get(uid) {
            look.extend(node.owners.iter().map(|owner| owner.uid.clone()));
        }
        self.unlink(uid);
        self.nodes.remove(uid);
        look
    }

    /// Uids of a resource, named by its group and plural, to find out which a list no longer has.
    pub(super) fn of(&self, (group, plural): (&str, &str)) -> Vec<String> {
        let all = self.nodes.iter();
        all.filter(|(_, node)| (node.resource.group, node.resource.plural) == (group, plural))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// An owner that is in another namespace: there it owns nothing here.
    pub(super) fn misplaced<'a>(&self, node: &'a Node) -> Option<&'a Owner> {
        node.owners.iter().find(|owner| {
            let found = self.nodes.get(&owner.uid);
            found.is_some_and(|one| one.namespace.is_some() && one.namespace != node.namespace)
        })
    }

    /// What to do about an object; `stand` tells how each of its owners stands.
    pub(super) fn step(&self, uid: &str, stand: impl Fn(&Owner) -> Stand) -> Step {
        let Some(node) = self.nodes.get(uid) else {
            return Step::Nothing;
        };
        if node.is_terminating {
            return self.step_of_terminating(uid, node);
        }
        let stands: Vec<_> = node.owners.iter().map(|one| (one, stand(one))).collect();
        let with = |wanted: Stand| stands.iter().filter(move |(_, stand)| *stand == wanted);
        let is_leaving = with(Stand::Waits).count() + with(Stand::Gone).count();
        match with(Stand::Stays).count() {
            _ if is_leaving == 0 => Step::Nothing,
            0 if node.has(ORPHAN) => Step::Delete(Propagation::Orphan),
            0 if node.has(FOREGROUND) => Step::Delete(Propagation::Foreground),
            0 if with(Stand::Waits).count() > 0 && self.owns_one_that_waits(uid) => {
                Step::BreakCycle
            }
            // Its owner waits for it, so it waits for what it owns itself.
            0 if with(Stand::Waits).count() > 0 && self.dependents(uid).next().is_some() => {
                Step::Delete(Propagation::Foreground)
            }
            0 => Step::Delete(Propagation::Background),
            _ => {
                let leaving = stands.iter().filter(|(_, stand)| *stand != Stand::Stays);
                Step::Drop(leaving.map(|(owner, _)| owner.uid.clone()).collect())
            }
        }
    }

    fn step_of_terminating(&self, uid: &str, node: &Node) -> Step {
        if node.has(ORPHAN) {
            return Step::Free(self.dependents(uid).cloned().collect());
        }
        if !node.has(FOREGROUND) {
            return Step::Nothing;
        }
        let known = |one: &&String| self.nodes.contains_key(*one);
        let blocks = |one: &&String| {
            let owners = self.nodes.get(*one).map(|node| node.owners.iter());
            let mut owners = owners.into_iter().flatten();
            owners.any(|owner| owner.uid == uid && owner.blocks)
        };
        if self.dependents(uid).filter(known).any(|one| blocks(&one)) {
            let staying = |one: &&String| !self.nodes[*one].is_terminating;
            let all = self.dependents(uid).filter(known).filter(staying);
            return Step::DeleteDependents(all.cloned().collect());
        }
        Step::LetGo(FOREGROUND)
    }

    fn owns_one_that_waits(&self, uid: &str) -> bool {
        let mut owned = self.dependents(uid).filter_map(|one| self.nodes.get(one));
        owned.any(Node::waits)
    }

    fn stays(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| !node.waits())
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &String> {
        self.dependents.get(uid).into_iter().flatten()
    }

    fn unlink(&mut self, uid: &str) {
        let owners = self.nodes.get(uid).map(|node| node.owners.clone());
        for owner in owners.into_iter().flatten() {
            if let Some(all) = self.dependents.get_mut(&owner.uid) {
                all.remove(uid);
                if all.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::PODS;
    use serde_json::json;

    fn node(owners: &[&str], finalizer: Option<&str>) -> Node {
        let references: Vec<_> = owners
            .iter()
            .map(|uid| json!({"uid": uid, "blockOwnerDeletion": true}))
            .collect();
        let mut object = json!({"metadata": {"name": "a", "ownerReferences": references}});
        if let Some(finalizer) = finalizer {
            object["metadata"]["finalizers"] = json!([finalizer]);
            object["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        }
        Node::of(&Row::BuiltIn(&PODS), &object)
    }

    #[test]
    fn the_owned_go_with_their_last_owner() {
        let mut graph = Graph::default();
        graph.put("set", node(&[], None));
        assert!(graph.put("pod", node(&["set"], None)).is_empty());
        assert_eq!(graph.step("pod", |_| Stand::Stays), Step::Nothing);
        assert_eq!(graph.remove("set"), ["pod"]);
        let gone = graph.step("pod", |_| Stand::Gone);
        assert_eq!(gone, Step::Delete(Propagation::Background));
        assert_eq!(graph.put("late", node(&["set"], None)), ["late"]);
        graph.put("shared", node(&["set", "other"], None));
        let stand = |owner: &Owner| match owner.uid.as_str() {
            "set" => Stand::Gone,
            _ => Stand::Stays,
        };
        assert_eq!(graph.step("shared", stand), Step::Drop(vec!["set".into()]));
    }

    #[test]
    fn an_owner_in_another_namespace_owns_nothing_here() {
        let mut graph = Graph::default();
        let within = |namespace: &str, mut node: Node| {
            node.namespace = Some(namespace.to_owned());
            node
        };
        graph.put("set", within("there", node(&[], None)));
        let pod = within("here", node(&["set"], None));
        assert_eq!(graph.put("pod", pod), ["pod"]);
        let pod = graph.get("pod").expect("there");
        assert_eq!(
            graph.misplaced(pod).map(|owner| owner.uid.as_str()),
            Some("set")
        );
        graph.put("set", within("here", node(&[], None)));
        let pod = graph.get("pod").expect("there");
        assert!(graph.misplaced(pod).is_none());
    }

    #[test]
    fn in_the_foreground_the_owned_go_first() {
        let mut graph = Graph::default();
        graph.put("set", node(&["deployment"], None));
        graph.put("pod", node(&["set"], None));
        let look = graph.put("deployment", node(&[], Some(FOREGROUND)));
        assert_eq!(look, ["deployment"]);
        let stays = |_: &Owner| Stand::Stays;
        let step = graph.step("deployment", stays);
        assert_eq!(step, Step::DeleteDependents(vec!["set".into()]));
        let step = graph.step("set", |_| Stand::Waits);
        assert_eq!(step, Step::Delete(Propagation::Foreground));
        assert_eq!(graph.remove("pod"), ["set"]);
        assert_eq!(graph.remove("set"), ["deployment"]);
        assert_eq!(graph.step("deployment", stays), Step::LetGo(FOREGROUND));
    }

    #[test]
    fn an_owner_waits_no_longer_for_what_it_owns_no_longer() {
        let mut graph = Graph::default();
        graph.put("one", node(&[], Some(FOREGROUND)));
        graph.put("two", node(&[], None));
        graph.put("shared", node(&["one", "two"], None));
        assert_eq!(graph.put("shared", node(&["two"], None)), ["one"]);
        assert_eq!(graph.step("one", |_| Stand::Stays), Step::LetGo(FOREGROUND));
    }

    #[test]
    fn of_two_that_own_each_other_one_stops_blocking() {
        let mut graph = Graph::default();
        graph.put("one", node(&["two"], Some(FOREGROUND)));
        graph.put("two", node(&["one"], None));
        assert_eq!(graph.step("two", |_| Stand::Waits), Step::BreakCycle);
    }

    #[test]
    fn orphans_are_set_free_first() {
        let mut graph = Graph::default();
        graph.put("pod", node(&["set"], None));
        graph.put("set", node(&[], Some(ORPHAN)));
        let step = graph.step("set", |_| Stand::Stays);
        assert_eq!(step, Step::Free(vec!["pod".into()]));
        assert!(graph.of(("apps", "replicasets")).is_empty());
        assert_eq!(graph.of(("", "pods")).len(), 2);
    }
}
