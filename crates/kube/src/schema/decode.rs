//! Strict decoding: a JSON body becomes an object that has only what its type has.
//!
//! Nulls disappear, as they do when Go reads a body; unknown fields are taken out and told, and
//! the caller decides whether that is an error, a warning or nothing; a wrong type is an error.

use serde_json::{Map, Value};

use super::table::{Kind, Scalar, Type};

/// A value that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}")]
pub struct TypeError {
    found: &'static str,
    /// The type of the whole body.
    owner: &'static str,
    path: String,
    expected: String,
}

/// Prunes `value` to `schema` and returns the paths of the unknown fields.
pub fn decode(schema: &'static Type, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut decoder = Decoder {
        owner: schema.short_name(),
        unknown: Vec::new(),
    };
    match value {
        Value::Object(map) => decoder.message(schema, map, "")?,
        other => return Err(decoder.wrong(other, "", schema.short_name())),
    }
    Ok(decoder.unknown)
}

struct Decoder {
    owner: &'static str,
    unknown: Vec<String>,
}

impl Decoder {
    fn message(
        &mut self,
        schema: &'static Type,
        map: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), TypeError> {
        let mut unknown = Vec::new();
        for (name, value) in map.iter_mut() {
            let Some(field) = schema.field(name) else {
                unknown.push(name.clone());
                continue;
            };
            self.value(&field.kind, value, &join(path, name))?;
        }
        for name in unknown {
            map.remove(&name);
            self.unknown.push(join(path, &name));
        }
        map.retain(|_, value| !value.is_null());
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
            (Kind::Message(schema), value) => {
                Err(self.wrong(value, path, schema.get().short_name()))
            }
            (Kind::List(item), value) => {
                Err(self.wrong(value, path, &format!("[]{}", go_name(item))))
            }
            (Kind::Map(item), value) => {
                Err(self.wrong(value, path, &format!("map[string]{}", go_name(item))))
            }
        }
    }

    fn scalar(&self, scalar: Scalar, value: &mut Value, path: &str) -> Result<(), TypeError> {
        let fits = match scalar {
            Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => value.is_string(),
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
                value.is_string()
            }
            Scalar::Raw | Scalar::Fields => true,
        };
        if fits {
            Ok(())
        } else {
            Err(self.wrong(value, path, scalar_name(scalar)))
        }
    }

    fn wrong(&self, value: &Value, path: &str, expected: &str) -> TypeError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        // Go leaves the indexes out here.
        let path = path
            .split('[')
            .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
        let path = path.collect();
        TypeError {
            found,
            owner: self.owner,
            path,
            expected: expected.to_owned(),
        }
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
        Kind::Message(schema) => schema.get().short_name().to_owned(),
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
        Scalar::Raw | Scalar::Fields => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::type_named;

    fn pod(mut value: Value) -> (Value, Result<Vec<String>, TypeError>) {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served").get();
        let unknown = decode(schema, &mut value);
        (value, unknown)
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
        let (_, result) = pod(json!({"spec": {"containers": [{"tty": "yes"}]}}));
        assert_eq!(
            result.expect_err("refused").to_string(),
            "json: cannot unmarshal string into Go struct field Pod.spec.containers.tty of type bool"
        );
    }
}
