//! What the controllers do for definitions: conditions and names in their status, and the removal
//! of all objects before a definition goes.
//!
//! ```text
//!   new ── names accepted ── served (see keeper) ── Established
//!   deleted ── Terminating ── its objects deleted ── finalizer gone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::definition::is_condition;
use super::keeper;
use super::naming::{self, Taken};
use crate::api::{Api, DeleteOptions, Selector};
use crate::controllers::informer::{self, Change};
use crate::controllers::queue::{self, Outcome, Queue, Worker};
use crate::object::{self, text};
use crate::resource::{BUILT_IN, CUSTOM_RESOURCE_DEFINITIONS as DEFINITIONS, Row, Snapshot};
use crate::status::Status;

/// What keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Objects with finalizers take their time to go; nothing tells this controller when.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Somebody else wrote in between, or the catalog is not there yet.
const SOON: Duration = Duration::from_millis(20);

pub(crate) async fn run(api: &Api) {
    let definitions = Definitions {
        api,
        changes: informer::follow(api, &DEFINITIONS, Selector::default()),
        served: api.resources().changed(),
        all: BTreeMap::new(),
    };
    queue::work(definitions).await;
}

struct Definitions<'a> {
    api: &'a Api,
    changes: mpsc::Receiver<Change>,
    /// What is served has changed.
    served: watch::Receiver<Arc<Snapshot>>,
    all: BTreeMap<String, Value>,
}

enum News {
    Definition(Change),
    Served,
}

impl Worker for Definitions<'_> {
    const NAME: &'static str = "definitions";
    const CONFLICT_RETRY: Duration = SOON;
    type News = News;

    async fn next(&mut self) -> News {
        tokio::select! {
            Some(change) = self.changes.recv() => News::Definition(change),
            Ok(()) = self.served.changed() => News::Served,
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, news: News, queue: &mut Queue) {
        match news {
            News::Definition(change) => take(&mut self.all, change, queue),
            News::Served => {
                let all = self.all.iter();
                let waiting = all.filter(|(_, one)| !is_condition(one, "Established"));
                waiting.for_each(|(name, _)| queue.add(name));
            }
        }
    }

    async fn sync(&mut self, name: &str) -> Result<Outcome, Status> {
        match sync(self.api, &self.all, name).await {
            Err(status) if status.is_not_found() => Ok(Outcome::Done),
            result => result,
        }
    }
}

/// Takes in a change. A name that one definition gives up is one that another may wait for.
fn take(all: &mut BTreeMap<String, Value>, change: Change, queue: &mut Queue) {
    let mut touch = |all: &BTreeMap<String, Value>, group: &str| {
        let of_group = all
            .iter()
            .filter(|(_, one)| text(one, &["spec", "group"]) == group);
        of_group.for_each(|(name, _)| queue.add(name));
    };
    match change {
        Change::Listed(listed) => {
            let named = |one: Value| (object::name(&one).to_owned(), slim(one));
            *all = listed.into_iter().map(named).collect();
            all.keys().for_each(|name| queue.add(name));
        }
        Change::Changed(one) => {
            let group = text(&one, &["spec", "group"]).to_owned();
            all.insert(object::name(&one).to_owned(), slim(one));
            touch(all, &group);
        }
        Change::Deleted(one) => {
            all.remove(object::name(&one));
            touch(all, text(&one, &["spec", "group"]));
        }
    }
}

/// A definition without its schemas, which are large and which nobody asks for here.
fn slim(mut definition: Value) -> Value {
    if let Some(versions) = definition["spec"]["versions"].as_array_mut() {
        for version in versions {
            *version = json!({"name": version["name"], "served": version["served"],
                "storage": version["storage"]});
        }
    }
    definition["metadata"]["managedFields"] = Value::Null;
    definition["metadata"]["annotations"] = Value::Null;
    definition
}

/// The whole of a definition, if it is still as it was seen.
async fn whole(api: &Api, seen: &Value) -> Result<Value, Status> {
    let name = object::name(seen);
    let found = api.get(&DEFINITIONS, None, name).await?;
    if object::resource_version(&found) == object::resource_version(seen) {
        Ok(found)
    } else {
        Err(Status::modified(&DEFINITIONS, name))
    }
}

async fn sync(api: &Api, all: &BTreeMap<String, Value>, name: &str) -> Result<Outcome, Status> {
    let Some(definition) = all.get(name) else {
        return Ok(Outcome::Done);
    };
    if object::is_terminating(definition) {
        return remove(api, definition).await;
    }
    let group = text(definition, &["spec", "group"]);
    let mut taken = Taken::default();
    let others = all
        .iter()
        .filter(|(other, one)| other.as_str() != name && text(one, &["spec", "group"]) == group);
    others.for_each(|(_, one)| taken.add_accepted(one));
    BUILT_IN
        .iter()
        .filter(|row| row.group == group)
        .for_each(|row| taken.add_row(row));
    let is_served = row(api, definition).is_some();
    let status = naming::status(definition, &taken, is_served, Timestamp::now());
    if status != definition["status"] {
        let mut changed = whole(api, definition).await?;
        changed["status"] = status;
        api.update_status(&DEFINITIONS, None, changed).await?;
    }
    Ok(Outcome::Done)
}

/// The row of the first version of a definition that is served; none if none is yet.
fn row(api: &Api, definition: &Value) -> Option<Row> {
    let spec = &definition["spec"];
    let versions = object::items(spec, &["versions"]);
    let mut served = versions
        .iter()
        .filter(|version| version["served"] == true)
        .peekable();
    let find = |version: &Value| {
        let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
        api.resources()
            .find(group, text(version, &["name"]), plural)
    };
    served.find_map(find)
}

/// Deletes the objects of a definition; when none is left, lets the definition go.
async fn remove(api: &Api, definition: &Value) -> Result<Outcome, Status> {
    let finalizers = object::items(definition, &["metadata", "finalizers"]);
    if !finalizers.iter().any(|one| one == FINALIZER) {
        return Ok(Outcome::Done);
    }
    let mut free = whole(api, definition).await?;
    let everything = Selector::default();
    if let Some(row) = keeper::storage_row(api, &free) {
        let options = DeleteOptions::default();
        api.delete_collection(&row, None, &everything, &options)
            .await?;
        let (left, _) = api.list(&row, None, &everything).await?;
        if !left.is_empty() {
            let mut status = free["status"].clone();
            let message = "CustomResource deletion is in progress";
            let condition = ["Terminating", "True", "InstanceDeletionInProgress"];
            naming::set(&mut status, condition, message, Timestamp::now());
            if status != free["status"] {
                free["status"] = status;
                api.update_status(&DEFINITIONS, None, free).await?;
            }
            return Ok(Outcome::After(LOOK_AGAIN));
        }
    }
    let others: Vec<_> = finalizers
        .iter()
        .filter(|one| *one != FINALIZER)
        .cloned()
        .collect();
    free["metadata"]["finalizers"] = json!(others);
    api.update(&DEFINITIONS, None, free).await?;
    Ok(Outcome::Done)
}

/// What a deletion does to a definition first: it stays until its objects are gone.
pub(crate) fn mark(definition: &mut Value, now: Timestamp) {
    let meta = object::meta_mut(definition);
    let finalizers = meta.entry("finalizers").or_insert(json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|one| one == FINALIZER)
    {
        finalizers.push(FINALIZER.into());
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will \
                   begin soon";
    let status = object::ensure_at(definition, "status");
    let condition = ["Terminating", "True", "InstanceDeletionPending"];
    naming::set(status, condition, message, now);
}
