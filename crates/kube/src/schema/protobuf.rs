//! Protobuf request bodies become JSON objects, by the tags of the schema table.
//!
//! kubectl from 1.32 on and typed Go clients send protobuf for built-in kinds and do not fall back.
//! Answers are always JSON, which all of them read. A tag that the table does not know is an error:
//! dropping it would lose data that the client believes is stored.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::table::{Field, Kind, Scalar, Type};
use super::{SCHEMA_PROPS, type_named};

/// The first bytes of every body.
pub const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any type of the table but the schemas of custom resources, which nest freely.
const DEPTH_MAX: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    NoMagic,
    #[error("the protobuf message is cut short or malformed in {message}")]
    Malformed { message: &'static str },
    #[error("field {tag} of {message} is not known to this server")]
    UnknownTag { message: &'static str, tag: u32 },
    #[error("the protobuf message is nested too deeply")]
    TooDeep,
}

/// Decodes an enveloped body of type `schema`; `apiVersion` and `kind` are the envelope's.
pub fn decode(schema: &'static Type, body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let mut object = Map::new();
    let mut reader = Reader {
        rest: envelope,
        message: "Unknown",
    };
    while let Some((tag, wire)) = reader.next()? {
        match (tag, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader {
                    rest: meta,
                    message: "TypeMeta",
                };
                while let Some((tag, wire)) = meta.next()? {
                    let field = if tag == 1 { "apiVersion" } else { "kind" };
                    object.insert(field.into(), meta.text(&wire)?.into());
                }
            }
            (2, Wire::Bytes(raw)) => {
                for (name, value) in message(schema, raw, DEPTH_MAX)? {
                    object.insert(name, value);
                }
            }
            // Content encoding and type: empty, or what we assume.
            _ => {}
        }
    }
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32,
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    fn malformed(&self) -> ProtobufError {
        ProtobufError::Malformed {
            message: self.message,
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.malformed())
    }

    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| self.malformed())?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.take(8)?.try_into().map_err(|_| self.malformed())?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| self.malformed())?;
                Wire::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            _ => return Err(self.malformed()),
        };
        Ok(Some((tag, wire)))
    }

    fn bytes(&self, wire: &Wire<'a>) -> Result<&'a [u8], ProtobufError> {
        match wire {
            Wire::Bytes(bytes) => Ok(bytes),
            Wire::Varint(_) | Wire::Fixed64(_) | Wire::Fixed32 => Err(self.malformed()),
        }
    }

    fn text(&self, wire: &Wire<'a>) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes(wire)?).map_err(|_| self.malformed())
    }

    fn integer(&self, wire: &Wire<'a>) -> Result<i64, ProtobufError> {
        match wire {
            // Negative numbers travel as their two's complement.
            Wire::Varint(number) => Ok(number.cast_signed()),
            Wire::Bytes(_) | Wire::Fixed64(_) | Wire::Fixed32 => Err(self.malformed()),
        }
    }
}

fn message(
    schema: &'static Type,
    bytes: &[u8],
    depth: u32,
) -> Result<Map<String, Value>, ProtobufError> {
    let mut map = Map::new();
    fields(schema, &[], bytes, depth, &mut map)?;
    Ok(map)
}

/// Reads the fields whose tag path begins with `embedded`, into the map of the embedding message.
fn fields(
    schema: &'static Type,
    embedded: &[u32],
    bytes: &[u8],
    depth: u32,
    map: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    let name = schema.short_name();
    let mut reader = Reader {
        rest: bytes,
        message: name,
    };
    while let Some((tag, wire)) = reader.next()? {
        let mut path = embedded.to_vec();
        path.push(tag);
        if let Some(field) = schema.fields.iter().find(|field| field.tags == path) {
            let value = value(&field.kind, &wire, &reader, depth)?;
            put(map, field, value);
        } else if schema
            .fields
            .iter()
            .any(|field| field.tags.starts_with(&path))
        {
            fields(schema, &path, reader.bytes(&wire)?, depth, map)?;
        } else {
            return Err(ProtobufError::UnknownTag { message: name, tag });
        }
    }
    Ok(())
}

fn put(map: &mut Map<String, Value>, field: &Field, value: Value) {
    let name = field.name;
    match &field.kind {
        Kind::List(_) => {
            let list = map.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(value);
            }
        }
        Kind::Map(_) => {
            let present = map.entry(name).or_insert_with(|| json!({}));
            if let (Some(present), Value::Object(entry)) = (present.as_object_mut(), value) {
                present.extend(entry);
            }
        }
        Kind::Scalar(_) | Kind::Message(_) => {
            // Go writes fields that are not pointers even when they are zero.
            let is_zero = value == "" || value == 0 || value == false;
            if !value.is_null() && (field.required || field.keeps_zero || !is_zero) {
                map.insert(name.to_owned(), value);
            }
        }
    }
}

fn value(
    kind: &Kind,
    wire: &Wire<'_>,
    reader: &Reader<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    match kind {
        Kind::Scalar(scalar_kind) => scalar(*scalar_kind, wire, reader, depth),
        Kind::Message(schema) => {
            message(schema.get(), reader.bytes(wire)?, depth).map(Value::Object)
        }
        Kind::List(item) => value(item, wire, reader, depth),
        Kind::Map(item) => {
            let mut entry = Reader {
                rest: reader.bytes(wire)?,
                message: reader.message,
            };
            let (mut key, mut found) = (String::new(), None);
            while let Some((tag, wire)) = entry.next()? {
                match tag {
                    1 => key = entry.text(&wire)?.to_owned(),
                    _ => found = Some(map_value(item, &wire, &entry, depth)?),
                }
            }
            // Go leaves an empty value out.
            let empty = || match **item {
                Kind::Map(_) | Kind::Message(_) => json!({}),
                Kind::List(_) => json!([]),
                Kind::Scalar(_) => json!(""),
            };
            Ok(json!({ key: found.unwrap_or_else(empty) }))
        }
    }
}

/// A list in a map is a message of its own, with the items as field 1.
fn map_value(
    item: &Kind,
    wire: &Wire<'_>,
    reader: &Reader<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    let Kind::List(inner) = item else {
        return value(item, wire, reader, depth);
    };
    let mut list = Reader {
        rest: reader.bytes(wire)?,
        message: reader.message,
    };
    let mut items = Vec::new();
    while let Some((_, wire)) = list.next()? {
        items.push(value(inner, &wire, &list, depth)?);
    }
    Ok(items.into())
}

fn scalar(
    kind: Scalar,
    wire: &Wire<'_>,
    reader: &Reader<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Scalar::String => json!(reader.text(wire)?),
        Scalar::Bytes => json!(BASE64_STANDARD.encode(reader.bytes(wire)?)),
        Scalar::Bool => json!(reader.integer(wire)? != 0),
        Scalar::Int32 | Scalar::Int64 => json!(reader.integer(wire)?),
        Scalar::Double => match wire {
            Wire::Fixed64(bytes) => number(f64::from_le_bytes(*bytes)),
            Wire::Varint(_) | Wire::Bytes(_) | Wire::Fixed32 => return Err(reader.malformed()),
        },
        Scalar::IntOrString => {
            let parts = parts(reader.bytes(wire)?, reader.message)?;
            // Field 1 tells which: 0 is the number of field 2, 1 the text of field 3.
            let is_text = parts.number(1) == 1;
            if is_text {
                json!(parts.text)
            } else {
                json!(parts.number(2))
            }
        }
        Scalar::Quantity => json!(parts(reader.bytes(wire)?, reader.message)?.text),
        Scalar::Time | Scalar::MicroTime => {
            let bytes = reader.bytes(wire)?;
            // A time that was never set.
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            let parts = parts(bytes, reader.message)?;
            let nanos = i32::try_from(parts.number(2)).map_err(|_| reader.malformed())?;
            let time = jiff::Timestamp::new(parts.number(1), nanos);
            let time = time.map_err(|_| reader.malformed())?;
            let is_micro = kind == Scalar::MicroTime;
            json!(if is_micro {
                crate::time::micros(time)
            } else {
                crate::time::seconds(time)
            })
        }
        Scalar::Raw | Scalar::Fields | Scalar::Json => {
            let parts = parts(reader.bytes(wire)?, reader.message)?;
            // Nothing in it is what Go calls null.
            if parts.text.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&parts.text).map_err(|_| reader.malformed())?
        }
        Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
            schema_or(kind, wire, reader, depth)?
        }
    })
}

/// Go writes a whole number without a fraction.
fn number(float: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if float.fract() == 0.0 && float.abs() < EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return json!(float as i64);
    }
    json!(float)
}

/// Field 1 is the schema, or whether anything is allowed; field 2 the other one.
fn schema_or(
    kind: Scalar,
    wire: &Wire<'_>,
    reader: &Reader<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    let props = type_named(SCHEMA_PROPS).ok_or_else(|| reader.malformed())?;
    let mut inner = Reader {
        rest: reader.bytes(wire)?,
        message: reader.message,
    };
    let (mut single, mut list) = (Value::Null, Vec::new());
    while let Some((tag, wire)) = inner.next()? {
        match (kind, tag) {
            (Scalar::SchemaOrBool, 1) if single.is_null() => {
                single = json!(inner.integer(&wire)? != 0);
            }
            // Whoever gives a schema also writes that something is allowed.
            (Scalar::SchemaOrBool, 1) => {}
            (Scalar::SchemaOrStrings, 2) => list.push(json!(inner.text(&wire)?)),
            (Scalar::SchemaOrArray, 2) => {
                list.push(message(props.get(), inner.bytes(&wire)?, depth)?.into());
            }
            _ => single = message(props.get(), inner.bytes(&wire)?, depth)?.into(),
        }
    }
    Ok(if single.is_null() {
        list.into()
    } else {
        single
    })
}

/// The small messages behind special scalars: numbers by tag, and one text.
#[derive(Default)]
struct Parts {
    numbers: [i64; 3],
    text: String,
}

impl Parts {
    fn number(&self, tag: usize) -> i64 {
        self.numbers.get(tag).copied().unwrap_or_default()
    }
}

fn parts(bytes: &[u8], message: &'static str) -> Result<Parts, ProtobufError> {
    let mut parts = Parts::default();
    let mut reader = Reader {
        rest: bytes,
        message,
    };
    while let Some((tag, wire)) = reader.next()? {
        match wire {
            Wire::Varint(_) => {
                let number = reader.integer(&wire)?;
                if let Some(place) = parts.numbers.get_mut(usize::try_from(tag).unwrap_or(9)) {
                    *place = number;
                }
            }
            Wire::Bytes(_) => parts.text = reader.text(&wire)?.to_owned(),
            Wire::Fixed64(_) | Wire::Fixed32 => return Err(reader.malformed()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::type_named;

    fn pod(raw: &[u8]) -> Result<Value, ProtobufError> {
        let mut body = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        body.push(u8::try_from(raw.len()).expect("short"));
        body.extend(raw);
        decode(
            type_named("io.k8s.api.core.v1.Pod").expect("served").get(),
            &body,
        )
    }

    #[test]
    fn a_pod_as_go_writes_it_becomes_json() {
        // metadata{name "d2", generateName ""..., creationTimestamp {}, labels{app: d2}},
        // spec{containers[{name "c", image "i", command "", resources {}, tty false}]}
        let metadata =
            b"\x0a\x17\x0a\x02d2\x12\x00\x1a\x00\x38\x00\x42\x00\x5a\x09\x0a\x03app\x12\x02d2";
        let spec = b"\x12\x11\x12\x0f\x0a\x01c\x12\x01i\x42\x00\x90\x01\x00\x9a\x01\x00";
        let mut raw = metadata.to_vec();
        raw[1] = u8::try_from(metadata.len() - 2).expect("short");
        let mut spec = spec.to_vec();
        spec[1] = u8::try_from(spec.len() - 2).expect("short");
        spec[3] = u8::try_from(spec.len() - 4).expect("short");
        raw.extend(&spec[..spec.len() - 3]);
        let spec_len = spec.len() - 2 - 3;
        let at = metadata.len();
        raw[at + 1] = u8::try_from(spec_len).expect("short");
        raw[at + 3] = u8::try_from(spec_len - 2).expect("short");
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "d2", "labels": {"app": "d2"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]},
        });
        assert_eq!(pod(&raw), Ok(expected));
    }

    #[test]
    fn embedded_structs_are_flattened() {
        // spec{volumes[{name "v", volumeSource{emptyDir{}}}]}
        let raw = b"\x12\x09\x0a\x07\x0a\x01v\x12\x02\x12\x00";
        assert_eq!(
            pod(raw).expect("decodes")["spec"]["volumes"],
            json!([{"name": "v", "emptyDir": {}}])
        );
    }

    #[test]
    fn nothing_is_dropped_silently_and_garbage_is_refused() {
        assert_eq!(
            pod(b"\x12\x03\xf8\x3f\x00"),
            Err(ProtobufError::UnknownTag {
                message: "PodSpec",
                tag: 1023
            })
        );
        assert_eq!(
            pod(b"\x12\x09\x0a"),
            Err(ProtobufError::Malformed { message: "Pod" })
        );
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served").get();
        assert_eq!(decode(schema, b"{}"), Err(ProtobufError::NoMagic));
    }
}
