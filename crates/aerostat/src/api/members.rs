//! Members of a body that nobody reads.
//!
//! A machine that silently lacks what its configuration asks for is worse than none. Types that
//! keep unknown members (`other`) have them refused by `worker::check`; what the others would drop
//! is found here, by laying the JSON beside the schema that is made of the types.

use std::collections::BTreeMap;
use std::sync::OnceLock;

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
            let properties = schema.get("properties").and_then(Value::as_object);
            let more = schema.get("additionalProperties");
            members.iter().find_map(|(name, value)| {
                let at = format!("{path}.{name}");
                match properties.and_then(|all| all.get(name)).or(more) {
                    Some(inner) => unread(root, inner, value, &at, depth),
                    // No object is described here: whoever reads it takes what comes.
                    None if properties.is_none() => None,
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
}
