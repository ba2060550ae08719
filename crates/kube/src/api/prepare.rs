//! What the server itself writes into an object, before the rules of its kind. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::given::{complaints, judged};
use super::{FieldValidation, Part};
use crate::defaults;
use crate::identity::User;
use crate::object::{self, meta_mut};
use crate::resource::{
    CERTIFICATE_SIGNING_REQUESTS, CSI_DRIVERS, NAMESPACES, Resource, SERVICES, StatusPart,
};
use crate::schema;
use crate::status::{Cause, Status};
use crate::strict::Text;
use crate::time;

/// Makes a body an object of this resource: kind and version (bodies may leave them out), unknown
/// fields, types. Returns the warnings.
pub(super) fn decode_body(
    resource: &Resource,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    decode_text(resource, object, None, validation)
}

/// [`decode_body`], with the text the body was read from.
pub(super) fn decode_text(
    resource: &Resource,
    object: &mut Value,
    text: Option<&Text>,
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let unknown = decode_fields(resource, object)?;
    if text.is_some() {
        drop_empty(resource, object);
    }
    if validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let complaints = complaints(text, resource.custom.is_some(), &unknown);
    judged(complaints, validation).map_err(|why| not_handled(resource, &why))
}

/// [`decode_body`] of what a patch has made, beside what is wrong with the patch itself.
pub(super) fn decode_patched(
    resource: &Resource,
    object: &mut Value,
    repeated: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let unknown = decode_fields(resource, object)?;
    drop_empty(resource, object);
    let mut all = repeated.to_vec();
    all.extend(complaints(None, resource.custom.is_some(), &unknown));
    judged(all, validation).map_err(|why| not_handled(resource, &why))
}

/// Lists and maps without anything are not stored, as Go does not write them.
fn drop_empty(resource: &Resource, object: &mut Value) {
    if let (None, Some(schema)) = (&resource.custom, schema::type_named(resource.schema)) {
        schema::without_empty(schema.get(), object);
    }
}

fn not_handled(resource: &Resource, why: &dyn std::fmt::Display) -> Status {
    let (kind, version) = (resource.kind, resource.version);
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

/// Makes a body an object of this resource, and returns the paths of the fields it took out.
fn decode_fields(resource: &Resource, object: &mut Value) -> Result<Vec<String>, Status> {
    if !object.is_object() {
        return Err(Status::bad_request(
            "the body of the request is not an object",
        ));
    }
    let (api_version, kind) = (resource.api_version(), resource.kind);
    let given = object::text(object, &["apiVersion"]);
    let given_kind = object::text(object, &["kind"]);
    if resource.custom.is_none() {
        let (version, given_kind) = (
            if given.is_empty() {
                &api_version
            } else {
                given
            },
            if given_kind.is_empty() {
                kind
            } else {
                given_kind
            },
        );
        if version != api_version || given_kind != kind {
            let version = version.rsplit('/').next().unwrap_or_default();
            return Err(Status::bad_request(format!(
                "{given_kind} in version {version:?} cannot be handled as a {kind}: no kind \
                 {given_kind:?} is registered for version {given:?}"
            )));
        }
    }
    if !given.is_empty() && given != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version \
             ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({kind})"
        )));
    }
    object["apiVersion"] = api_version.as_str().into();
    object["kind"] = kind.into();
    let decoded = match &resource.custom {
        Some(kind) => kind.decode(object),
        None => {
            let schema = schema::type_named(resource.schema)
                .ok_or_else(|| Status::internal(format!("{} has no schema", resource.schema)))?;
            schema::decode(schema.get(), object)
        }
    };
    decoded.map_err(|error| not_handled(resource, &error))
}

/// A refusal of [`decode_body`] for what a patch has made: the patch is wrong, not the body.
pub(super) fn badly_patched(resource: &Resource, patched: &Value, refusal: Status) -> Status {
    let handled = format!("cannot be handled as a {}: ", resource.kind);
    match refusal.message.split_once(&handled) {
        Some((_, why)) => {
            let patched = Value::from(patched.to_string());
            let cause = Cause::invalid("patch", &patched, why);
            Status::invalid_kind("", "", "", vec![cause])
        }
        None => refusal,
    }
}

/// An object is written under its own name.
pub(super) fn check_name(name: &str, object: &Value) -> Result<(), Status> {
    match object::name(object) {
        given if given == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given => Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
    }
}

/// The namespace of the path goes into the object, and must not contradict it.
pub(super) fn set_namespace(
    resource: &Resource,
    namespace: Option<&str>,
    object: &mut Value,
) -> Result<(), Status> {
    let given = object::namespace(object).unwrap_or_default().to_owned();
    match namespace.filter(|_| resource.is_namespaced()) {
        Some(namespace) if given.is_empty() || given == namespace => {
            meta_mut(object).insert("namespace".into(), namespace.into());
            Ok(())
        }
        Some(_) => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        None if resource.is_namespaced() => Err(Status::bad_request(
            "an empty namespace may not be set during creation",
        )),
        None => {
            meta_mut(object).remove("namespace");
            Ok(())
        }
    }
}

/// Fields that belong to the server and begin here.
pub(super) fn for_create(resource: &Resource, object: &mut Value, now: Timestamp, uid: &str) {
    let meta = meta_mut(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
        "generation",
    ] {
        meta.remove(field);
    }
    meta.insert("uid".into(), uid.into());
    meta.insert("creationTimestamp".into(), time::seconds(now).into());
    if resource.has_generation {
        meta.insert("generation".into(), 1.into());
    }
    // A node brings its status along; of the others it is the server's to begin.
    if resource.status == StatusPart::Subresource
        && !resource.is(&crate::resource::NODES)
        && let Some(object) = object.as_object_mut()
    {
        object.remove("status");
        if resource.custom.is_none() {
            object.insert("status".into(), json!({}));
        }
    }
}

/// Who asks for a certificate is for the server to say: it decides what may be signed.
pub(super) fn stamp_request(resource: &Resource, object: &mut Value, user: &User) {
    if !resource.is(&CERTIFICATE_SIGNING_REQUESTS) {
        return;
    }
    let info = user.to_json();
    let spec = object::map_mut(object, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        match info.get(field) {
            Some(value) => drop(spec.insert(field.into(), value.clone())),
            None => drop(spec.remove(field)),
        }
    }
}

/// Conditions of a request without times get them, as upstream gives them.
pub(super) fn stamp_conditions(
    resource: &Resource,
    part: Part,
    old: &Value,
    new: &mut Value,
    now: Timestamp,
) {
    if !resource.is(&CERTIFICATE_SIGNING_REQUESTS) || !matches!(part, Part::Status | Part::Approval)
    {
        return;
    }
    let before = object::items(old, &["status", "conditions"]);
    let at = Value::from(time::seconds(now));
    let conditions = new["status"]["conditions"].as_array_mut();
    for condition in conditions.into_iter().flatten() {
        let is_same = |one: &&Value| {
            one["type"] == condition["type"]
                && one["status"] == condition["status"]
                && one["lastTransitionTime"].is_string()
        };
        let since = before.iter().find(is_same);
        let since = since.map_or_else(|| at.clone(), |one| one["lastTransitionTime"].clone());
        if let Some(condition) = condition.as_object_mut() {
            object::default(condition, "lastUpdateTime", at.clone());
            object::default(condition, "lastTransitionTime", since);
        }
    }
}

/// Makes `new` a legal successor of `old`: what this part of the API may not write is taken over.
pub(super) fn for_update(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
    match part {
        Part::Object | Part::Scale => {
            if resource.status == StatusPart::Subresource {
                take_over(old, new, "status");
            }
            if resource.is(&SERVICES) {
                defaults::keep_addresses(old, new);
            }
            if resource.is(&NAMESPACES) {
                take_over(&old["spec"], object::ensure_at(new, "spec"), "finalizers");
            }
        }
        Part::Status if resource.custom.is_some() => {
            let status = std::mem::take(new);
            *new = old.clone();
            take_over(&status, new, "status");
            take_over(&status["metadata"], &mut new["metadata"], "managedFields");
        }
        Part::Status => {
            let status = new.get("status").cloned();
            let mut meta = new.get("metadata").cloned().unwrap_or_default();
            take_over(&old["metadata"], &mut meta, "ownerReferences");
            *new = old.clone();
            new["metadata"] = meta;
            new["status"] = status.unwrap_or_else(|| json!({}));
        }
        Part::Approval => {
            let conditions = object::items(new, &["status", "conditions"]).to_vec();
            let meta = std::mem::take(object::ensure_at(new, "metadata"));
            *new = old.clone();
            new["metadata"] = meta;
            object::map_mut(new, "status").insert("conditions".into(), conditions.into());
        }
        Part::EphemeralContainers => {
            let wanted = std::mem::take(new);
            *new = old.clone();
            take_over(
                &wanted["spec"],
                object::ensure_at(new, "spec"),
                "ephemeralContainers",
            );
            take_over(&wanted["metadata"], &mut new["metadata"], "managedFields");
        }
        Part::Resize => {
            let wanted = std::mem::take(new);
            *new = old.clone();
            take_over(&wanted["metadata"], &mut new["metadata"], "managedFields");
            for list in ["containers", "initContainers"] {
                resize(&wanted["spec"][list], &mut new["spec"][list]);
            }
        }
        Part::Finalize => {
            let finalizers = object::items(new, &["spec", "finalizers"]).to_vec();
            *new = old.clone();
            object::map_mut(new, "spec").insert("finalizers".into(), finalizers.into());
        }
    }
    let (old_meta, new_meta) = (&old["metadata"], object::map_mut(new, "metadata"));
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        match old_meta.get(field) {
            Some(value) => drop(new_meta.insert(field.into(), value.clone())),
            None => drop(new_meta.remove(field)),
        }
    }
    new_meta.remove("selfLink");
}

/// Counts a change of the specification, once the new object is what it is going to be.
pub(super) fn raise_generation(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
    // Drivers are counted from their first change on.
    if (resource.has_generation || resource.is(&CSI_DRIVERS))
        && matches!(
            part,
            Part::Object | Part::Scale | Part::EphemeralContainers | Part::Resize
        )
        && is_specified_anew(resource, old, new)
    {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta_mut(new).insert("generation".into(), generation.into());
    }
}

/// Whether the specification differs: of a custom resource, everything but metadata and status.
fn is_specified_anew(resource: &Resource, old: &Value, new: &Value) -> bool {
    match &resource.custom {
        Some(kind) => kind.is_changed(old, new),
        None => {
            // Some have their specification elsewhere, or a part of it.
            let also: &[&str] = match (resource.group, resource.plural) {
                ("", "podtemplates") => &["/template"],
                ("discovery.k8s.io", "endpointslices") => {
                    &["/endpoints", "/ports", "/metadata/labels"]
                }
                ("admissionregistration.k8s.io", _) => &["/webhooks"],
                _ => &[],
            };
            let differs = |at: &&str| old.pointer(at) != new.pointer(at);
            ["/spec"].iter().chain(also).any(differs)
        }
    }
}

/// Takes the amounts over. Where the containers are not the same, all of them, for validation to
/// see.
fn resize(wanted: &Value, containers: &mut Value) {
    let name = |one: &Value| one["name"].clone();
    let (Some(all), Some(present)) = (wanted.as_array(), containers.as_array_mut()) else {
        return;
    };
    if !all.iter().map(name).eq(present.iter().map(name)) {
        *containers = wanted.clone();
        return;
    }
    for (wanted, container) in all.iter().zip(present) {
        for field in ["resources", "resizePolicy"] {
            take_over(wanted, container, field);
        }
    }
}

fn take_over(old: &Value, new: &mut Value, field: &str) {
    let Some(new) = new.as_object_mut() else {
        return;
    };
    match old.get(field) {
        Some(value) => drop(new.insert(field.into(), value.clone())),
        None => drop(new.remove(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CONFIG_MAPS, PODS};

    #[test]
    fn a_status_write_changes_nothing_else_and_an_object_write_not_the_status() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 1},
            "spec": {"x": 1}, "status": {"phase": "Pending"}});
        let written = json!({"metadata": {"name": "a", "uid": "other"},
            "spec": {"x": 2}, "status": {"phase": "Running"}});
        let mut new = written.clone();
        for_update(&PODS, Part::Status, &old, &mut new);
        assert_eq!(
            (&new["spec"], &new["status"]),
            (&old["spec"], &written["status"])
        );
        assert_eq!(new["metadata"], old["metadata"]);
        let mut new = written.clone();
        for_update(&PODS, Part::Object, &old, &mut new);
        assert_eq!(
            (&new["spec"], &new["status"]),
            (&written["spec"], &old["status"])
        );
        assert_eq!(new["metadata"]["generation"], 1);
        raise_generation(&PODS, Part::Object, &old, &mut new);
        assert_eq!(new["metadata"]["generation"], 2);
    }

    #[test]
    fn a_body_without_kind_gets_it_from_the_path_and_a_wrong_one_is_refused() {
        let mut body = json!({"metadata": {"name": "a"}});
        decode_body(&CONFIG_MAPS, &mut body, FieldValidation::Strict).expect("fits");
        assert_eq!(
            (&body["kind"], &body["apiVersion"]),
            (&json!("ConfigMap"), &json!("v1"))
        );
        let mut body = json!({"kind": "Secret"});
        assert_eq!(
            decode_body(&CONFIG_MAPS, &mut body, FieldValidation::Warn)
                .expect_err("refused")
                .code,
            400
        );
    }

    #[test]
    fn a_patch_that_leaves_a_list_or_map_empty_takes_it_away() {
        let mut pod = json!({"metadata": {"labels": {}},
            "spec": {"containers": [], "tolerations": [], "volumes": [{"emptyDir": {}}]}});
        decode_patched(&PODS, &mut pod, &[], FieldValidation::Strict).expect("fits");
        assert_eq!(pod["metadata"], json!({}));
        assert_eq!(
            pod["spec"],
            json!({"containers": [], "volumes": [{"emptyDir": {}}]})
        );
    }

    #[test]
    fn unknown_fields_are_refused_warned_about_or_ignored() {
        let body = || json!({"dta": {}});
        let strict = decode_body(&CONFIG_MAPS, &mut body(), FieldValidation::Strict);
        assert_eq!(
            strict.expect_err("refused").message,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
             unknown field \"dta\""
        );
        let warned = decode_body(&CONFIG_MAPS, &mut body(), FieldValidation::Warn);
        assert_eq!(warned.expect("pruned"), ["unknown field \"dta\""]);
        let ignored = decode_body(&CONFIG_MAPS, &mut body(), FieldValidation::Ignore);
        assert!(ignored.expect("pruned").is_empty());
    }
}
