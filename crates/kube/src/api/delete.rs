//! Delete: at once, after a grace period, or when the last finalizer is gone.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::stored::{decode_whole, encode};
use super::{Api, CONFLICT_RETRIES, DryRun, ListOptions, Selector, refused};
use crate::admission::{self, Attributes, Operation};
use crate::custom;
use crate::object;
use crate::resource::{CUSTOM_RESOURCE_DEFINITIONS, EVENTS, JOBS, NAMESPACES, PODS, Resource};
use crate::status::Status;
use crate::time;

/// What keeps an owner until the garbage collector has deleted its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// What keeps an owner until the garbage collector has set its dependents free.
pub const ORPHAN: &str = "orphan";

/// What becomes of the objects that name the deleted one as their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay, without owner.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Overrides the pod's own grace period; 0 means now.
    pub grace_period_s: Option<i64>,
    pub preconditions: Preconditions,
    /// None: as the object's finalizers say, else in the background.
    pub propagation: Option<Propagation>,
    pub dry_run: DryRun,
}

/// What must hold for the deletion to be done, else 409.
#[derive(Debug, Clone, Default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What a deletion did.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Value),
    /// The object stays until its grace period or finalizers are over; its present state.
    Terminating(Value),
}

impl DeleteOptions {
    /// Now, without grace.
    pub fn now() -> Self {
        Self {
            grace_period_s: Some(0),
            ..Self::default()
        }
    }

    /// Only the object with this uid, not one that took its name.
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.preconditions.uid = Some(uid.to_owned());
        self
    }
}

/// What a deletion means for an object as it is.
#[derive(Debug, PartialEq)]
enum Decision {
    Remove,
    /// Keep it, marked like this.
    Mark(Value),
    /// It is marked already.
    Wait,
}

impl Api {
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let key = resource.key(namespace.filter(|_| resource.is_namespaced()), name);
        let mut attempts = 0;
        loop {
            let entry = self
                .store
                .get(&key)
                .ok_or_else(|| Status::not_found(resource, name))?;
            let object = decode_whole(resource, &entry).await?;
            check(resource, name, &object, &options.preconditions)?;
            self.warn_of_orphans(resource, options);
            let mut attributes = Attributes {
                api: self,
                resource,
                subresource: None,
                namespace: namespace.filter(|_| resource.is_namespaced()),
                name: name.to_owned(),
                operation: Operation::Delete,
                old: Some(&object),
                object: Value::Null,
                dry_run: options.dry_run,
            };
            admission::mutate(&mut attributes).await?;
            let admitted = admission::validate(&attributes).await?;
            let mut wanted = with_propagation(resource, &object, options.propagation);
            if resource.is(&CUSTOM_RESOURCE_DEFINITIONS) && !object::is_terminating(&object) {
                custom::controller::mark(&mut wanted, Timestamp::now());
            }
            let decision = decide(resource, &wanted, options.grace_period_s, Timestamp::now());
            let decision = match decision {
                Decision::Wait if wanted != object => Decision::Mark(wanted),
                decision => decision,
            };
            let (written, outcome) = match decision {
                Decision::Wait => return Ok(Deleted::Terminating(object)),
                Decision::Remove if options.dry_run == DryRun::All => {
                    return Ok(Deleted::Gone(object));
                }
                Decision::Mark(marked) if options.dry_run == DryRun::All => {
                    return Ok(Deleted::Terminating(marked));
                }
                Decision::Remove => (
                    self.store.delete(&key, entry.rev).await,
                    Deleted::Gone(object),
                ),
                Decision::Mark(marked) => {
                    let bytes = encode(resource, &marked).await?;
                    let written = self
                        .store
                        .update(&key, entry.rev, bytes, entry.expires_unix_s)
                        .await;
                    (written, Deleted::Terminating(marked))
                }
            };
            attempts += 1;
            match written {
                Ok(rev) => {
                    admitted.keep();
                    return Ok(outcome.at(rev));
                }
                Err(store::WriteError::Conflict { .. }) if attempts < CONFLICT_RETRIES => {}
                Err(error) => return Err(refused(resource, name, error)),
            }
        }
    }

    /// Upstream's people were surprised by pods that survive their job.
    fn warn_of_orphans(&self, resource: &Resource, options: &DeleteOptions) {
        if resource.is(&JOBS) && options.propagation.is_none() {
            self.warn(
                "child pods are preserved by default when jobs are deleted; set \
                 propagationPolicy=Background to remove them or set propagationPolicy=Orphan to \
                 suppress this warning",
            );
        }
    }

    /// Deletes all selected objects; those that are gone in the meantime count as deleted.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &Selector,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, Status> {
        let list_options = ListOptions {
            selector: selector.clone(),
            ..ListOptions::default()
        };
        let list = self.list_with(resource, namespace, &list_options).await?;
        for object in &list.items {
            let (namespace, name) = (object::namespace(object), object::name(object));
            match self.delete(resource, namespace, name, options).await {
                Ok(_) => {}
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(list.items)
    }
}

impl Deleted {
    pub fn object(&self) -> &Value {
        match self {
            Deleted::Gone(object) | Deleted::Terminating(object) => object,
        }
    }

    fn at(mut self, rev: u64) -> Self {
        match &mut self {
            Deleted::Gone(object) | Deleted::Terminating(object) => {
                object::set_resource_version(object, rev);
            }
        }
        self
    }
}

fn check(
    resource: &Resource,
    name: &str,
    object: &Value,
    preconditions: &Preconditions,
) -> Result<(), Status> {
    let rev = object::resource_version(object).to_string();
    let pairs = [
        ("UID", &preconditions.uid, object::uid(object)),
        (
            "ResourceVersion",
            &preconditions.resource_version,
            rev.as_str(),
        ),
    ];
    for (what, want, is) in pairs {
        if let Some(want) = want.as_deref().filter(|want| *want != is) {
            // Those two have a way of deletion of their own.
            if resource.is(&NAMESPACES) || resource.is(&CUSTOM_RESOURCE_DEFINITIONS) {
                let why = format!(
                    "Precondition failed: {what} in precondition: {want}, {what} in object meta: {is}"
                );
                return Err(Status::conflict(resource, name, &why));
            }
            return Err(Status::precondition(resource, name, what, want, is));
        }
    }
    Ok(())
}

/// The object with the finalizers that a deletion of this kind needs.
fn with_propagation(
    resource: &Resource,
    object: &Value,
    propagation: Option<Propagation>,
) -> Value {
    let is_said = object::items(object, &["metadata", "finalizers"])
        .iter()
        .any(|one| *one == FOREGROUND || *one == ORPHAN);
    let by_default = (resource.orphans_by_default && !is_said).then_some(Propagation::Orphan);
    let Some(propagation) = propagation.or(by_default) else {
        return object.clone();
    };
    let mut finalizers: Vec<_> = object::items(object, &["metadata", "finalizers"])
        .iter()
        .filter(|one| *one != FOREGROUND && *one != ORPHAN)
        .cloned()
        .collect();
    match propagation {
        // A namespace takes everything along anyway, and events own nothing.
        _ if resource.is(&NAMESPACES) || resource.is(&EVENTS) => {}
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
    }
    let mut object = object.clone();
    let meta = object::meta_mut(&mut object);
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
    object
}

fn decide(resource: &Resource, object: &Value, grace_s: Option<i64>, now: Timestamp) -> Decision {
    let grace_s = if resource.is(&PODS) {
        pod_grace_s(object, grace_s)
    } else {
        0
    };
    let is_kept = object::has_finalizers(object)
        || (resource.is(&NAMESPACES) && !object::items(object, &["spec", "finalizers"]).is_empty());
    if object::is_terminating(object) {
        let left_s = object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        // A second deletion may shorten the grace period and never prolong it.
        return match (grace_s, is_kept) {
            (0, false) => Decision::Remove,
            (grace_s, _) if grace_s < left_s => {
                Decision::Mark(marked(resource, object, grace_s, now))
            }
            _ => Decision::Wait,
        };
    }
    if grace_s > 0 || is_kept {
        Decision::Mark(marked(resource, object, grace_s, now))
    } else {
        Decision::Remove
    }
}

/// Seconds of grace that a pod gets: none if nothing of it runs.
fn pod_grace_s(pod: &Value, asked_s: Option<i64>) -> i64 {
    let is_over = matches!(
        object::text(pod, &["status", "phase"]),
        "Succeeded" | "Failed"
    );
    if is_over || object::text(pod, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    let own_s = object::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    // Upstream treats a negative period as one second.
    match asked_s.or(own_s).unwrap_or(30) {
        negative if negative < 0 => 1,
        grace_s => grace_s,
    }
}

fn marked(resource: &Resource, object: &Value, grace_s: i64, now: Timestamp) -> Value {
    let mut object = object.clone();
    let meta = object::meta_mut(&mut object);
    let ends = now + SignedDuration::from_secs(grace_s);
    meta.insert("deletionTimestamp".into(), time::seconds(ends).into());
    if !resource.is(&NAMESPACES) {
        meta.insert("deletionGracePeriodSeconds".into(), grace_s.into());
    }
    // Upstream counts the mark as a change of what is wanted.
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
        meta.insert("generation".into(), json!(generation + 1));
    }
    if resource.is(&NAMESPACES) {
        object::map_mut(&mut object, "status").insert("phase".into(), "Terminating".into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::CONFIG_MAPS;

    fn pod(node: &str) -> Value {
        json!({"metadata": {"name": "a"},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}})
    }

    #[test]
    fn a_bound_pod_gets_its_grace_and_an_unbound_one_goes_at_once() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(decide(&PODS, &pod(""), None, now), Decision::Remove);
        assert_eq!(decide(&PODS, &pod("fra"), Some(0), now), Decision::Remove);
        let Decision::Mark(marked) = decide(&PODS, &pod("fra"), None, now) else {
            panic!("the pod is marked")
        };
        assert_eq!(
            marked["metadata"]["deletionTimestamp"],
            "1970-01-01T00:00:30Z"
        );
        assert_eq!(decide(&PODS, &marked, None, now), Decision::Wait);
        assert_eq!(decide(&PODS, &marked, Some(0), now), Decision::Remove);
        assert!(matches!(
            decide(&PODS, &marked, Some(5), now),
            Decision::Mark(_)
        ));
    }

    #[test]
    fn finalizers_keep_an_object_and_spec_finalizers_a_namespace() {
        let now = Timestamp::UNIX_EPOCH;
        let kept = json!({"metadata": {"finalizers": ["x.y/z"]}});
        assert!(matches!(
            decide(&CONFIG_MAPS, &kept, None, now),
            Decision::Mark(_)
        ));
        let namespace = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        let Decision::Mark(marked) = decide(&NAMESPACES, &namespace, None, now) else {
            panic!("the namespace is marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
    }
}
