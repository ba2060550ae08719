//! Whether a value is what its schema wants, told in upstream's words.

use serde_json::Value;

use super::format;
use super::schema::{Checks, ListType, Schema, Type};
use crate::status::Cause;
use crate::validation::names;

/// Faults that are told of one object; a stranger's object may have a million.
const CAUSES_MAX: usize = 100;
/// How upstream writes the path of an object as a whole.
const WHOLE: &str = "<nil>";

/// What is wrong with an object; empty if nothing is. What is as it was in `old` is not looked at:
/// a definition may have become stricter since, and that must not stop other changes.
pub(crate) fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Causes(Vec::new());
    check(schema, object, old, "", &mut causes);
    unique(schema, object, old, "", &mut causes);
    causes.0
}

/// The former value of an item of a list, if it can be told which it was.
pub(crate) fn old_item<'a>(
    schema: &Schema,
    item: &Value,
    old: Option<&'a Value>,
) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list else {
        return None;
    };
    let key = keys_of(schema, item, keys);
    let old = old?.as_array()?;
    old.iter().find(|one| keys_of(schema, one, keys) == key)
}

/// Whether further rules make no sense because of these.
pub(crate) fn blocks_rules(causes: &[Cause]) -> bool {
    causes.iter().any(|cause| {
        matches!(
            cause.reason,
            "FieldValueNotSupported"
                | "FieldValueRequired"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    })
}

/// Tells that [`blocks_rules`].
pub(crate) fn not_checked() -> Cause {
    let why = "some validation rules were not checked because the object was invalid; correct the \
               existing errors to complete validation";
    Cause::invalid(WHOLE, &Value::Null, why)
}

struct Causes(Vec<Cause>);

impl Causes {
    fn push(&mut self, cause: Cause) {
        if self.0.len() < CAUSES_MAX {
            self.0.push(cause);
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= CAUSES_MAX
    }
}

fn check(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Causes) {
    if causes.is_full() || (value.is_null() && schema.nullable) || old == Some(value) {
        return;
    }
    if !fits(schema, value) {
        causes.push(wrong_type(schema, value, path));
        // Upstream says the same once more where a schema spells out both types.
        if let Some(checks) = schema.checks.as_ref().filter(|_| schema.int_or_string) {
            combined(checks, value, old, path, causes);
        }
        return;
    }
    if let Some(checks) = &schema.checks {
        self_checks(checks, value, old, path, causes);
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let is_meta = name == "metadata" && (path.is_empty() || schema.embedded);
                if let Some(below) = schema
                    .field(name)
                    .filter(|_| !is_meta || below_meta(schema))
                {
                    let old = old.and_then(|old| old.get(name));
                    check(below, value, old, &join(path, name), causes);
                }
            }
            if schema.embedded {
                for name in ["apiVersion", "kind"] {
                    if map
                        .get(name)
                        .and_then(Value::as_str)
                        .is_none_or(str::is_empty)
                    {
                        causes.push(Cause::required(join(path, name), ""));
                    }
                }
                embedded(map, path, causes);
            }
        }
        Value::Array(items) => {
            if let Some(below) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    let old = old_item(schema, item, old);
                    check(below, item, old, &format!("{path}[{index}]"), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an object inside of another says of its type has to be sound.
fn embedded(map: &serde_json::Map<String, Value>, path: &str, causes: &mut Causes) {
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    if version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {version}");
        let at = join(path, "apiVersion");
        causes.push(Cause::invalid(at, &Value::from(version), &why));
    }
    let kind = text("kind");
    if let Some(why) = names::label_1035_fault(&kind.to_lowercase()).filter(|_| !kind.is_empty()) {
        let why = format!("may have mixed case, but should otherwise match: {why}");
        let at = join(path, "kind");
        causes.push(Cause::invalid(at, &Value::from(kind), &why));
    }
}

/// A schema may restrict the name in the metadata.
fn below_meta(schema: &Schema) -> bool {
    let meta = schema.properties.get("metadata");
    meta.is_some_and(|meta| !meta.properties.is_empty())
}

fn fits(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_integer(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
        Some(Type::Null) => value.is_null(),
    }
}

fn is_integer(value: &Value) -> bool {
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    value.is_i64() || value.is_u64() || whole
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(schema: &Schema, value: &Value, path: &str) -> Cause {
    let wanted = if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.map_or("object", Type::as_str)
    };
    let found = type_name(value);
    let why = format!("{path} in body must be of type {wanted}: {found:?}");
    Cause::type_invalid(whole(path), &Value::from(found), &why)
}

fn whole(path: &str) -> &str {
    if path.is_empty() { WHOLE } else { path }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn self_checks(
    checks: &Checks,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    causes: &mut Causes,
) {
    let field = whole(path);
    if !checks.allowed.is_empty() && !checks.allowed.iter().any(|one| is_equal(one, value)) {
        let texts = checks.allowed.iter().map(|one| match one {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let texts: Vec<_> = texts.collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        causes.push(Cause::not_supported(field, value, &texts));
    }
    match value {
        Value::String(text) => of_string(checks, text, path, causes),
        Value::Number(_) => of_number(checks, value, path, causes),
        Value::Array(items) => {
            let count = items.len() as u64;
            if let Some(max) = checks.items_max.filter(|max| count > *max) {
                causes.push(Cause::too_many(field, count, max));
            }
            if let Some(min) = checks.items_min.filter(|min| count < *min) {
                let why = format!("{path} in body should have at least {min} items");
                causes.push(Cause::invalid(field, &Value::from(count), &why));
            }
        }
        Value::Object(map) => {
            let count = map.len() as u64;
            if let Some(max) = checks.properties_max.filter(|max| count > *max) {
                causes.push(Cause::too_many(field, count, max));
            }
            if let Some(min) = checks.properties_min.filter(|min| count < *min) {
                let why = format!("{path} in body should have at least {min} properties");
                causes.push(Cause::invalid(field, &Value::from(count), &why));
            }
            for name in checks
                .required
                .iter()
                .filter(|name| !map.contains_key(*name))
            {
                causes.push(Cause::required(join(path, name), ""));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    combined(checks, value, old, path, causes);
}

fn of_string(checks: &Checks, text: &str, path: &str, causes: &mut Causes) {
    let field = whole(path);
    let value = || Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(max) = checks.length_max.filter(|max| length > *max) {
        causes.push(Cause::too_long(
            field,
            usize::try_from(max).unwrap_or(usize::MAX),
        ));
        return;
    }
    if let Some(min) = checks.length_min.filter(|min| length < *min) {
        let why = format!("{path} in body should be at least {min} chars long");
        return causes.push(Cause::invalid(field, &value(), &why));
    }
    if let Some(pattern) = &checks.pattern
        && !pattern
            .regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    {
        let why = format!("{path} in body should match '{}'", pattern.text);
        causes.push(Cause::invalid(field, &value(), &why));
    }
    if let Some(format) = checks
        .format
        .as_deref()
        .filter(|format| !format::fits(format, text))
    {
        let why = format!("{path} in body must be of type {format}: {text:?}");
        causes.push(Cause::type_invalid(field, &value(), &why));
    }
}

fn of_number(checks: &Checks, value: &Value, path: &str, causes: &mut Causes) {
    let field = whole(path);
    let number = value.as_f64().unwrap_or_default();
    let invalid = |causes: &mut Causes, why: String| {
        causes.push(Cause::invalid(field, value, &why));
    };
    if let Some(max) = checks.maximum {
        match checks.exclusive_maximum {
            true if number >= max => {
                invalid(causes, format!("{path} in body should be less than {max}"));
            }
            false if number > max => {
                invalid(
                    causes,
                    format!("{path} in body should be less than or equal to {max}"),
                );
            }
            true | false => {}
        }
    }
    if let Some(min) = checks.minimum {
        match checks.exclusive_minimum {
            true if number <= min => {
                invalid(
                    causes,
                    format!("{path} in body should be greater than {min}"),
                );
            }
            false if number < min => {
                invalid(
                    causes,
                    format!("{path} in body should be greater than or equal to {min}"),
                );
            }
            true | false => {}
        }
    }
    if let Some(factor) = checks.multiple_of.filter(|factor| *factor > 0.0) {
        let times = number / factor;
        if times.fract() != 0.0 {
            invalid(
                causes,
                format!("{path} in body should be a multiple of {factor}"),
            );
        }
    }
    let is_whole = value.is_i64() || value.is_u64();
    let fits = match checks.format.as_deref() {
        Some("int32") => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        Some("int64") => value.is_i64() || !is_whole,
        Some(_) | None => true,
    };
    if !fits {
        let format = checks.format.as_deref().unwrap_or_default();
        let why = format!("Checked value must be of type integer with format {format} in {path}");
        causes.push(Cause::invalid(WHOLE, &Value::from(""), &why));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(checks: &Checks, value: &Value, old: Option<&Value>, path: &str, causes: &mut Causes) {
    let name = if path.is_empty() { "" } else { path };
    let failures = |schema: &Schema| {
        let mut inner = Causes(Vec::new());
        check(schema, value, old, path, &mut inner);
        inner.0
    };
    let mut fault = |why: String| {
        causes.push(Cause::invalid(WHOLE, &Value::from(""), &why));
    };
    let mut more = Vec::new();
    let mut is_all_broken = false;
    if !checks.any_of.is_empty() {
        let all: Vec<_> = checks.any_of.iter().map(failures).collect();
        if !all.iter().any(Vec::is_empty) {
            fault(format!(
                "{name:?} must validate at least one schema (anyOf)"
            ));
            more.extend(all.into_iter().min_by_key(Vec::len));
        }
    }
    if !checks.one_of.is_empty() {
        let all: Vec<_> = checks.one_of.iter().map(failures).collect();
        match all.iter().filter(|failures| failures.is_empty()).count() {
            1 => {}
            0 => {
                fault(format!(
                    "{name:?} must validate one and only one schema (oneOf). Found none valid"
                ));
                more.extend(all.into_iter().min_by_key(Vec::len));
            }
            count => fault(format!(
                "{name:?} must validate one and only one schema (oneOf). Found {count} valid \
                 alternatives"
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let all: Vec<_> = checks.all_of.iter().map(failures).collect();
        if all.iter().any(|failures| !failures.is_empty()) {
            is_all_broken = true;
            more.extend(all);
        }
    }
    if let Some(not) = &checks.not
        && failures(not).is_empty()
    {
        fault(format!("{name:?} must not validate the schema (not)"));
    }
    more.into_iter()
        .flatten()
        .for_each(|cause| causes.push(cause));
    if is_all_broken {
        let why = format!("{name:?} must validate all the schemas (allOf)");
        causes.push(Cause::invalid(WHOLE, &Value::from(""), &why));
    }
}

/// JSON's equality: 1 is 1.0.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(_), Value::Number(_)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// Sets have no value twice, maps no key.
fn unique(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Causes) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(below) = schema.field(name) {
                    let old = old.and_then(|old| old.get(name));
                    unique(below, value, old, &join(path, name), causes);
                }
            }
        }
        Value::Array(items) => {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let at = format!("{path}[{index}]");
                let key = match &schema.list {
                    ListType::Map(_) if !item.is_object() => None,
                    ListType::Atomic => None,
                    ListType::Set => Some(item.clone()),
                    ListType::Map(keys) => Some(keys_of(schema, item, keys)),
                };
                if let Some(key) = key
                    && !seen.insert(key.to_string())
                {
                    causes.push(Cause::duplicate(&at, &key));
                }
                if let Some(below) = &schema.items {
                    let old = old_item(schema, item, old);
                    unique(below, item, old, &at, causes);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The keys of an item of a list map, defaults included.
fn keys_of(schema: &Schema, item: &Value, keys: &[String]) -> Value {
    let mut found = serde_json::Map::new();
    for key in keys {
        let default = || {
            let items = schema.items.as_ref()?;
            items.properties.get(key.as_str())?.default.clone()
        };
        if let Some(value) = item.get(key).cloned().or_else(default) {
            found.insert(key.clone(), value);
        }
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(schema: Value, object: Value) -> Vec<String> {
        let causes = validate(&Schema::parse(&schema), &object, None);
        let texts = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message));
        texts.collect()
    }

    #[test]
    fn faults_are_told_as_upstream_tells_them() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {
            "spec": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 3, "pattern": "^a"},
                "size": {"type": "integer", "minimum": 1, "maximum": 5},
                "mode": {"type": "string", "enum": ["on", "off"]},
                "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
                "when": {"type": "string", "format": "date-time"},
                "port": {"x-kubernetes-int-or-string": true},
            }},
        }});
        assert_eq!(texts(schema.clone(), json!({})), ["spec: Required value"]);
        let spec = json!({"name": "bbbb", "size": 9, "mode": "x", "list": ["a", "b"],
            "when": "now", "port": true});
        assert_eq!(
            texts(schema.clone(), json!({"spec": spec})),
            [
                "spec.list: Too many: 2: must have at most 1 items",
                "spec.mode: Unsupported value: \"x\": supported values: \"on\", \"off\"",
                "spec.name: Too long: may not be more than 3 bytes",
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type \
                 integer,string: \"boolean\"",
                "spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5",
                "spec.when: Invalid value: \"now\": spec.when in body must be of type date-time: \
                 \"now\"",
            ]
        );
        let spec = json!({"name": 1, "size": 2.0});
        assert_eq!(
            texts(schema, json!({"spec": spec})),
            [
                "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \
              \"integer\""
            ]
        );
    }

    #[test]
    fn alternatives_and_keys_are_checked() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"},
                "set": {"type": "array", "x-kubernetes-list-type": "set",
                    "items": {"type": "integer"}},
                "map": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
                        "properties": {"name": {"type": "string"}}}}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        assert_eq!(
            texts(schema.clone(), json!({"spec": {}})),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema \
                 (oneOf). Found none valid",
                "spec.a: Required value",
            ]
        );
        assert!(
            texts(schema.clone(), json!({"spec": {"a": "1", "b": "2"}}))[0]
                .ends_with("Found 2 valid alternatives")
        );
        let spec = json!({"a": "", "set": [1, 2, 1], "map": [{"name": "x"}, {"name": "x"}]});
        assert_eq!(
            texts(schema, json!({"spec": spec})),
            [
                "spec.map[1]: Duplicate value: {\"name\":\"x\"}",
                "spec.set[2]: Duplicate value: 1",
            ]
        );
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "integer"},
            "list": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
                    "properties": {"name": {"type": "string"},
                        "size": {"type": "integer", "maximum": 1}}}}}}));
        let old = json!({"a": "long", "list": [{"name": "x", "size": 5}]});
        let mut new =
            json!({"a": "long", "b": 1, "list": [{"name": "y"}, {"name": "x", "size": 5}]});
        assert_eq!(validate(&schema, &new, Some(&old)), []);
        new["a"] = "longer".into();
        assert_eq!(validate(&schema, &new, Some(&old)).len(), 1);
    }
}
