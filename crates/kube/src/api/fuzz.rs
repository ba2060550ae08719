//! What a fuzzer calls of the API: bodies and patches, on their whole way to the store.
//!
//! The way is that of `create` and `update` without what asks the store, because a store on disk
//! would make each case a thousand times slower.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FieldValidation, Part, Patch, prepare, read};
use crate::resource::{self, PODS, Resource};
use crate::schema::{self, protobuf};
use crate::table::{self, Header, IncludeObject};
use crate::{admission, defaults, managed, object, provider, validation, yaml};

/// Reads `data` as a body: the first line is the plural of a resource, the rest is JSON or
/// protobuf.
///
/// # Panics
/// If what was let through is not what is read back, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn body(data: &[u8]) {
    let Some((plural, body)) = first_line(data) else {
        return;
    };
    let Some(resource) = named(plural) else {
        return;
    };
    let given: Option<Value> = if body.starts_with(protobuf::MAGIC) {
        let schema = schema::type_named(resource.schema).expect("tested with the table");
        protobuf::decode(schema.get(), body).ok()
    } else {
        serde_json::from_slice(body).ok()
    };
    if let Some(created) = given.and_then(|given| create(resource, given)) {
        for part in parts(resource) {
            update(resource, part, &created, created.clone());
        }
    }
}

/// Applies `data` as a patch to an object that has some of everything: the first line is `json`,
/// `merge` or `strategic` and the plural of a resource, the rest is the patch.
///
/// # Panics
/// If what was let through is not what is read back, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn patch(data: &[u8]) {
    let Some((line, body)) = first_line(data) else {
        return;
    };
    let Some((kind, plural)) = line.split_once(' ') else {
        return;
    };
    let (Some(resource), Ok(body)) = (named(plural), serde_json::from_slice(body)) else {
        return;
    };
    let patch = match kind {
        "json" => Patch::json(body),
        "merge" => Ok(Patch::Merge(body)),
        _ => Ok(Patch::Strategic(body)),
    };
    let Ok(patch) = patch else { return };
    let old = create(resource, sample(resource)).expect("the sample is fine");
    let Ok(patched) = patch.apply(resource, &old) else {
        return;
    };
    assert_eq!(
        read_back(&patched).as_ref(),
        Some(&patched),
        "can be stored"
    );
    if let Patch::Merge(_) = patch {
        let again = patch.apply(resource, &patched);
        assert_eq!(again.as_ref(), Ok(&patched), "merging twice is merging");
    }
    for part in parts(resource) {
        update(resource, part, &old, patched.clone());
    }
}

/// Applies `data` to an object that has some of everything and belongs to somebody else: the first
/// line is the plural of a resource, the rest is what is wanted, in YAML.
///
/// # Panics
/// If what was let through is not what is read back, if applying it again changes anything, or
/// whatever a fuzzer is to find.
#[doc(hidden)]
pub fn apply(data: &[u8]) {
    let Some((plural, body)) = first_line(data) else {
        return;
    };
    let (Some(resource), Ok(mut wanted)) = (named(plural), yaml::parse(body)) else {
        return;
    };
    if let Some(wanted) = wanted.as_object_mut() {
        wanted.insert("apiVersion".into(), resource.api_version().into());
        wanted.insert("kind".into(), resource.kind.into());
    }
    // Not every kind has a sample that is fine.
    let Some(mut old) = create(resource, sample(resource)) else {
        return;
    };
    let writer = managed::Writer {
        manager: "creator",
        api_version: &resource.api_version(),
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    };
    let filter = managed::Filter::of(resource, "");
    let subject = managed::Subject {
        schema: managed::schema_of(resource),
        filter: &filter,
        versions: &managed::OneVersion,
    };
    managed::created(subject, &managed::blank(resource), &mut old, writer);
    let _ = applied(resource, subject, &old, &wanted, false);
    if let Some(once) = applied(resource, subject, &old, &wanted, true) {
        let twice = applied(resource, subject, &once, &wanted, false);
        assert_eq!(twice, Some(once), "applying twice is applying");
    }
    applied(resource, subject, &old, &json!({}), false);
}

/// As `Api::apply` makes it; none if it is refused.
fn applied(
    resource: &Resource,
    subject: managed::Subject<'_>,
    old: &Value,
    wanted: &Value,
    force: bool,
) -> Option<Value> {
    let api_version = resource.api_version();
    let apply = managed::Apply {
        wanted,
        kind: &managed::show_kind(&api_version, resource.kind),
        force,
    };
    let writer = managed::Writer {
        manager: "applier",
        api_version: &api_version,
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    };
    let blank = managed::blank(resource);
    let mut new = managed::apply(subject, Some(old), &blank, apply, writer).ok()?;
    prepare::decode_body(resource, &mut new, FieldValidation::Strict).ok()?;
    prepare::for_update(resource, Part::Object, old, &mut new);
    defaults::on_update(resource, old, &mut new);
    admission::complete(resource, Some(old), &mut new);
    if !validation::on_update(resource, Part::Object, old, &new).is_empty() {
        return None;
    }
    check_stored(resource, &new);
    Some(new)
}

/// Reads `data` as YAML; what is read can be stored and is then the same.
///
/// # Panics
/// If it is not, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn yaml(data: &[u8]) {
    if let Ok(value) = yaml::parse(data) {
        assert_eq!(read_back(&value).as_ref(), Some(&value), "can be stored");
    }
}

/// Reads a `continue` token; one that is read is written as one that says the same.
pub(crate) fn continue_token(text: &str) {
    if let Ok(token) = read::parse_token(text) {
        let rev = token.at_rev().unwrap_or(0);
        let again = read::make_token(rev, &token.start);
        let again = read::parse_token(&again).expect("our own");
        assert_eq!((again.at_rev(), again.start), (Some(rev), token.start));
    }
}

fn first_line(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
}

fn named(plural: &str) -> Option<&'static Resource> {
    let mut all = resource::BUILT_IN.iter().copied();
    all.find(|resource| resource.plural == plural)
}

/// What can be written of the resource.
fn parts(resource: &Resource) -> impl Iterator<Item = Part> {
    let subresources = [("status", Part::Status), ("finalize", Part::Finalize)]
        .into_iter()
        .filter(|(name, _)| resource.subresource(name).is_some());
    [Part::Object]
        .into_iter()
        .chain(subresources.map(|(_, part)| part))
}

/// As [`super::Api::create`] makes it; none if it is refused.
fn create(resource: &Resource, mut object: Value) -> Option<Value> {
    prepare::decode_body(resource, &mut object, FieldValidation::Warn).ok()?;
    let namespace = resource.is_namespaced().then_some("default");
    prepare::set_namespace(resource, namespace, &mut object).ok()?;
    prepare::for_create(resource, &mut object, Timestamp::UNIX_EPOCH, "uid");
    defaults::on_create(resource, &mut object);
    admission::complete(resource, None, &mut object);
    show(resource, &object);
    if !validation::on_create(resource, &object).is_empty() {
        return None;
    }
    check_stored(resource, &object);
    if resource.is(&PODS) {
        provider::fuzz::pod(&object);
    }
    Some(object)
}

fn update(resource: &Resource, part: Part, old: &Value, mut new: Value) {
    if prepare::decode_body(resource, &mut new, FieldValidation::Strict).is_err() {
        return;
    }
    prepare::for_update(resource, part, old, &mut new);
    defaults::on_update(resource, old, &mut new);
    admission::complete(resource, Some(old), &mut new);
    show(resource, &new);
    if validation::on_update(resource, part, old, &new).is_empty() {
        check_stored(resource, &new);
    }
}

/// As lists show it.
fn show(resource: &Resource, object: &Value) {
    let objects = std::slice::from_ref(object);
    let include = IncludeObject::Metadata;
    table::render(resource, objects, json!({}), include, Header::Yes);
}

/// What is stored can be read, and is still an object of its type.
fn check_stored(resource: &Resource, object: &Value) {
    let mut again = read_back(object).expect("can be read");
    let unknown = prepare::decode_body(resource, &mut again, FieldValidation::Strict);
    assert_eq!(unknown, Ok(Vec::new()));
    object::meta_mut(&mut again);
    // Members that Go writes as null are not read.
    defaults::complete(resource, &mut again);
    let mut object = object.clone();
    object::meta_mut(&mut object).remove("resourceVersion");
    assert_eq!(again, object);
}

fn read_back(object: &Value) -> Option<Value> {
    let bytes = serde_json::to_vec(object).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// An object of the resource with maps, lists and merge keys to work on.
fn sample(resource: &Resource) -> Value {
    let mut object = json!({"metadata": {
        "name": "a", "labels": {"app": "web"}, "annotations": {"note": "1"},
        "finalizers": ["example.com/one", "example.com/two"],
    }});
    if resource.is(&PODS) {
        object["spec"] = json!({
            "containers": [
                {"name": "web", "image": "nginx", "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
                {"name": "log", "image": "busybox"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
        });
    }
    match resource.plural {
        "deployments" | "replicasets" => {
            object["spec"] = json!({
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "nginx"}]},
                },
            });
        }
        "configmaps" => object["data"] = json!({"key": "value"}),
        "runtimeclasses" => object["handler"] = json!("microvm"),
        "events" => object["involvedObject"] = json!({"namespace": "default"}),
        _ => {}
    }
    object
}
