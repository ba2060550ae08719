//! Between JSON and CEL.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::Value as CelValue;
use kube_cel::cel::objects::{Key, Map};
use serde_json::Value;

/// What a scalar weighs beside its text.
const SCALAR_BYTES: usize = 16;

pub(super) fn from_json(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => CelValue::Int(int),
            (None, Some(int)) => CelValue::UInt(int),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(fields) => {
            let fields = fields.iter();
            let map: HashMap<_, _> = fields
                .map(|(key, value)| (Key::from(key.clone()), from_json(value)))
                .collect();
            CelValue::Map(Map { map: Arc::new(map) })
        }
    }
}

pub(super) fn to_json(value: &CelValue) -> Option<Value> {
    Some(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(value) => (*value).into(),
        CelValue::Int(int) => (*int).into(),
        CelValue::UInt(int) => (*int).into(),
        CelValue::Float(float) => (*float).into(),
        CelValue::String(text) => text.as_str().into(),
        CelValue::List(items) => {
            let items: Option<Vec<_>> = items.iter().map(to_json).collect();
            items?.into()
        }
        CelValue::Map(map) => {
            let fields = map.map.iter().map(|(key, value)| match key {
                Key::String(key) => Some((key.as_str().to_owned(), to_json(value)?)),
                Key::Int(_) | Key::Uint(_) | Key::Bool(_) => None,
            });
            let fields: Option<serde_json::Map<_, _>> = fields.collect();
            fields?.into()
        }
        _ => return None,
    })
}

/// The map with one more field.
pub(super) fn with_field(map: Option<CelValue>, field: &str, value: CelValue) -> CelValue {
    let mut fields = match map {
        Some(CelValue::Map(map)) => Arc::unwrap_or_clone(map.map),
        _ => HashMap::new(),
    };
    fields.insert(Key::from(field.to_owned()), value);
    CelValue::Map(Map {
        map: Arc::new(fields),
    })
}

/// About how many bytes a value is.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR_BYTES,
        Value::String(text) => SCALAR_BYTES + text.len(),
        Value::Array(items) => SCALAR_BYTES + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter();
            SCALAR_BYTES
                + fields
                    .map(|(key, value)| key.len() + weight(value))
                    .sum::<usize>()
        }
    }
}

/// The same of a value of CEL; counting stops beyond `max`.
pub(super) fn weight_of(value: &CelValue, max: usize) -> usize {
    let mut open = vec![value];
    let mut bytes = 0_usize;
    while let Some(value) = open.pop() {
        bytes += SCALAR_BYTES;
        match value {
            CelValue::String(text) => bytes += text.len(),
            CelValue::Bytes(all) => bytes += all.len(),
            CelValue::List(items) => open.extend(items.iter()),
            CelValue::Map(map) => open.extend(map.map.values()),
            _ => {}
        }
        if bytes > max {
            break;
        }
    }
    bytes
}
