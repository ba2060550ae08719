//! Create.

use jiff::Timestamp;
use rand::seq::IndexedRandom;
use serde_json::Value;
use store::WriteError;

use super::stored::encode;
use super::update::Owners;
use super::{Api, DryRun, Given, WriteOptions, Written, prepare, refused};
use crate::admission::{Attributes, Operation};
use crate::managed::Filter;
use crate::object;
use crate::resource::{EVENTS, Resource};
use crate::status::Status;
use crate::{admission, defaults, validation};

/// Names made from `generateName` that are taken are made anew this often.
const GENERATE_ATTEMPTS: usize = 8;
/// Upstream's alphabet: no vowels and no look-alikes, so no words come out.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
const GENERATE_PREFIX_MAX: usize = 63 - SUFFIX_LEN;
/// Events are kept for an hour.
const EVENT_TTL_S: u64 = 3600;

impl Api {
    pub(crate) async fn create_with(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        given: impl Into<Given>,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let Given { mut object, text } = given.into();
        let warnings =
            prepare::decode_text(resource, &mut object, text.as_ref(), options.validation)?;
        prepare::set_namespace(resource, namespace, &mut object)?;
        if object::resource_version(&object) != 0 {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let template = object::meta(&object, "generateName").map(str::to_owned);
        let template = template.filter(|_| object::name(&object).is_empty());
        let Some(template) = template else {
            let created = self.create_named(resource, namespace, object, options, Owners::Caller);
            return created.await.map(|object| Written {
                object,
                warnings,
                is_new: true,
            });
        };
        let mut attempts = 0;
        loop {
            let mut object = object.clone();
            object::meta_mut(&mut object).insert("name".into(), generate(&template).into());
            attempts += 1;
            match self
                .create_named(resource, namespace, object, options, Owners::Caller)
                .await
            {
                Err(status) if status.reason == "AlreadyExists" && attempts < GENERATE_ATTEMPTS => {
                }
                result => {
                    return result.map(|object| Written {
                        object,
                        warnings,
                        is_new: true,
                    });
                }
            }
        }
    }

    pub(super) async fn create_named(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        mut object: Value,
        options: WriteOptions,
        owners: Owners,
    ) -> Result<Value, Status> {
        refuse_terminating(resource, &object)?;
        let now = Timestamp::now();
        let uid = uuid::Uuid::new_v4().to_string();
        let filter = Filter::of_create(resource, &object);
        let told = object::meta_mut(&mut object).remove("managedFields");
        prepare::for_create(resource, &mut object, now, &uid);
        defaults::on_create(resource, &mut object);
        match (owners, told) {
            (Owners::Caller, _) => self.track_create(resource, &filter, &mut object, now),
            (Owners::Told, Some(told)) => {
                object::meta_mut(&mut object).insert("managedFields".into(), told);
            }
            (Owners::Told, None) => {}
        }
        prepare::stamp_request(resource, &mut object, &self.caller.user);
        let name = object::name(&object).to_owned();
        let mut attributes = Attributes {
            api: self,
            resource,
            subresource: None,
            namespace: namespace.filter(|_| resource.is_namespaced()),
            name: name.clone(),
            operation: Operation::Create,
            old: None,
            object,
            dry_run: options.dry_run,
        };
        admission::mutate(&mut attributes).await?;
        let object = &attributes.object;
        let causes = validation::on_create(resource, object);
        if !causes.is_empty() {
            return Err(Status::invalid(resource, &name, causes));
        }
        let admitted = admission::validate(&attributes).await?;
        let mut object = attributes.object;
        let key = resource.key(namespace.filter(|_| resource.is_namespaced()), &name);
        if options.dry_run == DryRun::All {
            return match self.store.get(&key) {
                Some(_) => Err(Status::already_exists(resource, &name)),
                None => Ok(object),
            };
        }
        let expires = expiry(resource, now);
        let _held = self.give_address(resource, &mut object).await?;
        match self
            .store
            .create(&key, encode(resource, &object).await?, expires)
            .await
        {
            Ok(rev) => {
                admitted.keep();
                object::set_resource_version(&mut object, rev);
                if let Some(kind) = &resource.custom {
                    kind.as_read(&mut object);
                }
                Ok(object)
            }
            Err(
                error @ (WriteError::Exists { .. }
                | WriteError::NotFound { .. }
                | WriteError::Conflict { .. }
                | WriteError::Disk { .. }
                | WriteError::Unknown { .. }
                | WriteError::TooMany { .. }
                | WriteError::Closed),
            ) => Err(refused(resource, &name, error)),
        }
    }
}

/// Of a kind whose definition goes, no more objects are made.
fn refuse_terminating(resource: &Resource, object: &Value) -> Result<(), Status> {
    let custom = resource.custom.as_ref();
    if custom.is_some_and(|kind| kind.is_terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(resource, object::name(object), why));
    }
    Ok(())
}

/// When the store may forget an object by itself.
pub(super) fn expiry(resource: &Resource, now: Timestamp) -> Option<u64> {
    let now_s = u64::try_from(now.as_second()).unwrap_or(0);
    resource
        .is_stored_as(&EVENTS)
        .then_some(now_s + EVENT_TTL_S)
}

fn generate(template: &str) -> String {
    let mut name: String = template.chars().take(GENERATE_PREFIX_MAX).collect();
    let mut random = rand::rng();
    for _ in 0..SUFFIX_LEN {
        name.extend(
            SUFFIX_ALPHABET
                .choose(&mut random)
                .map(|byte| char::from(*byte)),
        );
    }
    name
}
