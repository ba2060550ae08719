//! What a controller reads, writes and tells with.
//!
//! Each write goes into the shared index at once, so that nothing is made a second time because a
//! watch is late.

use serde_json::Value;

use super::events::{News, Recorder};
use super::owner::{self, Claim};
use super::watches::{Known, Watches};
use crate::api::{Api, DeleteOptions, Deleted};
use crate::object;
use crate::resource::{PODS, Resource};
use crate::status::Status;

#[derive(Debug, Clone)]
pub(super) struct Hands {
    pub(super) api: Api,
    pub(super) known: Known,
    recorder: Recorder,
}

impl Hands {
    /// In the name of one of upstream's controllers, by which its writes and events are known.
    pub(super) fn new(api: &Api, watches: &Watches, name: &'static str) -> Self {
        let api = api.as_controller(name);
        Self {
            recorder: Recorder::new(api.clone(), name, ""),
            known: watches.known(),
            api,
        }
    }

    pub(super) async fn tell(&self, object: &Value, news: News) {
        self.recorder.tell(object, news).await;
    }

    /// Creates an object in the namespace that it names.
    pub(super) async fn create(&self, resource: &Resource, object: Value) -> Result<Value, Status> {
        let namespace = object::namespace(&object).map(str::to_owned);
        let made = self
            .api
            .create(resource, namespace.as_deref(), object)
            .await?;
        self.known.wrote(resource, &made);
        Ok(made)
    }

    pub(super) async fn update(&self, resource: &Resource, object: Value) -> Result<Value, Status> {
        let namespace = object::namespace(&object).map(str::to_owned);
        let written = self
            .api
            .update(resource, namespace.as_deref(), object)
            .await?;
        self.known.wrote(resource, &written);
        Ok(written)
    }

    /// Writes a status unless it is so already. Somebody's write in between is a conflict.
    pub(super) async fn update_status(
        &self,
        resource: &Resource,
        object: &Value,
        status: Value,
    ) -> Result<Value, Status> {
        if object["status"] == status {
            return Ok(object.clone());
        }
        let mut changed = object.clone();
        changed["status"] = status;
        let namespace = object::namespace(object);
        let written = self.api.update_status(resource, namespace, changed).await?;
        self.known.wrote(resource, &written);
        Ok(written)
    }

    /// Deletes this life of an object; whether it was still there.
    pub(super) async fn delete(&self, resource: &Resource, object: &Value) -> Result<bool, Status> {
        let options = DeleteOptions::default().with_uid(object::uid(object));
        self.delete_with(resource, object, &options).await
    }

    pub(super) async fn delete_with(
        &self,
        resource: &Resource,
        object: &Value,
        options: &DeleteOptions,
    ) -> Result<bool, Status> {
        let (namespace, name) = (object::namespace(object), object::name(object));
        match self.api.delete(resource, namespace, name, options).await {
            Ok(Deleted::Gone(gone)) => self.known.removed(resource, &gone),
            Ok(Deleted::Terminating(left)) => self.known.wrote(resource, &left),
            // Gone, or another of its name.
            Err(status) if status.is_not_found() || status.is_conflict() => return Ok(false),
            Err(status) => return Err(status),
        }
        Ok(true)
    }

    /// Creates a pod and tells its owner's readers so.
    pub(super) async fn create_pod(&self, owner: &Value, pod: Value) -> Result<Value, Status> {
        match self.create(&PODS, pod).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", object::name(&pod));
                self.tell(owner, News::normal("SuccessfulCreate", message))
                    .await;
                Ok(pod)
            }
            Err(status) => {
                if !status.is_namespace_terminating() {
                    let message = format!("Error creating: {status}");
                    self.tell(owner, News::warning("FailedCreate", message))
                        .await;
                }
                Err(status)
            }
        }
    }

    /// Creates pods: one, then two, then four at a time, so that what is refused is refused once
    /// and not five hundred times.
    pub(super) async fn create_pods(
        &self,
        owner: &Value,
        mut pods: std::vec::IntoIter<Value>,
    ) -> Result<(), Status> {
        let mut batch = 1;
        while pods.len() > 0 {
            let creations = pods.by_ref().take(batch);
            let creations = creations.map(|pod| self.create_pod(owner, pod));
            let results = futures::future::join_all(creations).await;
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            batch *= 2;
        }
        Ok(())
    }

    /// Deletes a pod and tells its owner's readers so.
    pub(super) async fn delete_pod(&self, owner: &Value, pod: &Value) -> Result<(), Status> {
        match self.delete(&PODS, pod).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                let message = format!("Deleted pod: {}", object::name(pod));
                let news = News::normal("SuccessfulDelete", message);
                self.tell(owner, news).await;
                Ok(())
            }
            Err(status) => {
                let message = format!("Error deleting: {status}");
                self.tell(owner, News::warning("FailedDelete", message))
                    .await;
                Err(status)
            }
        }
    }

    /// Adopts what the selector selects and nobody controls, lets go what it no longer selects, and
    /// returns what is the owner's then. `may_adopt` has the last word.
    pub(super) async fn claim(
        &self,
        resource: &Resource,
        owner: &Value,
        selector: &Value,
        may_adopt: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, Status> {
        let namespace = object::namespace(owner).unwrap_or_default();
        let mut own = Vec::new();
        let unowned = self.known.unowned(resource, namespace, selector);
        let unowned = unowned.into_iter().filter(may_adopt);
        let owned = self.known.owned(resource, object::uid(owner));
        for object in owned.into_iter().chain(unowned) {
            match owner::claim_by(selector, owner, &object) {
                Claim::Own => own.push(object),
                Claim::Adopt => {
                    let adopted = owner::adopted(owner, &object);
                    own.push(self.update(resource, adopted).await?);
                }
                Claim::Release => {
                    self.update(resource, owner::released(owner, &object))
                        .await?;
                }
                Claim::Leave => {}
            }
        }
        Ok(own)
    }
}
