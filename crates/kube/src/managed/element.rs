//! Elements of paths, in the text that `FieldsV1` has for them: `f:name` for a member of a map,
//! `k:{"name":"web"}` for an item of a keyed list, `v:"x"` for an item of a set, `i:0` for a place.
//!
//! The text is canonical (keys in order, numbers in their shortest form), so elements are compared
//! as text, and a set of fields is a tree of it.

use serde_json::{Map, Number, Value};

use super::schema::{Items, Schema};

/// Why an item of a list has no element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoElement(pub(super) String);

pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

pub(super) fn index(place: usize) -> String {
    format!("i:{place}")
}

/// The element of an item; `schema` is that of the items.
pub(super) fn of_item(
    items: Items<'_>,
    schema: &dyn Schema,
    item: &Value,
) -> Result<String, NoElement> {
    let refuse = |why: &str| Err(NoElement(why.to_owned()));
    match (items, item) {
        (Items::Values, Value::Object(_)) => {
            refuse("associative list without keys has an element that's a map type")
        }
        (Items::Values, Value::Array(_)) => {
            refuse("not supported: associative list with lists as elements")
        }
        (Items::Values, Value::Null) => {
            refuse("associative list without keys has an element that's an explicit null")
        }
        (Items::Values, scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
            Ok(format!("v:{}", canonical(scalar)))
        }
        (Items::Keys(keys), Value::Object(item)) => of_keys(keys, schema, item),
        (Items::Keys(_), Value::Null) => {
            refuse("associative list with keys may not have a null element")
        }
        (
            Items::Keys(_),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        ) => refuse("associative list with keys may not have non-map elements"),
    }
}

fn of_keys(
    keys: &str,
    schema: &dyn Schema,
    item: &Map<String, Value>,
) -> Result<String, NoElement> {
    // Most lists have one key, and it is a text.
    if let Some(Value::String(text)) = item.get(keys) {
        return Ok(format!("k:{{{:?}:{}}}", Text(keys), quoted(text)));
    }
    let mut found = Map::new();
    for key in keys.split(',') {
        let given = item.get(key).map(canonical_value);
        if let Some(value) = given.or_else(|| schema.default_of(key)) {
            found.insert(key.to_owned(), value);
        }
    }
    if found.is_empty() {
        let keys: Vec<_> = keys.split(',').map(|key| format!("{key:?}")).collect();
        return Err(NoElement(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't \
             have default values for any key fields)",
            keys.join(" ")
        )));
    }
    Ok(format!("k:{}", Value::Object(found)))
}

/// A name of a field in quotes: such names have nothing that needs an escape.
struct Text<'a>(&'a str);

impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", quoted(self.0))
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn canonical(value: &Value) -> String {
    canonical_value(value).to_string()
}

/// 80.0 is 80.
fn canonical_value(value: &Value) -> Value {
    let Some(number) = value.as_number().filter(|number| number.is_f64()) else {
        return value.clone();
    };
    let float = number.as_f64().unwrap_or_default();
    // Below 2^53 every whole number is one of its own.
    let is_whole = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
    match format!("{float:.0}").parse::<i64>() {
        Ok(whole) if is_whole => Value::Number(Number::from(whole)),
        Ok(_) | Err(_) => value.clone(),
    }
}

/// What a client wrote as an element, in canonical text; `None` for one of a kind that we do not
/// know, which upstream drops too.
pub(super) fn parse(text: &str) -> Result<Option<String>, NoElement> {
    let wrong = |why: String| NoElement(format!("cannot read the path element {text:?}: {why}"));
    let (Some(kind), Some(rest)) = (text.get(..2), text.get(2..)) else {
        return Err(wrong("it has no kind".into()));
    };
    let json = || serde_json::from_str::<Value>(rest).map_err(|error| wrong(error.to_string()));
    match kind {
        "f:" => Ok(Some(text.to_owned())),
        "v:" => Ok(Some(format!("v:{}", canonical(&json()?)))),
        "k:" => match json()? {
            Value::Object(keys) => {
                let keys: Map<_, _> = keys
                    .iter()
                    .map(|(key, value)| (key.clone(), canonical_value(value)))
                    .collect();
                Ok(Some(format!("k:{}", Value::Object(keys))))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(wrong("its keys are not a map".into())),
        },
        "i:" => match rest.parse::<i64>() {
            Ok(place) => Ok(Some(format!("i:{place}"))),
            Err(error) => Err(wrong(error.to_string())),
        },
        kind if kind.ends_with(':') => Ok(None),
        _ => Err(wrong("it has no kind".into())),
    }
}

/// As paths are shown to people: `.spec.containers[name="web"].ports[containerPort=80]`.
pub(super) fn show(element: &str, into: &mut String) {
    let rest = element.get(2..).unwrap_or_default();
    if element.starts_with("f:") {
        into.push('.');
        into.push_str(rest);
        return;
    }
    into.push('[');
    if element.starts_with("k:") {
        if let Ok(Value::Object(keys)) = serde_json::from_str(rest) {
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            into.push_str(&keys.join(","));
        }
    } else {
        if element.starts_with("v:") {
            into.push('=');
        }
        into.push_str(rest);
    }
    into.push(']');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::ANY;
    use super::*;

    #[test]
    fn one_item_has_one_text_however_its_numbers_are_written() {
        let keys = Items::Keys("containerPort,protocol");
        let port = json!({"protocol": "UDP", "containerPort": 80.0, "name": "x"});
        let text = of_item(keys, &ANY, &port).expect("has keys");
        assert_eq!(text, r#"k:{"containerPort":80,"protocol":"UDP"}"#);
        let given = r#"k:{ "protocol":"UDP", "containerPort": 80.0 }"#;
        assert_eq!(parse(given), Ok(Some(text)));
        let named = of_item(Items::Keys("name"), &ANY, &json!({"name": "a\"b"}));
        assert_eq!(named, Ok(r#"k:{"name":"a\"b"}"#.to_owned()));
    }

    #[test]
    fn an_item_without_any_key_is_refused_in_upstreams_words() {
        let refusal = of_item(Items::Keys("name"), &ANY, &json!({})).expect_err("no key");
        assert!(refusal.0.contains("omits all key fields [\"name\"]"));
    }

    #[test]
    fn elements_of_unknown_kinds_are_dropped_and_nonsense_is_an_error() {
        assert_eq!(parse("z:later"), Ok(None));
        for nonsense in ["", "f", "name", "k:[]", "k:", "v:", "i:x", "é:"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn paths_are_shown_as_upstream_shows_them() {
        let mut shown = String::new();
        for element in ["f:spec", r#"k:{"a":1,"b":"x"}"#, r#"v:"y""#, "i:3"] {
            show(element, &mut shown);
        }
        assert_eq!(shown, r#".spec[a=1,b="x"][="y"][3]"#);
    }
}
