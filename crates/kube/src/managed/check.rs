//! Whether a value that somebody applies is of its type. The texts are upstream's, with their Go.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::element;
use super::schema::{Items, Member, Scalar, Schema, Shape};

/// What is wrong with the value, as one text; nothing if it is of the type.
pub(super) fn check(schema: &dyn Schema, value: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    walk(schema, value, "", &mut wrong);
    match &wrong[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn tell(path: &str, why: &str) -> String {
    if path.is_empty() {
        why.to_owned()
    } else {
        format!("{path}: {why}")
    }
}

fn walk(schema: &dyn Schema, value: &Value, path: &str, wrong: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    match (schema.shape(), value) {
        (Shape::Any, _) => {}
        (Shape::Scalar(scalar), value) => {
            if let Some(why) = check_scalar(scalar, value) {
                wrong.push(tell(path, &why));
            }
        }
        (Shape::Map | Shape::AtomicMap, Value::Object(map)) => check_map(schema, map, path, wrong),
        (Shape::AtomicList, Value::Array(list)) => {
            for (place, item) in list.iter().enumerate() {
                walk(
                    schema.item(),
                    item,
                    &under(path, &element::index(place)),
                    wrong,
                );
            }
        }
        (Shape::Set, Value::Array(list)) => {
            check_list(Items::Values, schema.item(), list, path, wrong);
        }
        (Shape::Keyed(keys), Value::Array(list)) => {
            check_list(Items::Keys(keys), schema.item(), list, path, wrong);
        }
        (Shape::Map | Shape::AtomicMap, value) => {
            let why = format!("expected map, got &{{{}}}", plain(value));
            wrong.push(tell(path, &why));
        }
        (Shape::AtomicList | Shape::Set | Shape::Keyed(_), value) => {
            let why = format!("expected list, got &{{{}}}", plain(value));
            wrong.push(tell(path, &why));
        }
    }
}

fn under(path: &str, element: &str) -> String {
    let mut path = path.to_owned();
    element::show(element, &mut path);
    path
}

fn check_map(schema: &dyn Schema, map: &Map<String, Value>, path: &str, wrong: &mut Vec<String>) {
    for (name, value) in map {
        let path = under(path, &element::field(name));
        match schema.member(name) {
            Member::Declared(schema) | Member::Entry(schema) => walk(schema, value, &path, wrong),
            Member::Unknown => {
                wrong.push(tell(&path, "field not declared in schema"));
                return;
            }
        }
    }
}

fn check_list(
    items: Items<'_>,
    schema: &dyn Schema,
    list: &[Value],
    path: &str,
    wrong: &mut Vec<String>,
) {
    let mut seen = HashSet::new();
    for (place, item) in list.iter().enumerate() {
        let element = match element::of_item(items, schema, item) {
            Ok(element) => element,
            Err(why) => {
                wrong.push(tell(path, &format!("element {place}: {}", why.0)));
                return;
            }
        };
        let below = under(path, &element);
        if !seen.insert(element) {
            let key = below.get(path.len()..).unwrap_or_default();
            let why = format!("duplicate entries for key {key}");
            wrong.push(tell(path, &why));
        }
        walk(schema, item, &below, wrong);
    }
}

fn check_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let is_scalar = !value.is_array() && !value.is_object();
    match scalar {
        Scalar::String if value.is_string() => None,
        Scalar::Number if value.is_number() => None,
        Scalar::Bool if value.is_boolean() => None,
        Scalar::Any if is_scalar => None,
        Scalar::String => Some(format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            syntax(value)
        )),
        Scalar::Number => {
            let got = type_of(value);
            Some(format!("expected numeric (int or float), got {got}"))
        }
        Scalar::Bool => Some(format!("expected boolean, got &{{{}}}", plain(value))),
        Scalar::Any => Some(format!("expected any scalar, got &{{{}}}", plain(value))),
    }
}

/// Go's `%T`.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let members = map
                .iter()
                .map(|(name, value)| format!("{name}:{}", plain(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Go's `%#v`.
fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let members = map
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", syntax(value)));
            let members: Vec<_> = members.collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::type_named;

    fn wrong(pod: &Value) -> String {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served").get();
        check(schema, pod).expect_err("is wrong")
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path_in_upstreams_words() {
        let container = |field: &str, value: Value| {
            let mut container = json!({"name": "c"});
            container[field] = value;
            json!({"spec": {"containers": [container]}})
        };
        let at = ".spec.containers[name=\"c\"]";
        for (pod, expected) in [
            (
                container("imagee", json!("x")),
                format!("{at}.imagee: field not declared in schema"),
            ),
            (
                container("image", json!(8080)),
                format!("{at}.image: expected string, got &value.valueUnstructured{{Value:8080}}"),
            ),
            (
                container("args", json!("x")),
                format!("{at}.args: expected list, got &{{x}}"),
            ),
            (
                container("stdin", json!("y")),
                format!("{at}.stdin: expected boolean, got &{{y}}"),
            ),
            (
                json!({"spec": {"priority": "1"}}),
                ".spec.priority: expected numeric (int or float), got string".to_owned(),
            ),
            (
                json!({"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}),
                ".spec.containers: duplicate entries for key [name=\"c\"]".to_owned(),
            ),
        ] {
            assert_eq!(wrong(&pod), expected);
        }
        let two = wrong(&json!({"metadata": {"nam": 1}, "spec": {"x": 1}}));
        assert_eq!(
            two,
            "errors:\n  .metadata.nam: field not declared in schema\n  \
             .spec.x: field not declared in schema"
        );
    }
}
