//! RFC 6902, with bounds: copies of copies double an object with each operation.

use json_patch::jsonptr::Pointer;
use json_patch::{PatchOperation, patch_unsafe};
use serde_json::Value;

/// Upstream's bound of what all copies of a patch may bring together; moves are counted too, for
/// looking at what they move costs as much.
const CARRIED_BYTES_MAX: usize = 3 << 20;
/// Levels of an object. `serde_json` reads no more, so more could be stored but never read.
const LEVELS_MAX: usize = 127;

/// The patch was not applied: a test failed, a path does not exist, or a bound was reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Applies the operations one by one. After an error, `object` is anything.
pub(super) fn apply(object: &mut Value, operations: &[PatchOperation]) -> Result<(), Refused> {
    let mut carried_bytes = 0;
    for operation in operations {
        let levels = match operation {
            PatchOperation::Copy(copy) => carry(object, &copy.from, &mut carried_bytes)?,
            PatchOperation::Move(moved) => carry(object, &moved.from, &mut carried_bytes)?,
            PatchOperation::Add(add) => Size::of(&add.value).levels,
            PatchOperation::Replace(replace) => Size::of(&replace.value).levels,
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        if operation.path().count() + levels > LEVELS_MAX {
            return Err(Refused);
        }
        // Upstream's library replaces what an object does not have, too.
        if let PatchOperation::Replace(replace) = operation
            && let Some((parent, key)) = replace.path.split_back()
            && let Some(Value::Object(parent)) = object.pointer_mut(parent.as_str())
        {
            parent.insert(key.decoded().into_owned(), replace.value.clone());
            continue;
        }
        // The other one undoes what it did, which panics after some moves, and we have a copy.
        patch_unsafe(object, std::slice::from_ref(operation)).map_err(|_| Refused)?;
    }
    Ok(())
}

/// Counts what is copied or moved, and returns how many levels it has.
fn carry(object: &Value, from: &Pointer, carried_bytes: &mut usize) -> Result<usize, Refused> {
    let size = Size::of(object.pointer(from.as_str()).ok_or(Refused)?);
    *carried_bytes += size.bytes;
    if *carried_bytes > CARRIED_BYTES_MAX {
        return Err(Refused);
    }
    Ok(size.levels)
}

/// How large a value is.
#[derive(Default)]
struct Size {
    /// About, as JSON.
    bytes: usize,
    levels: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let inner = |sizes: &mut dyn Iterator<Item = Self>| {
            let mut size = Self::default();
            for inner in sizes {
                size.bytes += inner.bytes + 1;
                size.levels = size.levels.max(inner.levels);
            }
            size.bytes += 2;
            size.levels += 1;
            size
        };
        let plain = |bytes| Self { bytes, levels: 0 };
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => plain(4),
            Value::String(text) => plain(text.len() + 2),
            Value::Array(items) => inner(&mut items.iter().map(Self::of)),
            Value::Object(map) => inner(&mut map.iter().map(|(key, value)| {
                let mut size = Self::of(value);
                size.bytes += key.len() + 3;
                size
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(mut object: Value, operations: Value) -> Result<Value, Refused> {
        let patch: json_patch::Patch = serde_json::from_value(operations).expect("well formed");
        apply(&mut object, &patch.0).map(|()| object)
    }

    #[test]
    fn copies_of_copies_are_refused_before_they_fill_the_memory() {
        let doubling = |count: usize| -> Value {
            let operations = (0..count)
                .map(|number| json!({"op": "copy", "from": "/a", "path": format!("/a/{number}")}));
            operations.collect()
        };
        let object = || json!({"a": {"text": "x".repeat(1000)}});
        assert!(applied(object(), doubling(8)).is_ok());
        assert_eq!(applied(object(), doubling(40)), Err(Refused));
    }

    #[test]
    fn an_object_never_has_more_levels_than_can_be_read() {
        let deepening = |count: usize| -> Value {
            let operation = json!({"op": "copy", "from": "", "path": "/a"});
            std::iter::repeat_n(operation, count).collect()
        };
        let deepest = applied(json!({"a": 1}), deepening(LEVELS_MAX - 1)).expect("not too deep");
        let text = serde_json::to_string(&deepest).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(deepest));
        assert_eq!(
            applied(json!({"a": 1}), deepening(LEVELS_MAX)),
            Err(Refused)
        );
    }

    #[test]
    fn replacing_a_missing_key_adds_it_and_a_missing_element_is_a_refusal() {
        let replace = |path: &str| json!([{"op": "replace", "path": path, "value": 2}]);
        assert_eq!(
            applied(json!({"a": {}}), replace("/a/b~1c")),
            Ok(json!({"a": {"b/c": 2}}))
        );
        assert_eq!(applied(json!({"a": []}), replace("/a/0")), Err(Refused));
        assert_eq!(applied(json!({"a": 1}), replace("/b/c")), Err(Refused));
    }

    #[test]
    fn a_failure_after_a_move_over_its_parent_is_a_refusal() {
        let operations = json!([
            {"op": "move", "from": "/a/b", "path": "/a"},
            {"op": "test", "path": "/none", "value": 1},
        ]);
        assert_eq!(applied(json!({"a": {"b": 1}}), operations), Err(Refused));
    }
}
