//! The objects that every cluster begins with: default roles and bindings, flow schemas and
//! priority levels, priority classes, and the groups that this server serves itself.
//!
//! They are those of a genuine control plane of the version that the schema table is made from.
//! At each start what is missing of them is added: rules, subjects, labels; what somebody has
//! added stays. An object whose annotation says `autoupdate: "false"` is left alone.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::cover::missing;
use super::rule::Rule;
use crate::api::{Api, DeleteOptions};
use crate::object;
use crate::resource::Row;
use crate::status::Status;

/// A line for each object.
const OBJECTS: &str = include_str!("bootstrap.jsonl");
const RBAC_AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const FLOW_AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Writes that wait for the disk together.
const AT_ONCE: usize = 64;

/// Creates what is missing and completes what is there. May be repeated.
pub(crate) async fn reconcile(api: &Api) -> Result<(), Status> {
    let objects = serde_json::Deserializer::from_str(OBJECTS).into_iter::<Value>();
    let objects: Vec<_> = objects
        .collect::<Result<_, _>>()
        .map_err(|error| Status::internal(format!("cannot read the first objects: {error}")))?;
    stream::iter(objects)
        .map(|object| Box::pin(ensure(api, object)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn ensure(api: &Api, wanted: Value) -> Result<(), Status> {
    let kind = object::text(&wanted, &["kind"]).to_owned();
    let found = api
        .resources()
        .find_kind(object::text(&wanted, &["apiVersion"]), &kind);
    let row = found.ok_or_else(|| Status::internal(format!("{kind} is not served")))?;
    let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
    match api.get(&row, namespace, name).await {
        Ok(present) => complete(api, &row, present, wanted.clone()).await,
        Err(status) if status.is_not_found() => {
            match api.create(&row, namespace, wanted.clone()).await {
                Err(status) if status.reason != "AlreadyExists" => Err(status),
                Ok(_) | Err(_) => Ok(()),
            }
        }
        Err(status) => Err(status),
    }
}

async fn complete(api: &Api, row: &Row, present: Value, wanted: Value) -> Result<(), Status> {
    let annotation = |key: &str| object::text(&present, &["metadata", "annotations", key]);
    if annotation(RBAC_AUTO_UPDATE) == "false" || annotation(FLOW_AUTO_UPDATE) == "false" {
        return Ok(());
    }
    let namespace = object::namespace(&wanted);
    if present.get("roleRef") != wanted.get("roleRef") {
        // A binding cannot change its role.
        let uid = object::uid(&present);
        let options = DeleteOptions::now().with_uid(uid);
        api.delete(row, namespace, object::name(&wanted), &options)
            .await?;
        return api.create(row, namespace, wanted.clone()).await.map(drop);
    }
    let completed = completed(&present, &wanted);
    if completed == present {
        return Ok(());
    }
    match api.update(row, namespace, completed).await {
        Err(status) if !status.is_conflict() => Err(status),
        // Somebody else has changed it: the next start looks again.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// `present` with what it lacks of `wanted`.
fn completed(present: &Value, wanted: &Value) -> Value {
    let mut completed = present.clone();
    for map in ["labels", "annotations"] {
        let Some(Value::Object(entries)) = object::at(wanted, &["metadata", map]) else {
            continue;
        };
        let metadata = object::ensure_at(&mut completed, "metadata");
        let present = object::map_mut(metadata, map);
        for (key, value) in entries {
            object::default(present, key, value.clone());
        }
    }
    if wanted.get("rules").is_some() && wanted.get("aggregationRule").is_none() {
        let held = Rule::all_of(present);
        // A rule comes whole, as it stands in a new object.
        let lacking = object::items(wanted, &["rules"]).iter().filter(|rule| {
            Rule::deserialize(*rule).is_ok_and(|rule| !missing(&held, &[rule]).is_empty())
        });
        let lacking: Vec<_> = lacking.cloned().collect();
        extend(&mut completed, "rules", lacking.into_iter());
    }
    if let Some(selectors) = object::at(wanted, &["aggregationRule", "clusterRoleSelectors"]) {
        let rule = object::ensure_at(&mut completed, "aggregationRule");
        let selectors = selectors.as_array().cloned().unwrap_or_default();
        extend(rule, "clusterRoleSelectors", selectors.into_iter());
    }
    let subjects = object::items(wanted, &["subjects"]).iter().cloned();
    if subjects.len() > 0 {
        extend(&mut completed, "subjects", subjects);
    }
    let flows = object::text(present, &["metadata", "annotations", FLOW_AUTO_UPDATE]);
    if flows == "true" && !covers(&present["spec"], &wanted["spec"]) {
        completed["spec"] = wanted["spec"].clone();
    }
    completed
}

/// Adds the items that are not there yet.
fn extend(object: &mut Value, list: &str, items: impl Iterator<Item = Value>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    let present = map.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    let Some(present) = present.as_array_mut() else {
        return;
    };
    for item in items {
        if !present.iter().any(|one| covers(one, &item)) {
            present.push(item);
        }
    }
}

/// Whether everything that `wanted` says is so in `present`, which may have defaults beside it.
fn covers(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| present.get(key).is_some_and(|one| covers(one, value))),
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present
                    .iter()
                    .zip(wanted)
                    .all(|(one, other)| covers(one, other))
        }
        (present, wanted) => present == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_added_and_what_was_added_stays() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let wanted = json!({"metadata": {"name": "r", "labels": {"a": "1", "b": "2"}},
            "rules": [rule("get"), rule("list")]});
        let present = json!({"metadata": {"name": "r", "labels": {"a": "own"}},
            "rules": [rule("get"), rule("own")]});
        let expected = json!({"metadata": {"name": "r", "labels": {"a": "own", "b": "2"}},
            "rules": [rule("get"), rule("own"), rule("list")]});
        assert_eq!(completed(&present, &wanted), expected);
        assert_eq!(completed(&expected, &wanted), expected);
    }

    #[test]
    fn flow_schemas_are_brought_back_unless_their_users_own_them() {
        let wanted = json!({"spec": {"matchingPrecedence": 5}});
        let present = |auto: &str| {
            json!({"metadata": {"annotations": {FLOW_AUTO_UPDATE: auto}},
                "spec": {"matchingPrecedence": 7}})
        };
        assert_eq!(completed(&present("true"), &wanted)["spec"], wanted["spec"]);
        let own = completed(&present(""), &wanted);
        assert_eq!(own["spec"]["matchingPrecedence"], 7);
    }
}
