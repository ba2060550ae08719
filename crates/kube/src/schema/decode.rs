//! Strict decoding: a JSON body becomes an object that has only what its type has.
//!
//! Nulls disappear, as they do when Go reads a body; unknown fields are taken out and told, and
//! the caller decides whether that is an error, a warning or nothing; a wrong type is an error.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::table::{Kind, Scalar, Type};
use super::{SCHEMA_PROPS, type_named};

/// A value that does not fit its field, in the words of the Go decoder that it would have met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("json: cannot unmarshal {found} into Go value of type {expected}")]
    Body {
        found: &'static str,
        expected: String,
    },
    #[error(
        "json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}"
    )]
    Field {
        found: String,
        /// The innermost type, and the path from the body's.
        owner: &'static str,
        path: String,
        expected: String,
    },
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Quantity,
    #[error("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")]
    Time { text: String, layout: &'static str },
    #[error("illegal base64 data at input byte {at}")]
    Base64 { at: usize },
}

/// Prunes `value` to `schema` and returns the paths of the unknown fields.
pub fn decode(schema: &'static Type, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut decoder = Decoder {
        owner: schema,
        fields: Vec::new(),
        unknown: Vec::new(),
    };
    match value {
        Value::Object(map) => decoder.message(schema, map, "")?,
        other => {
            return Err(TypeError::Body {
                found: name_of(other),
                expected: schema.go_name(),
            });
        }
    }
    Ok(decoder.unknown)
}

/// Lists that Go writes even where they are empty.
const KEPT_EMPTY: [(&str, &str); 5] = [
    ("io.k8s.api.rbac.v1.ClusterRole", "rules"),
    ("io.k8s.api.rbac.v1.Role", "rules"),
    ("io.k8s.api.discovery.v1.EndpointSlice", "endpoints"),
    ("io.k8s.api.discovery.v1.EndpointSlice", "ports"),
    ("io.k8s.api.storage.v1.CSINodeDriver", "topologyKeys"),
];

/// Takes out optional lists and maps that have nothing in them: to Go they are not there.
pub(crate) fn without_empty(schema: &'static Type, value: &mut Value) {
    let Some(map) = value.as_object_mut() else {
        return;
    };
    map.retain(|name, value| {
        let Some(field) = schema.field(name) else {
            return true;
        };
        inner_without_empty(&field.kind, value);
        let is_empty = match (&field.kind, &*value) {
            (Kind::List(_), Value::Array(items)) => items.is_empty(),
            (Kind::Map(_), Value::Object(map)) => map.is_empty(),
            _ => false,
        };
        !is_empty || field.required || KEPT_EMPTY.contains(&(schema.name, field.name))
    });
}

fn inner_without_empty(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Message(schema), value @ Value::Object(_)) => without_empty(schema.get(), value),
        (Kind::List(item), Value::Array(items)) => {
            for value in items {
                inner_without_empty(item, value);
            }
        }
        (Kind::Map(item), Value::Object(map)) => {
            for value in map.values_mut() {
                inner_without_empty(item, value);
            }
        }
        _ => {}
    }
}

struct Decoder {
    owner: &'static Type,
    /// Names of the fields from the body to here: Go tells neither indexes nor keys of maps.
    fields: Vec<&'static str>,
    unknown: Vec<String>,
}

impl Decoder {
    fn message(
        &mut self,
        schema: &'static Type,
        map: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), TypeError> {
        let outer = std::mem::replace(&mut self.owner, schema);
        let mut unknown = Vec::new();
        for (name, value) in map.iter_mut() {
            let Some(field) = schema.field(name) else {
                self.unknown.push(join(path, name));
                unknown.push(name.clone());
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.fields.push(field.name);
            self.value(&field.kind, value, &join(path, name))?;
            self.fields.pop();
        }
        for name in unknown {
            map.remove(&name);
        }
        map.retain(|_, value| !value.is_null());
        self.owner = outer;
        Ok(())
    }

    fn value(&mut self, kind: &Kind, value: &mut Value, path: &str) -> Result<(), TypeError> {
        if value.is_null() {
            return Ok(());
        }
        match (kind, value) {
            (Kind::Scalar(scalar), value) => self.scalar(*scalar, value, path),
            (Kind::Message(schema), Value::Object(map)) => self.message(schema.get(), map, path),
            (Kind::List(item), Value::Array(values)) => {
                for (index, value) in values.iter_mut().enumerate() {
                    self.value(item, value, &format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            (Kind::Map(item), Value::Object(map)) => {
                for (key, value) in map.iter_mut() {
                    // A null value of a map of strings is the empty string to Go.
                    if value.is_null() && **item == Kind::Scalar(Scalar::String) {
                        *value = Value::String(String::new());
                    }
                    self.value(item, value, &join(path, key))?;
                }
                Ok(())
            }
            (Kind::Message(_) | Kind::List(_) | Kind::Map(_), value) => {
                Err(self.wrong(value, go_name(kind)))
            }
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &mut Value, path: &str) -> Result<(), TypeError> {
        let fits = match scalar {
            Scalar::String => value.is_string(),
            Scalar::Bytes => return self.bytes(value),
            Scalar::Time | Scalar::MicroTime => return self.time(scalar, value),
            Scalar::Bool => value.is_boolean(),
            Scalar::Int32 => value
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()),
            Scalar::Int64 => value.is_i64(),
            Scalar::Double => value.is_number(),
            Scalar::IntOrString => value.is_string() || value.is_i64(),
            Scalar::Quantity => {
                if value.is_number() {
                    *value = Value::String(value.to_string());
                }
                let text = value.as_str().and_then(crate::quantity::canonical);
                *value = text.ok_or(TypeError::Quantity)?.into();
                return Ok(());
            }
            Scalar::Raw | Scalar::Fields | Scalar::Json => true,
            Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
                return self.schema_or(scalar, value, path);
            }
        };
        if fits {
            Ok(())
        } else {
            Err(self.wrong(value, scalar_name(scalar).to_owned()))
        }
    }

    /// A schema within a schema. Go reads these by hand, so what is unknown in them is dropped
    /// without a word.
    fn schema_or(&mut self, or: Scalar, value: &mut Value, path: &str) -> Result<(), TypeError> {
        let Some(props) = type_named(SCHEMA_PROPS) else {
            return Ok(());
        };
        let told = self.unknown.len();
        let items = match (or, &mut *value) {
            (_, Value::Object(_)) => std::slice::from_mut(value),
            (Scalar::SchemaOrArray, Value::Array(items)) => items,
            (Scalar::SchemaOrBool, Value::Bool(_)) => return Ok(()),
            (Scalar::SchemaOrStrings, Value::Array(items))
                if items.iter().all(Value::is_string) =>
            {
                return Ok(());
            }
            _ => return Err(self.wrong(value, scalar_name(or).to_owned())),
        };
        for item in items {
            match item {
                Value::Object(map) => self.message(props.get(), map, path)?,
                other => return Err(self.wrong(other, props.get().go_name())),
            }
        }
        self.unknown.truncate(told);
        Ok(())
    }

    fn bytes(&self, value: &mut Value) -> Result<(), TypeError> {
        let Value::String(text) = value else {
            return Err(self.wrong(value, scalar_name(Scalar::Bytes).to_owned()));
        };
        // Go passes over line breaks; what is stored is the plain form.
        if text.contains(['\n', '\r']) {
            text.retain(|c| !matches!(c, '\n' | '\r'));
        }
        match BASE64_STANDARD.decode(&*text) {
            Ok(_) => Ok(()),
            Err(base64::DecodeError::InvalidByte(at, _)) => Err(TypeError::Base64 { at }),
            Err(
                base64::DecodeError::InvalidLength(_)
                | base64::DecodeError::InvalidLastSymbol(..)
                | base64::DecodeError::InvalidPadding,
            ) => Err(TypeError::Base64 {
                at: text.len() / 4 * 4,
            }),
        }
    }

    fn time(&self, scalar: Scalar, value: &mut Value) -> Result<(), TypeError> {
        let Value::String(text) = value else {
            return Err(self.wrong(value, scalar_name(scalar).to_owned()));
        };
        let is_micro = scalar == Scalar::MicroTime;
        let Some(time) = crate::time::parse(text) else {
            let layout = if is_micro {
                "2006-01-02T15:04:05.000000Z07:00"
            } else {
                "2006-01-02T15:04:05Z07:00"
            };
            let text = text.clone();
            return Err(TypeError::Time { text, layout });
        };
        *text = if is_micro {
            crate::time::micros(time)
        } else {
            crate::time::seconds(time)
        };
        Ok(())
    }

    fn wrong(&self, value: &Value, expected: String) -> TypeError {
        let found = match value {
            Value::Number(number) if expected.contains("int") => format!("number {number}"),
            other => name_of(other).to_owned(),
        };
        TypeError::Field {
            found,
            owner: self.owner.short_name(),
            path: self.fields.join("."),
            expected,
        }
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn go_name(kind: &Kind) -> String {
    match kind {
        Kind::Scalar(scalar) => scalar_name(*scalar).to_owned(),
        Kind::Message(schema) => schema.get().go_name(),
        Kind::List(item) => format!("[]{}", go_name(item)),
        Kind::Map(item) => format!("map[string]{}", go_name(item)),
    }
}

fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bytes => "[]uint8",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Quantity => "resource.Quantity",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Raw | Scalar::Fields | Scalar::Json => "object",
        Scalar::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
        Scalar::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
        Scalar::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, mut value: Value) -> (Value, Result<Vec<String>, TypeError>) {
        let unknown = decode(type_named(name).expect("served").get(), &mut value);
        (value, unknown)
    }

    fn pod(value: Value) -> (Value, Result<Vec<String>, TypeError>) {
        read("io.k8s.api.core.v1.Pod", value)
    }

    #[test]
    fn unknown_fields_are_taken_out_and_told_with_their_path() {
        let (value, unknown) = pod(json!({"spec": {"containers": [{"name": "c", "imagee": 1}]}}));
        assert_eq!(unknown.expect("fits"), ["spec.containers[0].imagee"]);
        assert_eq!(value, json!({"spec": {"containers": [{"name": "c"}]}}));
    }

    #[test]
    fn nulls_disappear_and_number_quantities_become_text() {
        let (value, _) = pod(json!({
            "metadata": {"creationTimestamp": null, "labels": {"a": null}},
            "spec": {"overhead": {"cpu": 1}},
        }));
        let expected =
            json!({"metadata": {"labels": {"a": ""}}, "spec": {"overhead": {"cpu": "1"}}});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_wrong_type_is_told_as_go_tells_it() {
        let told = |value| pod(value).1.expect_err("refused").to_string();
        let field = "json: cannot unmarshal string into Go struct field";
        assert_eq!(
            told(json!({"spec": {"containers": [{"tty": "yes"}]}})),
            format!("{field} Container.spec.containers.tty of type bool")
        );
        assert_eq!(
            told(json!({"spec": {"containers": "c"}})),
            format!("{field} PodSpec.spec.containers of type []v1.Container")
        );
        assert_eq!(
            told(json!({"metadata": {"labels": {"a": 1}}})),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type \
             string"
        );
        assert_eq!(
            told(json!({"spec": {"priority": 3_000_000_000_u64}})),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority \
             of type int32"
        );
        assert!(told(json!({"spec": {"overhead": {"cpu": "x"}}})).starts_with("quantities must"));
        assert_eq!(
            told(json!({"status": {"startTime": "now"}})),
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\""
        );
        let secret = read("io.k8s.api.core.v1.Secret", json!({"data": {"a": "%"}}));
        let told = secret.1.expect_err("refused").to_string();
        assert_eq!(told, "illegal base64 data at input byte 0");
    }

    #[test]
    fn schemas_of_custom_resources_nest_and_are_pruned() {
        let schema =
            |props: Value| json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": props}}]}});
        let name =
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
        let props = |inner: Value| {
            json!({"properties": {"a": inner}, "default": {"any": [1, null]},
                "additionalProperties": false, "items": [{"type": "string"}]})
        };
        let (value, unknown) = read(name, schema(props(json!({"items": {"typo": 1}}))));
        assert_eq!(unknown, Ok(vec![]));
        assert_eq!(value, schema(props(json!({"items": {}}))));
        let (_, unknown) = read(name, schema(props(json!({"typo": 1}))));
        let path = "spec.versions[0].schema.openAPIV3Schema.properties.a.typo";
        assert_eq!(unknown, Ok(vec![path.to_owned()]));
        let (_, refused) = read(name, schema(json!({"items": 1})));
        assert!(refused.is_err());
    }
}
