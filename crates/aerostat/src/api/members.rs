//! Members of a body that nobody reads.
//!
//! A machine that silently lacks what its configuration asks for is worse than none. Types that
//! keep unknown members (`other`) have them refused by `worker::check`; what the others would drop
//! is found here, by laying the JSON beside the schema that is made of the types.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use schemars::JsonSchema;
use serde_json::Value;
use types::machine::MachineConfig;

use super::error::ApiError;
use crate::worker;

/// Deeper than any configuration that is read.
const DEPTH_MAX: usize = 32;

/// Refuses a machine's configuration with a member that says something and is not read.
pub(super) fn check_config(config: &Value) -> Result<(), ApiError> {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| schemars::schema_for!(MachineConfig).to_value());
    match unread(schema, schema, config, "config", DEPTH_MAX) {
        Some(path) => Err(unbuilt(&path)),
        None => Ok(()),
    }
}

/// Refuses a body with a member that says something and that `T` has no place for: `timout` of a
/// stop is no `timeout`, and whoever asked would believe otherwise.
pub(super) fn check_body<T: JsonSchema + 'static>(body: &Value) -> Result<(), ApiError> {
    static SCHEMAS: RwLock<BTreeMap<TypeId, Arc<Value>>> = RwLock::new(BTreeMap::new());
    let id = TypeId::of::<T>();
    // Entries are only ever added whole.
    let known = {
        let all = SCHEMAS.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned()
    };
    let schema = known.unwrap_or_else(|| {
        let schema = Arc::new(schemars::schema_for!(T).to_value());
        let mut all = SCHEMAS.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, schema.clone());
        schema
    });
    match unread(&schema, &schema, body, "", DEPTH_MAX) {
        Some(path) => Err(unknown(&schema, path.trim_start_matches('.'))),
        None => Ok(()),
    }
}

/// Names the member, and the ones that there are.
fn unknown(schema: &Value, path: &str) -> ApiError {
    let path: String = path.chars().take(200).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let names = properties.into_iter().flat_map(|all| all.keys());
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    let names = names.join(", ");
    ApiError::bad(match path.contains(['.', '[']) {
        false if !names.is_empty() => format!("{path}: there is no such member; there are {names}"),
        _ => format!("{path}: there is no such member"),
    })
}

/// Refuses members that a type has kept aside, but for those that are `known` to mean nothing here.
pub(super) fn check_other(other: &BTreeMap<String, Value>, known: &[&str]) -> Result<(), ApiError> {
    let mut said = other.iter().filter(|(_, value)| says_something(value));
    match said.find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(unbuilt(name)),
        None => Ok(()),
    }
}

fn unbuilt(path: &str) -> ApiError {
    let path: String = path.chars().take(200).collect();
    let name = path.rsplit('.').next().unwrap_or(&path);
    ApiError::bad(format!("{path}: {}", worker::why_unbuilt(name)))
}

/// Clients write empty members too.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// The first member of `value` for which `schema` has no place. Pure.
fn unread(root: &Value, schema: &Value, value: &Value, path: &str, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let schema = resolve(root, schema);
    match value {
        Value::Object(members) => {
            let is_described = schema.get("properties").is_some();
            let more = schema.get("additionalProperties");
            members.iter().find_map(|(name, value)| {
                let at = format!("{path}.{name}");
                match place(root, schema, name, depth).or(more) {
                    Some(inner) => unread(root, inner, value, &at, depth),
                    // No object is described here: whoever reads it takes what comes.
                    None if !is_described => None,
                    None => says_something(value).then_some(at),
                }
            })
        }
        Value::Array(items) => {
            let inner = schema.get("items")?;
            let mut items = items.iter().enumerate();
            items.find_map(|(at, item)| unread(root, inner, item, &format!("{path}[{at}]"), depth))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// What is said of a member, by the object itself or by one of the kinds that it may be of: an
/// enumeration that is flattened into it.
fn place<'a>(root: &'a Value, schema: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    let depth = depth.checked_sub(1)?;
    let own = schema.get("properties").and_then(|all| all.get(name));
    own.or_else(|| {
        let kinds = ["oneOf", "anyOf", "allOf"].map(|word| schema.get(word));
        let mut kinds = kinds.into_iter().flatten().filter_map(Value::as_array);
        kinds.find_map(|kinds| {
            let mut kinds = kinds.iter().map(|kind| resolve(root, kind));
            kinds.find_map(|kind| place(root, kind, name, depth))
        })
    })
}

/// What a reference leads to; of `T or null`, the `T`.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let Some(found) = root.pointer(name.trim_start_matches('#')) else {
                return schema;
            };
            schema = found;
            continue;
        }
        let branches = schema.get("anyOf").and_then(Value::as_array);
        let some = branches.and_then(|all| all.iter().find(|one| one.get("$ref").is_some()));
        match some {
            Some(some) => schema = some,
            None => return schema,
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use types::api::{AcquireLease, Exec, SignalMachine, StopMachine, UpdateMetadata};
    use types::service::ServiceSpec;

    use super::*;

    #[test]
    fn what_nobody_reads_is_named_by_its_path() {
        let told = |config: Value| match check_config(&config) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        for (config, path) in [
            (
                json!({"init": {"swap_size_mb": 512}}),
                "config.init.swap_size_mb: machines have no swap",
            ),
            (
                json!({"init": {"kernel_args": ["a"]}}),
                "config.init.kernel_args:",
            ),
            (
                json!({"restart": {"policy": "no", "gpu_bid_price": 0.1}}),
                "config.restart.gpu_bid_price:",
            ),
            (
                json!({"stop_config": {"grace": 1}}),
                "config.stop_config.grace:",
            ),
            (
                json!({"containers": [{}, {"restart": {"backoff": "1s"}}]}),
                "config.containers[1].restart.backoff:",
            ),
            (
                json!({"containers": [{"healthchecks": [{"tcp": {"port": 1, "host": "x"}}]}]}),
                "config.containers[0].healthchecks[0].tcp.host:",
            ),
            (
                json!({"checks": {"a.b": {"headers": [{"name": "A", "value": "b"}]}}}),
                "config.checks.a.b.headers[0].value:",
            ),
            (
                json!({"volumes": [{"temp_dir": {"storage_type": "disk", "inodes": 3}}]}),
                "config.volumes[0].temp_dir.inodes:",
            ),
            (
                json!({"dns": {"options": [{"name": "a", "priority": 1}]}}),
                "config.dns.options[0].priority:",
            ),
        ] {
            let text = told(config.clone());
            assert!(text.starts_with(path), "{config}: {text}");
        }
        for config in [
            json!({}),
            json!({"init": {"swap_size_mb": 0, "kernel_args": null}, "restart": null}),
            json!({"env": {"ANY": "thing"}, "metadata": {"a": "b"}, "schedule": "daily"}),
            json!({"guest": {"cpus": 1}, "rootfs": {"persist": "always", "size_gb": 1}}),
            // Kept aside, and refused by name later on.
            json!({"services": [{"ports": [{"port": 80}]}], "guest": {"gpus": 1}}),
        ] {
            assert_eq!(told(config), "");
        }
    }

    #[test]
    fn a_body_with_a_member_that_does_not_exist_is_refused_by_name() {
        fn told<T: JsonSchema + 'static>(body: &Value) -> String {
            match check_body::<T>(body) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            }
        }
        for (told, text) in [
            (
                told::<StopMachine>(&json!({"signal": "SIGTERM", "timout": "30s"})),
                "timout: there is no such member; there are id, signal, timeout",
            ),
            (
                told::<Exec>(&json!({"command": ["id"], "user": "nobody"})),
                "user: there is no such member; there are cmd, command, container",
            ),
            (
                told::<AcquireLease>(&json!({"ttl_s": 30})),
                "ttl_s: there is no such member; there are description, ttl",
            ),
            (
                told::<SignalMachine>(&json!({"signal": 9, "group": true})),
                "group: there is no such member; there are container, signal",
            ),
        ] {
            assert!(told.starts_with(text), "{told}");
        }
        let service = |backend: Value| json!({"backends": [backend]});
        let machine = json!({"machine": "0123456789abcd"});
        assert_eq!(told::<ServiceSpec>(&service(machine)), "");
        let wrong = told::<ServiceSpec>(&service(json!({"machin": "0123456789abcd"})));
        assert!(wrong.starts_with("backends[0].machin:"), "{wrong}");
        // As Fly's clients write them, and what says nothing.
        assert_eq!(
            told::<StopMachine>(&json!({"id": "x", "signal": "", "timeout": "5s"})),
            ""
        );
        assert_eq!(told::<AcquireLease>(&json!({"force": false})), "");
        assert_eq!(
            told::<UpdateMetadata>(&json!({"metadata": {"a": null}})),
            ""
        );
    }
}
