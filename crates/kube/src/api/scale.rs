//! The subresource `scale`: the replicas of a workload as an object of their own.

use serde_json::{Value, json};

use super::{Api, Part, WriteOptions, Written, prepare};
use crate::label_selector;
use crate::object;
use crate::resource::{Resource, SCALES};
use crate::status::{Cause, Status};

impl Api {
    pub(crate) fn scale(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        Ok(scale_of(&self.read(resource, namespace, name)?))
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
            let mut scale = change(&scale_of(old))?;
            warnings = prepare::decode_body(&SCALES, &mut scale, options.validation)?;
            prepare::check_name(name, &scale)?;
            let replicas = replicas_of(&scale)?.unwrap_or(0);
            let mut new = old.clone();
            object::map_mut(&mut new, "spec").insert("replicas".into(), replicas.into());
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
            object: scale_of(&written),
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

pub(crate) fn scale_of(workload: &Value) -> Value {
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
    let mut scale = json!({
        "kind": SCALES.kind, "apiVersion": SCALES.api_version(), "metadata": meta, "spec": {},
        "status": {
            "replicas": number(&["status", "replicas"]),
            "selector": label_selector::format(&workload["spec"]["selector"]),
        },
    });
    // Go leaves the zero out.
    let replicas = number(&["spec", "replicas"]);
    if replicas != 0 {
        scale["spec"]["replicas"] = replicas.into();
    }
    scale
}
