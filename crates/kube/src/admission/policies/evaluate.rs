//! A policy against one request and one object of parameters.

use serde_json::Value;

use super::Code;
use super::policy::{Compiled, Policy, Validation};
use crate::admission::{Attributes, expressions};
use crate::cel::{Budget, Outcome, Variables};

/// Upstream's bound of messages that expressions make.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// A validation that does not hold.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) index: usize,
    pub(super) code: Code,
}

#[derive(Default)]
pub(super) struct Verdict {
    pub(super) failures: Vec<Failure>,
    /// What could not be evaluated.
    pub(super) errors: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// A policy at work.
pub(super) struct Run<'a> {
    attributes: &'a Attributes<'a>,
    variables: Variables,
    /// Variables of the policy that have no value, and why: only who uses one hears of it.
    broken: Vec<(String, String)>,
    budget: Budget,
}

pub(super) fn evaluate(
    attributes: &Attributes<'_>,
    policy: &Policy,
    variables: &Variables,
    parameter: &Value,
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut run = match Run::begin(attributes, policy, variables, parameter) {
        Ok(Some(run)) => run,
        Ok(None) => return verdict,
        Err(why) => {
            verdict.errors.push(why);
            return verdict;
        }
    };
    for (index, validation) in policy.validations.iter().enumerate() {
        match run.holds(validation) {
            Ok(true) => {}
            Ok(false) => verdict.failures.push(Failure {
                message: run.message(validation),
                index,
                code: validation.code,
            }),
            Err(why) => verdict.errors.push(why),
        }
    }
    for (key, expression) in &policy.annotations {
        match run.value(expression) {
            Ok(value) if value.is_null() => {}
            Ok(value) => {
                let text = value.as_str().unwrap_or_default();
                verdict.annotations.push((key.clone(), text.to_owned()));
            }
            Err(why) => verdict.errors.push(why),
        }
    }
    verdict
}

impl<'a> Run<'a> {
    /// With the variables of the policy; none if its conditions do not hold.
    pub(super) fn begin(
        attributes: &'a Attributes<'a>,
        policy: &Policy,
        variables: &Variables,
        parameter: &Value,
    ) -> Result<Option<Self>, String> {
        let mut run = Run {
            attributes,
            variables: variables.clone(),
            broken: Vec::new(),
            budget: Budget::default(),
        };
        run.variables.set("params", parameter);
        let namespace = attributes.namespace_of_request().and_then(|name| {
            let namespaces = &attributes.state().namespaces;
            namespaces.get(attributes.api, None, name)
        });
        let none = Value::Null;
        run.variables
            .set("namespaceObject", namespace.as_deref().unwrap_or(&none));
        run.variables.set("variables", &serde_json::json!({}));
        if !run.conditions(policy)? {
            return Ok(None);
        }
        for (name, expression) in &policy.variables {
            match run.value(expression) {
                Ok(value) => run.variables.set_field("variables", name, &value),
                Err(why) => run.broken.push((name.clone(), why)),
            }
        }
        Ok(Some(run))
    }

    pub(super) fn value(&mut self, expression: &Compiled) -> Result<Outcome, String> {
        let expression = expression.as_ref().map_err(ToString::to_string)?;
        let evaluated = expressions::evaluate(
            self.attributes,
            expression,
            &self.variables,
            &mut self.budget,
        );
        evaluated.map_err(|error| {
            let why = error.to_string();
            let missing = why.strip_prefix("no such key: ");
            let broken = missing.and_then(|name| {
                let uses = expression.source.contains(&format!("variables.{name}"));
                self.broken
                    .iter()
                    .find(|(broken, _)| uses && broken == name)
            });
            let why = match broken {
                Some((name, why)) => {
                    let bare = why.split_once("' resulted in error: ");
                    let why = bare.map_or(why.as_str(), |(_, why)| why);
                    format!("composited variable {name:?} fails to evaluate: {why}")
                }
                None => why,
            };
            format!(
                "expression '{}' resulted in error: {why}",
                expression.source.trim()
            )
        })
    }

    /// All have to hold; one that does not decides, whatever is wrong with others.
    fn conditions(&mut self, policy: &Policy) -> Result<bool, String> {
        let mut faults = Vec::new();
        for (_, condition) in &policy.conditions {
            match self.value(condition).map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(false),
                Ok(None) => faults.push("a match condition is no boolean".to_owned()),
                Err(why) => faults.push(why),
            }
        }
        match faults.is_empty() {
            true => Ok(true),
            false => Err(faults.join(", ")),
        }
    }

    fn holds(&mut self, validation: &Validation) -> Result<bool, String> {
        let value = self.value(&validation.expression)?;
        Ok(value.as_bool() == Some(true))
    }

    fn message(&mut self, validation: &Validation) -> String {
        if let Some(expression) = &validation.message_expression
            && let Ok(value) = self.value(expression)
            && let Some(text) = value.as_str().map(str::trim)
            && !text.is_empty()
            && text.len() <= MESSAGE_BYTES_MAX
            && !text.contains('\n')
        {
            return text.to_owned();
        }
        match validation.message.as_str() {
            "" => format!("failed expression: {}", validation.source),
            message => message.to_owned(),
        }
    }
}
