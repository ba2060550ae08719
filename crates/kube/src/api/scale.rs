//! The subresource `scale`: the replicas of a workload as an object of their own.

use serde_json::{Value, json};

use super::{Api, Part, WriteOptions, Written, prepare};
use crate::label_selector;
use crate::object;
use crate::resource::{Resource, SCALES};
use crate::status::{Cause, Status};

impl Api {
    pub(crate) async fn scale(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        let object = self.get(resource, namespace, name).await?;
        Ok(scale_of(resource, &object))
    }

    /// Sets the replicas to what `change` makes of the present scale.
    pub(crate) async fn scale_with(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        change: impl Fn(&Value) -> Result<Value, Status>,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let mut warnings = Vec::new();
        let set = |old: &Value| {
            let mut scale = change(&scale_of(resource, old))?;
            warnings = prepare::decode_body(&SCALES, &mut scale, options.validation)?;
            prepare::check_name(name, &scale)?;
            let replicas = replicas_of(&scale)?.unwrap_or(0);
            let mut new = old.clone();
            set_replicas(resource, &mut new, replicas);
            let meta = object::meta_mut(&mut new);
            // What the client says that it saw has to be so.
            for field in ["resourceVersion", "uid"] {
                match scale["metadata"].get(field) {
                    Some(given) => drop(meta.insert(field.into(), given.clone())),
                    None => drop(meta.remove(field)),
                }
            }
            Ok(new)
        };
        let written = self
            .modify(resource, Part::Scale, namespace, name, options, set)
            .await?;
        Ok(Written {
            object: scale_of(resource, &written),
            warnings,
            is_new: false,
        })
    }
}

/// The replicas that a scale asks for, if it does.
pub(super) fn replicas_of(scale: &Value) -> Result<Option<i64>, Status> {
    let replicas = object::at(scale, &["spec", "replicas"]).and_then(Value::as_i64);
    match replicas {
        Some(replicas) if replicas < 0 => {
            let why = "must be greater than or equal to 0";
            let cause = Cause::invalid("spec.replicas", &json!(replicas), why);
            let name = object::name(scale);
            let kind = SCALES.kind;
            Err(Status::invalid_kind(SCALES.group, kind, name, vec![cause]))
        }
        replicas => Ok(replicas),
    }
}

pub(crate) fn set_replicas(resource: &Resource, object: &mut Value, replicas: i64) {
    let scale = resource.custom.as_ref().and_then(|kind| kind.scale());
    let Some(scale) = scale else {
        object::map_mut(object, "spec").insert("replicas".into(), replicas.into());
        return;
    };
    let mut place = object;
    for key in &scale.spec {
        object::map_mut(place, key);
        place = &mut place[key.as_str()];
    }
    *place = replicas.into();
}

pub(crate) fn scale_of(resource: &Resource, workload: &Value) -> Value {
    let mut meta = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object::at(workload, &["metadata", field]) {
            meta[field] = value.clone();
        }
    }
    let number = |path: &[&str]| {
        let found = object::at(workload, path).and_then(Value::as_i64);
        found.unwrap_or(0)
    };
    let paths = resource.custom.as_ref().and_then(|kind| kind.scale());
    let (wanted, present, selector) = match paths {
        None => (
            number(&["spec", "replicas"]),
            number(&["status", "replicas"]),
            label_selector::format(&workload["spec"]["selector"]),
        ),
        Some(paths) => {
            fn at(path: &[String]) -> Vec<&str> {
                path.iter().map(String::as_str).collect()
            }
            let selector = paths.selector.as_ref();
            let selector = selector.map(|path| object::text(workload, &at(path)).to_owned());
            (
                number(&at(&paths.spec)),
                number(&at(&paths.status)),
                selector.unwrap_or_default(),
            )
        }
    };
    let mut scale = json!({
        "kind": SCALES.kind, "apiVersion": SCALES.api_version(), "metadata": meta, "spec": {},
        "status": {
            "replicas": present,
        },
    });
    // Go leaves the empty and the zero out.
    if !selector.is_empty() || paths.is_none() {
        scale["status"]["selector"] = selector.into();
    }
    if wanted != 0 {
        scale["spec"]["replicas"] = wanted.into();
    }
    scale
}
