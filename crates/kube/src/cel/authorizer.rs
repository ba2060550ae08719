//! The variable `authorizer`: what somebody may do, asked step by step.
//!
//! `authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()` is
//! a map that each call adds a field to, until `check` asks.

use std::cell::RefCell;
use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::{Context, ExecutionError, Value as CelValue};
use serde_json::{Value, json};

use super::values;

/// The name of the variable, and of the field that its values are known by.
pub(crate) const AUTHORIZER: &str = "authorizer";
const MARK: &str = "__authorizer__";

/// Answers whether the user of the request may do what the fields say: `verb`, and `path` or
/// `group`, `resource`, `subresource`, `namespace` and `name`. The text is the reason.
pub(crate) type Ask = Arc<dyn Fn(&Value) -> (bool, String) + Send + Sync>;

thread_local! {
    static ASK: RefCell<Option<Ask>> = const { RefCell::new(None) };
}

/// Runs something in which the variable asks `ask`.
pub(crate) fn authorizer<T>(ask: Ask, run: impl FnOnce() -> T) -> T {
    ASK.with_borrow_mut(|present| *present = Some(ask));
    let result = run();
    ASK.with_borrow_mut(|present| *present = None);
    result
}

/// The value of the variable.
pub(crate) fn value() -> Value {
    json!({MARK: "user"})
}

pub(super) fn register(context: &mut Context<'static>) {
    for field in ["group", "resource", "subresource", "path"] {
        context.add_function(
            field,
            move |This(this): This<CelValue>, text: Arc<String>| with(this, field, &text),
        );
    }
    // `name` and `namespace` are functions of nothing else.
    for field in ["namespace", "name"] {
        context.add_function(
            field,
            move |This(this): This<CelValue>, text: Arc<String>| with(this, field, &text),
        );
    }
    context.add_function("check", |This(this): This<CelValue>, verb: Arc<String>| {
        let asked = with(this, "verb", &verb)?;
        let question = values::to_json(&asked).unwrap_or_default();
        let ask = ASK.with_borrow(Clone::clone);
        let (is_allowed, reason) = ask.map_or((false, String::new()), |ask| ask(&question));
        let answer = json!({MARK: "decision", "allowed": is_allowed, "reason": reason});
        Ok::<_, ExecutionError>(values::from_json(&answer))
    });
    context.add_function("allowed", |This(this): This<CelValue>| {
        let decision = marked(&this, "decision")?;
        Ok::<_, ExecutionError>(decision["allowed"] == true)
    });
    context.add_function("reason", |This(this): This<CelValue>| {
        let decision = marked(&this, "decision")?;
        let reason = decision["reason"].as_str().unwrap_or_default();
        Ok::<_, ExecutionError>(CelValue::from(reason))
    });
    context.add_function("errored", |This(this): This<CelValue>| {
        marked(&this, "decision").map(|_| false)
    });
}

fn with(this: CelValue, field: &str, text: &str) -> Result<CelValue, ExecutionError> {
    let mut fields = marked(&this, "user")?;
    fields[field] = text.into();
    Ok(values::from_json(&fields))
}

fn marked(this: &CelValue, mark: &str) -> Result<Value, ExecutionError> {
    let fields = values::to_json(this).unwrap_or_default();
    if fields[MARK] == mark {
        Ok(fields)
    } else {
        Err(ExecutionError::NoSuchOverload)
    }
}
