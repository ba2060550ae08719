//! What keeps an expression from making values that are larger than the memory.
//!
//! Whatever can grow is wrapped into a call that weighs the result and pays for it: sums, lists,
//! maps and loops. Of two values that are within bounds a sum is at most twice as large. The two
//! functions whose result is a product of their arguments are replaced by ones that look first.

use std::sync::Arc;

use kube_cel::cel::common::ast::{CallExpr, Expr, operators};
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value};

use super::{LEFT, VALUE_BYTES_MAX, values};

/// Weighs its argument and returns it.
const WEIGHED: &str = "__weighed__";
/// Bytes of new values that a unit of the budget pays for.
const BYTES_PER_UNIT: usize = 256;

/// Whether the value of an expression may be larger than those of its parts.
fn can_grow(code: &Expr) -> bool {
    match code {
        Expr::Call(call) if call.func_name == operators::ADD => {
            // What a loop collects is weighed when it ends.
            let first = call.args.first().map(|first| &first.expr);
            !matches!(first, Some(Expr::Ident(name)) if name.starts_with('@'))
        }
        Expr::Call(call) => matches!(call.func_name.as_str(), "format" | "join" | "replace"),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Comprehension(_) => true,
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Select(_) => false,
    }
}

/// Makes an expression that can grow pay for what it makes.
pub(super) fn weigh(code: &mut IdedExpr) {
    if can_grow(&code.expr) {
        let id = code.id;
        let inner = std::mem::take(code);
        *code = IdedExpr {
            id,
            expr: Expr::Call(CallExpr {
                func_name: WEIGHED.to_owned(),
                target: None,
                args: vec![inner],
            }),
        };
    }
}

pub(super) fn register(context: &mut Context<'static>) {
    context.add_function(WEIGHED, |Arguments(given): Arguments| {
        let value = given.first().cloned().unwrap_or(Value::Null);
        pay(values::weight_of(&value, VALUE_BYTES_MAX))?;
        Ok::<_, ExecutionError>(value)
    });
    context.add_function(
        "replace",
        |This(this): This<Arc<String>>, Arguments(given): Arguments| replace(&this, &given),
    );
    context.add_function(
        "join",
        |This(this): This<Value>, Arguments(given): Arguments| join(&this, &given),
    );
}

fn pay(bytes: usize) -> Result<(), ExecutionError> {
    let (left, step) = LEFT.get();
    let cost = u64::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u64::MAX);
    let left = if bytes > VALUE_BYTES_MAX {
        0
    } else {
        left.saturating_sub(cost)
    };
    LEFT.set((left, step));
    if left == 0 {
        return Err(ExecutionError::function_error(
            WEIGHED,
            "the value is too large",
        ));
    }
    Ok(())
}

fn text(value: Option<&Value>) -> Result<&str, ExecutionError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(_) | None => Err(ExecutionError::function_error("string", "no such overload")),
    }
}

fn replace(this: &str, given: &[Value]) -> Result<Value, ExecutionError> {
    let (from, to) = (text(given.first())?, text(given.get(1))?);
    let times = match given.get(2) {
        Some(Value::Int(times)) => usize::try_from(*times).unwrap_or(usize::MAX),
        Some(_) | None => usize::MAX,
    };
    let found = this.matches(from).take(times).count();
    pay(this.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(Value::from(this.replacen(from, to, times)))
}

fn join(this: &Value, given: &[Value]) -> Result<Value, ExecutionError> {
    let Value::List(items) = this else {
        return Err(ExecutionError::function_error("join", "no such overload"));
    };
    let separator = match given.first() {
        None => "",
        given => text(given)?,
    };
    let texts = items.iter().map(|item| text(Some(item)));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    pay(bytes.saturating_add(texts.len().saturating_mul(separator.len())))?;
    Ok(Value::from(texts.join(separator)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::{Budget, EvaluateError, Expression, Variables};

    fn told(source: &str) -> Result<String, EvaluateError> {
        let mut variables = Variables::default();
        variables.set(
            "self",
            &json!({"a": "x".repeat(1000), "l": vec!["ab"; 1000]}),
        );
        let expression = Expression::compile(source).expect("compiles");
        let outcome = expression.evaluate(&variables, &mut Budget::default())?;
        Ok(outcome.as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn values_that_would_fill_the_memory_are_not_made() {
        let started = Instant::now();
        let doubled = ".map(x, x + x)".repeat(60);
        let replaced = ".replace('x', self.a)".repeat(9);
        for source in [
            format!("[self.a]{doubled}[0]"),
            format!("self.a{replaced}"),
            "self.l.map(x, self.l.map(y, self.a + self.a).join(self.a)).join('')".to_owned(),
            format!("[{}]", vec!["self.l"; 3000].join(",")).replace(']', "].join(self.a)"),
        ] {
            assert!(told(&source).is_err(), "{}", &source[..40]);
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn small_values_are_as_ever() {
        for (source, expected) in [
            ("'abc'.replace('b', 'x')", "axc"),
            ("'aaa'.replace('a', 'b', 2)", "bba"),
            ("'ab'.replace('', '-')", "-a-b-"),
            ("['a', 'b'].join(', ')", "a, b"),
            ("['a', 'b'].map(x, x + x).join()", "aabb"),
            ("'%s is %d'.format(['a', 3])", "a is 3"),
        ] {
            assert_eq!(told(source), Ok(expected.to_owned()), "{source}");
        }
    }
}
