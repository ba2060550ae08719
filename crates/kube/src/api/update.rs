//! Update and patch: read, change, compare-and-swap.

use jiff::Timestamp;
use serde_json::Value;

use super::create::expiry;
use super::stored::{decode_whole, encode};
use super::{
    Api, CONFLICT_RETRIES, DryRun, Given, GivenPatch, Part, Patch, WriteOptions, Written, prepare,
    refused,
};
use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::{NAMESPACES, PODS, Resource, SERVICES};
use crate::status::{Cause, Status};
use crate::{admission, defaults, managed, validation};

impl Api {
    /// PUT. Without `resourceVersion` in the body the last writer wins.
    pub(crate) async fn update_with(
        &self,
        resource: &Resource,
        part: Part,
        namespace: Option<&str>,
        name: &str,
        given: impl Into<Given>,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let Given { mut object, text } = given.into();
        let warnings =
            prepare::decode_text(resource, &mut object, text.as_ref(), options.validation)?;
        prepare::set_namespace(resource, namespace, &mut object)?;
        prepare::check_name(name, &object)?;
        let key = resource.key(namespace.filter(|_| resource.is_namespaced()), name);
        let is_missing = || self.store.get(&key).is_none();
        if resource.created_by_update && part == Part::Object && is_missing() {
            object::meta_mut(&mut object).remove("resourceVersion");
            let created = self.create_named(resource, namespace, object, options, Owners::Caller);
            return created.await.map(|object| Written {
                object,
                warnings,
                is_new: true,
            });
        }
        if resource.needs_revision && object::resource_version(&object) == 0 && !is_missing() {
            let why = "must be specified for an update";
            let cause = Cause::invalid("metadata.resourceVersion", &Value::from(0), why);
            let (group, kind) = (resource.group, resource.plural);
            return Err(Status::invalid_kind(group, kind, name, vec![cause]));
        }
        let change = |_: &Value| Ok(object.clone());
        let object = self
            .modify(resource, part, namespace, name, options, change)
            .await?;
        Ok(Written {
            object,
            warnings,
            is_new: false,
        })
    }

    /// PATCH.
    pub(crate) async fn patch_with<'a>(
        &self,
        resource: &Resource,
        part: Part,
        namespace: Option<&str>,
        name: &str,
        given: impl Into<GivenPatch<'a>>,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let GivenPatch { patch, repeated } = given.into();
        let place = Place {
            resource,
            part,
            namespace: namespace.filter(|_| resource.is_namespaced()),
            name,
        };
        if let Patch::Apply { object } = patch {
            return self.apply(place, object, repeated, options).await;
        }
        let mut warnings = Vec::new();
        let change = |old: &Value| {
            let mut new = patch.apply(resource, old)?;
            let decoded = prepare::decode_patched(resource, &mut new, repeated, options.validation);
            warnings = match decoded {
                Ok(warnings) => warnings,
                Err(refusal) => {
                    let patched = patch.apply(resource, old)?;
                    return Err(prepare::badly_patched(resource, &patched, refusal));
                }
            };
            prepare::check_name(name, &new)?;
            prepare::set_namespace(resource, namespace, &mut new)?;
            let uid = object::uid(&new);
            if uid != object::uid(old) {
                let cause = Cause::invalid("metadata.uid", &Value::from(uid), "field is immutable");
                return Err(Status::invalid(resource, name, vec![cause]));
            }
            // A patch that does not name a revision means the one it is applied to.
            Ok(new)
        };
        let object = self
            .modify(resource, part, namespace, name, options, change)
            .await?;
        Ok(Written {
            object,
            warnings,
            is_new: false,
        })
    }

    /// Read, `change`, check, swap; again if somebody else was faster and the caller did not
    /// insist on a revision.
    pub(super) async fn modify(
        &self,
        resource: &Resource,
        part: Part,
        namespace: Option<&str>,
        name: &str,
        options: WriteOptions,
        change: impl FnMut(&Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        let place = Place {
            resource,
            part,
            namespace: namespace.filter(|_| resource.is_namespaced()),
            name,
        };
        self.rewrite(place, options, Owners::Caller, change).await
    }

    /// [`Api::modify`], with the owners of the fields told apart or not.
    pub(super) async fn rewrite(
        &self,
        place: Place<'_>,
        options: WriteOptions,
        owners: Owners,
        mut change: impl FnMut(&Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        let Place {
            resource,
            part,
            namespace,
            name,
        } = place;
        let key = resource.key(namespace, name);
        let mut attempts = 0;
        loop {
            let entry = self
                .store
                .get(&key)
                .ok_or_else(|| Status::not_found(resource, name))?;
            let old = decode_whole(resource, &entry).await?;
            let mut new = change(&old)?;
            check_preconditions(resource, name, &old, &new)?;
            prepare::for_update(resource, part, &old, &mut new);
            prepare::stamp_conditions(resource, part, &old, &mut new, Timestamp::now());
            defaults::on_update(resource, &old, &mut new);
            if owners == Owners::Caller {
                self.track_update(place, &old, &mut new);
            }
            let mut attributes = Attributes {
                api: self,
                resource,
                subresource: part.subresource(),
                namespace,
                name: name.to_owned(),
                operation: Operation::Update,
                old: Some(&old),
                object: new,
                dry_run: options.dry_run,
            };
            admission::mutate(&mut attributes).await?;
            prepare::raise_generation(resource, part, &old, &mut attributes.object);
            managed::keep_times(&old, &mut attributes.object);
            let causes = validation::on_update(resource, part, &old, &attributes.object);
            if !causes.is_empty() {
                return Err(Status::invalid(resource, name, causes));
            }
            let admitted = admission::validate(&attributes).await?;
            let mut new = attributes.object;
            let _held = match options.dry_run {
                _ if !resource.is(&SERVICES) || old["spec"] == new["spec"] => None,
                DryRun::No => self.give_later_address(&mut new).await?,
                // An address that is asked for is given away.
                DryRun::All => self.give_node_ports(&mut new).await?,
            };
            object::set_resource_version(&mut new, entry.rev);
            if options.dry_run == DryRun::All || new == old {
                // Writing the same again would wake every watch for nothing.
                return Ok(new);
            }
            let written = if is_finished(resource, &new) {
                self.store.delete(&key, entry.rev).await
            } else {
                let expires = expiry(resource, Timestamp::now());
                self.store
                    .update(&key, entry.rev, encode(resource, &new).await?, expires)
                    .await
            };
            attempts += 1;
            match written {
                Ok(rev) => {
                    admitted.keep();
                    object::set_resource_version(&mut new, rev);
                    if let Some(kind) = &resource.custom {
                        kind.as_read(&mut new);
                    }
                    return Ok(new);
                }
                Err(store::WriteError::Conflict { .. }) if attempts < CONFLICT_RETRIES => {}
                Err(error) => return Err(refused(resource, name, error)),
            }
        }
    }
}

/// The object that a write is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) resource: &'a Resource,
    pub(super) part: Part,
    /// `None` for cluster resources.
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

/// Who owns what a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// The manager of the caller.
    Caller,
    /// The new object says so itself.
    Told,
}

/// A `resourceVersion` or `uid` that the new object brings must be the stored one's.
fn check_preconditions(
    resource: &Resource,
    name: &str,
    old: &Value,
    new: &Value,
) -> Result<(), Status> {
    let given = object::resource_version(new);
    if given != 0 && given != object::resource_version(old) {
        return Err(Status::modified(resource, name));
    }
    let (given, uid) = (object::uid(new), object::uid(old));
    if !given.is_empty() && given != uid {
        return Err(Status::conflict(
            resource,
            name,
            &format!(
                "Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
            ),
        ));
    }
    Ok(())
}

/// The object is being deleted and this write took away the last reason to keep it.
fn is_finished(resource: &Resource, object: &Value) -> bool {
    if !object::is_terminating(object) || object::has_finalizers(object) {
        return false;
    }
    if resource.is(&NAMESPACES) {
        return object::items(object, &["spec", "finalizers"]).is_empty();
    }
    // The provider confirms a pod's end with a deletion of grace 0.
    let grace = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    !resource.is(&PODS) || grace == 0
}
