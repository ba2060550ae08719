//! What rules of custom resources need beside evaluation: the parts of an expression, and values
//! that may be missing.

use std::sync::Arc;

use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::{IdedExpr, Value as CelValue};
use serde_json::Value;

use super::{Expression, Variables, values};

impl Expression {
    /// What it is made of, as it is evaluated.
    pub(crate) fn code(&self) -> &IdedExpr {
        &self.code
    }
}

impl Variables {
    /// A value that may be missing: `oldSelf` of rules that count for new objects too.
    pub(crate) fn set_optional(&mut self, name: &'static str, value: Option<&Value>) {
        self.bytes += value.map_or(0, values::weight);
        let value = match value {
            Some(value) => OptionalValue::of(values::from_json(value)),
            None => OptionalValue::none(),
        };
        self.set_value(name, CelValue::Opaque(Arc::new(value)));
    }
}
