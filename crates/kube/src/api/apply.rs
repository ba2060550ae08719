//! Server-side apply, and who owns what other writes write.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::update::{Owners, Place};
use super::{Api, CONFLICT_RETRIES, FieldValidation, Part, WriteOptions, Written, prepare};
use crate::managed::{self, Apply, Filter, OneVersion, Subject, Versions, Writer};
use crate::rbac::{self, Decision};
use crate::resource::{Resource, Row, SCALES};
use crate::status::Status;
use crate::{convert, object, strict};

impl Api {
    /// Makes the object have what `wanted` says in the name of the caller's manager; creates it if
    /// it is not there.
    pub(super) async fn apply(
        &self,
        place: Place<'_>,
        wanted: &Value,
        repeated: &[String],
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let key = place.resource.key(place.namespace, place.name);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let is_new = self.store.get(&key).is_none();
            let written = if is_new && place.part == Part::Object {
                self.apply_new(place, wanted, repeated, options).await
            } else {
                self.apply_present(place, wanted, repeated, options).await
            };
            match written {
                // Somebody else created or deleted it meanwhile.
                Err(status)
                    if attempts < CONFLICT_RETRIES
                        && is_new != self.store.get(&key).is_none()
                        && matches!(status.code, 404 | 409) => {}
                Ok((object, warnings)) => {
                    return Ok(Written {
                        object,
                        warnings,
                        is_new,
                    });
                }
                Err(status) => return Err(status),
            }
        }
    }

    async fn apply_present(
        &self,
        place: Place<'_>,
        wanted: &Value,
        repeated: &[String],
        options: WriteOptions,
    ) -> Result<(Value, Vec<String>), Status> {
        let mut warnings = Vec::new();
        let change = |old: &Value| {
            let mut new = self.applied(place, Some(old), wanted, options)?;
            warnings = check_repeated(repeated, options)?;
            let decoded = prepare::decode_body(place.resource, &mut new, options.validation)?;
            warnings.extend(decoded);
            prepare::set_namespace(place.resource, place.namespace, &mut new)?;
            prepare::check_name(place.name, &new)?;
            Ok(new)
        };
        let object = self.rewrite(place, options, Owners::Told, change).await?;
        Ok((object, warnings))
    }

    async fn apply_new(
        &self,
        place: Place<'_>,
        wanted: &Value,
        repeated: &[String],
        options: WriteOptions,
    ) -> Result<(Value, Vec<String>), Status> {
        let Place { resource, .. } = place;
        self.check_may_create(place)?;
        let mut new = self.applied(place, None, wanted, options)?;
        let mut warnings = check_repeated(repeated, options)?;
        let uid = object::uid(&new);
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was \
                 found"
            );
            return Err(Status::conflict(resource, place.name, &why));
        }
        let decoded = prepare::decode_body(resource, &mut new, options.validation)?;
        warnings.extend(decoded);
        prepare::set_namespace(resource, place.namespace, &mut new)?;
        prepare::check_name(place.name, &new)?;
        if object::resource_version(&new) != 0 {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let created = self
            .create_named(resource, place.namespace, new, options, Owners::Told)
            .await?;
        Ok((created, warnings))
    }

    /// Who applies may patch; to make an object takes more.
    fn check_may_create(&self, place: Place<'_>) -> Result<(), Status> {
        let Place { resource, .. } = place;
        let create = rbac::Request::resource("create", resource.group, resource.plural)
            .in_namespace(place.namespace.unwrap_or_default())
            .named(place.name);
        let user = &self.caller().user;
        match self.authorizer().allowed(user, &create) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Refused { reason } => Err(create.refusal(user, &reason)),
        }
    }

    /// What the object is with what is wanted of it.
    fn applied(
        &self,
        place: Place<'_>,
        live: Option<&Value>,
        wanted: &Value,
        options: WriteOptions,
    ) -> Result<Value, Status> {
        let Place { resource, part, .. } = place;
        let api_version = resource.api_version();
        let subresource = part.subresource().unwrap_or_default();
        let filter = Filter::of(resource, subresource);
        let subject = Subject {
            schema: managed::schema_of(resource),
            filter: &filter,
            versions: &Forms {
                api: self,
                resource,
            },
        };
        let apply = Apply {
            wanted,
            kind: &managed::show_kind(&api_version, resource.kind),
            force: options.force,
        };
        let writer = Writer {
            manager: &self.caller().manager,
            api_version: &api_version,
            subresource,
            now: Timestamp::now(),
        };
        let blank = managed::blank(resource);
        Ok(managed::apply(subject, live, &blank, apply, writer)?)
    }

    /// Applies a scale to a workload.
    pub(crate) async fn apply_scale(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        wanted: &Value,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let mut scale = wanted.clone();
        let kind = managed::show_kind(&SCALES.api_version(), SCALES.kind);
        let given = managed::show_kind(
            object::text(wanted, &["apiVersion"]),
            object::text(wanted, &["kind"]),
        );
        if given != kind {
            return Err(Status::bad_request(format!("invalid object type: {given}")));
        }
        prepare::decode_body(&SCALES, &mut scale, options.validation)?;
        let replicas = super::scale::replicas_of(&scale)?;
        let mut wanted = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": name}, "spec": {},
        });
        if let Some(replicas) = replicas {
            super::scale::set_replicas(resource, &mut wanted, replicas);
        }
        let place = Place {
            resource,
            part: Part::Scale,
            namespace,
            name,
        };
        let mut written = self.apply(place, &wanted, &[], options).await?;
        written.object = super::scale::scale_of(resource, &written.object);
        Ok(written)
    }

    /// The caller's manager owns what a new object has.
    pub(super) fn track_create(
        &self,
        resource: &Resource,
        filter: &Filter,
        object: &mut Value,
        now: Timestamp,
    ) {
        let subject = Subject {
            schema: managed::schema_of(resource),
            filter,
            versions: &OneVersion,
        };
        let writer = Writer {
            manager: &self.caller().manager,
            api_version: &resource.api_version(),
            subresource: "",
            now,
        };
        managed::created(subject, &managed::blank(resource), object, writer);
    }

    /// The caller's manager owns what differs.
    pub(super) fn track_update(&self, place: Place<'_>, old: &Value, new: &mut Value) {
        let subresource = place.part.subresource().unwrap_or_default();
        let subject = Subject {
            schema: managed::schema_of(place.resource),
            filter: &Filter::of(place.resource, subresource),
            versions: &Forms {
                api: self,
                resource: place.resource,
            },
        };
        let writer = Writer {
            manager: &self.caller().manager,
            api_version: &place.resource.api_version(),
            subresource,
            now: Timestamp::now(),
        };
        managed::updated(subject, old, new, writer);
    }
}

/// What upstream does about fields that what is wanted has twice, once it is merged.
fn check_repeated(repeated: &[String], options: WriteOptions) -> Result<Vec<String>, Status> {
    match options.validation {
        FieldValidation::Strict if !repeated.is_empty() => Err(Status::bad_request(format!(
            "error strict decoding YAML: {}",
            repeated.join(", ")
        ))),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(strict::warnings(repeated.to_vec())),
    }
}

/// The forms that objects of a resource have in the versions that are served.
#[derive(Debug)]
struct Forms<'a> {
    api: &'a Api,
    /// In which form they are given.
    resource: &'a Resource,
}

impl Versions for Forms<'_> {
    fn at(&self, api_version: &str, object: &Value) -> Option<(Value, Row)> {
        let kind = self.resource.kind;
        let row = self.api.resources().find_kind(api_version, kind)?;
        let mut object = object.clone();
        convert::to_stored(self.resource, &mut object);
        match &row.custom {
            Some(custom) => custom.present(&mut object),
            None => convert::from_stored(&row, &mut object),
        }
        Some((object, row))
    }
}
