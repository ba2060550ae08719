//! Optional fields and items: `a.?b`, `a[?0]`.
//!
//! The library makes an optional value of an optional value when two follow each other and the
//! first is missing, so both operators are done here.

use std::sync::Arc;

use kube_cel::cel::common::ast::{CallExpr, operators};
use kube_cel::cel::extractors::Arguments;
use kube_cel::cel::objects::{Key, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, Value};

/// What both operators become.
const MEMBER: &str = "__optional__";

pub(super) fn rewrite(call: &mut CallExpr) {
    if matches!(
        call.func_name.as_str(),
        operators::OPT_SELECT | operators::OPT_INDEX
    ) {
        call.func_name = MEMBER.to_owned();
    }
}

pub(super) fn register(context: &mut Context<'static>) {
    context.add_function(MEMBER, |Arguments(given): Arguments| {
        let [of, key] = given.as_slice() else {
            return Err(ExecutionError::function_error(MEMBER, "no such overload"));
        };
        let found = match <&OptionalValue>::try_from(of) {
            Ok(optional) => optional.value().and_then(|of| member(of, key)),
            Err(_) => member(of, key),
        };
        let found = found.map_or_else(OptionalValue::none, OptionalValue::of);
        Ok(Value::Opaque(Arc::new(found)))
    });
}

fn member(of: &Value, key: &Value) -> Option<Value> {
    match (of, key) {
        (Value::Map(map), Value::String(key)) => map.map.get(&Key::String(key.clone())).cloned(),
        (Value::Map(map), Value::Int(key)) => map.map.get(&Key::Int(*key)).cloned(),
        (Value::List(items), Value::Int(index)) => {
            items.get(usize::try_from(*index).ok()?).cloned()
        }
        _ => None,
    }
}
