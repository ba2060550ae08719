//! CEL: expressions of policies, webhooks and schemas, with Kubernetes' functions.
//!
//! ```text
//!   text ── parse (bounded) ── rewrite ── Expression ── evaluate(Variables, Budget) ──> value
//! ```
//!
//! Expressions come from people who may be careless or worse, and the library knows no limits at
//! run time. So each loop is rewritten to ask first whether there is budget left, which pays for
//! steps by the size of what they can copy.

mod authorizer;
pub(crate) mod check;
mod guard;
pub(crate) mod infer;
mod inspect;
mod json_patch;
mod optional;
mod rewrite;
mod syntax;
pub(crate) mod types;
mod values;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::KubeCelExt;
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value as CelValue};
use serde_json::Value;

pub(crate) use self::authorizer::{AUTHORIZER, Ask, authorizer, value as authorizer_value};

/// Upstream bounds rules by their cost; so long an expression has no honest purpose.
const EXPRESSION_BYTES_MAX: usize = 32 * 1024;
/// Levels of brackets: each costs the parser about twenty frames.
const BRACKETS_MAX: usize = 48;
/// Bytes of variables that one step of a loop pays a unit for: it may copy them.
const BYTES_PER_UNIT: usize = 2048;
/// What all expressions for one object may spend together: half a second at the worst.
const BUDGET_UNITS: u64 = 200_000;
/// What a value may weigh that an expression makes for later ones.
const VALUE_BYTES_MAX: usize = 4 << 20;
/// Room for the parser, which descends into every bracket.
const PARSER_STACK_BYTES: usize = 16 << 20;

/// An expression that can be evaluated.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) source: String,
    code: IdedExpr,
}

/// The text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compilation failed: {0}")]
pub(crate) struct CompileError(pub(crate) String);

/// The expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluateError {
    #[error("{0}")]
    Failed(String),
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
}

/// What expressions may still spend.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(BUDGET_UNITS)
    }
}

/// What an expression is evaluated with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    values: Vec<(&'static str, CelValue)>,
    bytes: usize,
}

impl Variables {
    pub(crate) fn set(&mut self, name: &'static str, value: &Value) {
        self.bytes += values::weight(value);
        self.set_value(name, values::from_json(value));
    }

    fn set_value(&mut self, name: &'static str, value: CelValue) {
        self.values.retain(|(present, _)| *present != name);
        self.values.push((name, value));
    }

    /// Makes an evaluated value a field of the map `name`.
    pub(crate) fn set_field(&mut self, name: &'static str, field: &str, value: &Outcome) {
        self.bytes += value.bytes;
        let present = self.values.iter().find(|(present, _)| *present == name);
        let fields = present.map(|(_, value)| value.clone());
        let map = values::with_field(fields, field, value.value.clone());
        self.set_value(name, map);
    }
}

/// The value of an expression.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    value: CelValue,
    bytes: usize,
}

impl Outcome {
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.value {
            CelValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            CelValue::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, CelValue::Null)
    }

    /// None for what JSON does not have.
    pub(crate) fn to_json(&self) -> Option<Value> {
        values::to_json(&self.value)
    }
}

thread_local! {
    /// All functions; making them costs more than an evaluation.
    static FUNCTIONS: Context<'static> = functions();
    /// What the running evaluation may still spend, and what a step costs it.
    static LEFT: Cell<(u64, u64)> = const { Cell::new((0, 1)) };
}

fn functions() -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function(rewrite::STEP, || -> bool {
        let (left, cost) = LEFT.get();
        LEFT.set((left.saturating_sub(cost), cost));
        left > cost
    });
    guard::register(&mut context);
    optional::register(&mut context);
    json_patch::register(&mut context);
    authorizer::register(&mut context);
    context
}

impl Expression {
    pub(crate) fn compile(source: &str) -> Result<Self, CompileError> {
        if source.trim().is_empty() {
            return Err(CompileError("expression is empty".to_owned()));
        }
        if source.len() > EXPRESSION_BYTES_MAX {
            let why = format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes");
            return Err(CompileError(why));
        }
        if rewrite::brackets(source) > BRACKETS_MAX {
            let why = format!("the expression has more than {BRACKETS_MAX} levels of brackets");
            return Err(CompileError(why));
        }
        let mut code = parse(source)?;
        rewrite::rewrite(&mut code, 0).map_err(CompileError)?;
        let source = source.to_owned();
        Ok(Self { source, code })
    }

    pub(crate) fn evaluate(
        &self,
        variables: &Variables,
        budget: &mut Budget,
    ) -> Result<Outcome, EvaluateError> {
        let cost = 1 + u64::try_from(variables.bytes / BYTES_PER_UNIT).unwrap_or(u64::MAX);
        budget.0 = budget.0.saturating_sub(cost);
        if budget.0 == 0 {
            return Err(EvaluateError::Budget);
        }
        // An evaluation inside of another one would spend its budget; there is none.
        LEFT.set((budget.0, cost));
        // The library has unwraps of its own.
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            FUNCTIONS.with(|functions| {
                let mut context = functions.new_inner_scope();
                for (name, value) in &variables.values {
                    context.add_variable_from_value(*name, value.clone());
                }
                CelValue::resolve(&self.code, &context)
            })
        }));
        let (left, _) = LEFT.get();
        budget.0 = left;
        if left == 0 {
            return Err(EvaluateError::Budget);
        }
        let failed = |why: String| EvaluateError::Failed(why);
        let panicked = |_| failed("the expression cannot be evaluated".to_owned());
        let value = evaluated
            .map_err(panicked)?
            .map_err(|error| failed(text(&error)))?;
        let bytes = values::weight_of(&value, VALUE_BYTES_MAX);
        if bytes > VALUE_BYTES_MAX {
            return Err(EvaluateError::Budget);
        }
        Ok(Outcome { value, bytes })
    }
}

fn parse(source: &str) -> Result<IdedExpr, CompileError> {
    let source = source.to_owned();
    let parse = move || {
        let parser = Parser::new().enable_optional_syntax(true);
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(&source)));
        match parsed {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(errors)) => Err(CompileError(errors.to_string().replace("\n| ", "\n | "))),
            Err(_) => Err(CompileError("the expression cannot be parsed".to_owned())),
        }
    };
    // On a stack of its own: a thread of the runtime has too little for what the bounds allow.
    let thread = std::thread::Builder::new()
        .stack_size(PARSER_STACK_BYTES)
        .spawn(parse);
    let failed = |_| CompileError("the expression cannot be parsed now".to_owned());
    thread
        .map_err(|error| CompileError(error.to_string()))?
        .join()
        .unwrap_or_else(|_| Err(failed(())))
}

/// In upstream's words where people look for them.
fn text(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload => "no such overload".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::IndexOutOfBounds(index) => format!("index out of bounds: {index:?}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::UndeclaredReference(name) => {
            format!("undeclared reference to '{name}' (in container '')")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
